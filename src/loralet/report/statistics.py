"""Statistics of a study, as pure functions of arrays. Each docstring cites the source of its formula.

Resampling is seeded, so that reports of the same run folder are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loralet.tasks.calibration import BINS, bin_of, expected_calibration_error

DRAWS = 10_000
"""Number of bootstrap resamples. A 95 % bound differs between two seeds by less than a tenth of the interval."""


@dataclass(frozen=True)
class SeedSummary:
    """Values of one configuration over its seeds.

    Args:
        count: number of seeds.
        mean: over the seeds.
        sd: sample standard deviation; None for one seed.
        low, high: 95 % interval of the mean; None for one seed.
    """

    count: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Paired:
    """Two classifiers on the same rows.

    Args:
        difference: accuracy of the second minus accuracy of the first.
        low, high: 95 % bootstrap interval of the difference.
        only_first, only_second: rows that only one of them classifies correctly, summed over the seeds.
        p: two-sided p-value, uncorrected.
        method: name of the test.
    """

    difference: float
    low: float
    high: float
    only_first: int
    only_second: int
    p: float
    method: str


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose top probability lies in (start, end].

    Args:
        start, end: bounds of the bin.
        rows: number of rows in it.
        confidence: their mean top probability.
        accuracy: share of them classified correctly.
        low, high: 95 % interval of the accuracy.
    """

    start: float
    end: float
    rows: int
    confidence: float
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error and its bins, without empty bins."""

    ece: float
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True)
class Convergence:
    """When a configuration converged.

    Args:
        step: first check at the target score, median over seeds; if censored, the number of steps taken.
        censored: whether the target was not reached within ``step`` steps.
        reached, seeds: number of seeds that reached the target, and number of all seeds.
    """

    step: float
    censored: bool
    reached: int
    seeds: int

    @property
    def text(self) -> str:
        """The step as text; ``>N`` if it is censored."""
        return f">{self.step:g}" if self.censored else f"{self.step:g}"


def wilson(right: int, rows: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927), computed by scipy.

    Args:
        right: successes.
        rows: trials.
    """
    from scipy.stats import binomtest

    interval = binomtest(right, rows).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def check_error(accuracy: float, rows: int) -> float:
    """Half the width of Wilson's 95 % interval of an accuracy.

    Args:
        accuracy: accuracy as a fraction.
        rows: number of rows it was measured on.
    """
    low, high = wilson(round(accuracy * rows), rows)
    return (high - low) / 2


def over_seeds(values: Sequence[float], seed: int = 0) -> SeedSummary:
    """Mean, sample standard deviation and percentile bootstrap interval of the mean (Efron 1979).

    The interval of three seeds cannot be wider than the three values, so it underestimates the uncertainty.

    Args:
        values: one per seed.
        seed: of the resampling.
    """
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return SeedSummary(len(array), float(array.mean()), None, None, None)
    means = array[np.random.default_rng(seed).integers(0, len(array), (DRAWS, len(array)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return SeedSummary(len(array), float(array.mean()), float(array.std(ddof=1)), float(low), float(high))


def accuracy_interval(right: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a configuration's accuracy over both seeds and test rows.

    Two-level percentile bootstrap (Davison & Hinkley 1997, section 3.8): seeds and rows are resampled with replacement.

    Args:
        right: whether each seed's run classifies each row correctly, bool ``[seeds, rows]``.
        seed: of the resampling.
    """
    shares = _resampled(right, np.zeros_like(right), seed)
    low, high = np.percentile(shares, [2.5, 97.5])
    return float(low), float(high)


def paired(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Paired:
    """Compare two configurations on the same rows.

    With one seed each, p is that of McNemar's exact test (McNemar 1947; exact binomial form): among the rows on which
    the two differ, is the share that the second classifies correctly 1/2? That test does not extend to several seeds.
    With several seeds, p is twice the smaller tail of a paired bootstrap that resamples rows and seeds, the same ones
    for both configurations (Berg-Kirkpatrick, Burkett & Klein 2012 for the pairing over rows).

    Args:
        first, second: whether each seed's run classifies each row correctly, bool ``[seeds, rows]``; the same seeds in
            the same order.
        seed: of the resampling.
    """
    from scipy.stats import binomtest

    draws = _resampled(second, first, seed)
    low, high = np.percentile(draws, [2.5, 97.5])
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if len(first) == 1:
        differing = only_first + only_second
        p = float(binomtest(only_second, differing).pvalue) if differing else 1.0
        method = "McNemar's exact test"
    else:
        # Adding one to both counts avoids a p-value of 0 (Davison & Hinkley 1997, section 4.2).
        tail = min((draws <= 0).sum(), (draws >= 0).sum())
        p, method = min(1.0, 2 * float(tail + 1) / (DRAWS + 1)), f"paired bootstrap over rows and {len(first)} seeds"
    return Paired(float(second.mean() - first.mean()), float(low), float(high), only_first, only_second, p, method)


def _resampled(plus: np.ndarray, minus: np.ndarray, seed: int) -> np.ndarray:
    """Resampled means ``[draws]`` of ``plus - minus``, both ``[seeds, rows]``.

    Rows with the same pattern over the seeds are drawn together from a multinomial: exact, and faster than per row.
    """
    generator = np.random.default_rng(seed)
    seeds, rows = plus.shape
    patterns, counts = np.unique(plus.astype(np.int8) - minus.astype(np.int8), axis=1, return_counts=True)
    drawn_rows = generator.multinomial(rows, counts / rows, DRAWS) / rows
    drawn_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), DRAWS) / seeds
    return np.asarray(np.einsum("bs,sp,bp->b", drawn_seeds, patterns.astype(np.float64), drawn_rows))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for multiple comparisons by Holm's step-down procedure (Holm 1979), in the given order."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Calibration:
    """Expected calibration error over equal-width bins of the top probability (Naeini et al. 2015; Guo et al. 2017).

    Args:
        probabilities: ``[rows, classes]``.
        labels: class of each row, ``[rows]``.
        bins: number of bins; bin i holds (i/bins, (i+1)/bins].
    """
    confidence, right = probabilities.max(1).astype(np.float64), probabilities.argmax(1) == labels
    place = bin_of(confidence, bins)
    found: list[ReliabilityBin] = []
    for i in np.unique(place):
        inside = place == i
        rows, correct = int(inside.sum()), int(right[inside].sum())
        found.append(
            ReliabilityBin(
                i / bins, (i + 1) / bins, rows, float(confidence[inside].mean()), correct / rows, *wilson(correct, rows)
            )
        )
    return Calibration(expected_calibration_error(probabilities, labels, bins), tuple(found))


def loss_spikes(losses: np.ndarray, window: int = 50, threshold: float = 8.0) -> int:
    """Number of loss spikes of a run; consecutive spikes count once.

    A step is a spike if its loss is not finite, or more than ``threshold`` robust standard deviations (1.4826 x median
    absolute deviation, Hampel 1974) above the median of the ``window`` steps before it. The threshold is assumed; it is
    high because losses of small batches are skewed.

    Args:
        losses: one per step; NaN if not finite.
        window: number of steps.
        threshold: number of robust standard deviations.
    """
    if len(losses) <= window:
        return int((~np.isfinite(losses)).any())
    finite = np.where(np.isfinite(losses), losses, np.inf)
    before = np.lib.stride_tricks.sliding_window_view(np.where(np.isfinite(finite), finite, np.nan), window)[:-1]
    with np.errstate(invalid="ignore"):
        median = np.nanmedian(before, axis=1)
        spread = 1.4826 * np.nanmedian(np.abs(before - median[:, None]), axis=1)
    high = finite[window:] > median + threshold * np.maximum(spread, 1e-3)
    return int(high[0]) + int((high[1:] & ~high[:-1]).sum())


def converged(steps: Sequence[int | None], taken: Sequence[int]) -> Convergence:
    """Median convergence step over seeds, some of which may be censored.

    A run that did not reach the target counts as later than all runs that did (median of censored times, Kaplan & Meier
    1958, with all times censored at the same step).

    Args:
        steps: first step at the target for each seed; None if it was not reached.
        taken: number of training steps of each run.
    """
    reached = sorted(float(s) for s in steps if s is not None)
    count, seeds = len(reached), len(steps)
    lower, upper = (seeds - 1) // 2, seeds // 2
    if upper >= count:
        return Convergence(float(max(t for s, t in zip(steps, taken, strict=True) if s is None)), True, count, seeds)
    return Convergence((reached[lower] + reached[upper]) / 2, False, count, seeds)


def pareto(costs: Sequence[float], values: Sequence[float]) -> list[bool]:
    """Whether each point is on the Pareto front (Pareto 1906).

    A point is on the front if no other point is at most as costly and at least as good, and better in one of both.
    """
    points = list(zip(costs, values, strict=True))
    return [
        not any((c <= cost and v >= value) and (c < cost or v > value) for c, v in points) for cost, value in points
    ]


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Rank correlation (Spearman 1904); None if a variable is constant or there are fewer than three points."""
    from scipy.stats import spearmanr

    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    return float(spearmanr(x, y).statistic)


def smoothed(values: np.ndarray, half_life: float) -> np.ndarray:
    """Exponential moving average with bias correction (Kingma & Ba 2015, section 3); non-finite values are skipped.

    Args:
        values: one per step.
        half_life: in steps.
    """
    from scipy.signal import lfilter

    decay = 0.5 ** (1 / max(half_life, 1e-9))
    finite = np.isfinite(values)
    total = lfilter([1 - decay], [1, -decay], np.where(finite, values, 0.0))
    weight = lfilter([1 - decay], [1, -decay], finite.astype(np.float64))
    return np.asarray(np.divide(total, weight, out=np.full(len(values), np.nan), where=weight > 0))


def thinned(count: int, most: int) -> np.ndarray:
    """At most ``most`` evenly spaced indices from 0 to ``count - 1``, first and last included."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)) if count else np.zeros(0, int)
