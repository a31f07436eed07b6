"""Calibration of a classifier's probabilities: a temperature of the logits, and the expected calibration error.

The temperature T divides the logits before the softmax (Guo, Pleiss, Sun & Weinberger 2017, section 4.2). It changes
the probabilities, but not the order of the classes, so predictions and accuracy stay the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, log

import numpy as np
from jaxtyping import Float, Int

from loralet.tasks.softmax import log_softmax, softmax

LEAST_ROWS = 10
"""Fewest validation rows that a temperature is fitted on. With ten, it halves the calibration error (dev/LOG.md)."""
LARGEST = 20.0
"""Largest temperature; the smallest is its reciprocal."""
UNIFORM_ROWS = 1.0
"""Weight of the uniform labels in the fit, in rows. Without it, rows without errors would have a temperature of 0."""
BINS = 15
"""Number of bins of the calibration error, as in Guo et al. (2017)."""


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error on the rows of a split, before and after the logits are divided by the temperature."""

    before: float
    after: float


@dataclass(frozen=True)
class TemperatureScaling:
    """The temperature of a classifier.

    Args:
        temperature: divisor of the logits; 1 if it was not fitted.
        rows: number of validation rows.
        fitted: whether there were enough rows to fit it (:data:`LEAST_ROWS`).
        validation: error on these rows.
        test: error on the test split; None if it was not read.
    """

    temperature: float
    rows: int
    fitted: bool
    validation: CalibrationError
    test: CalibrationError | None = None

    def on_test(self, logits: Float[np.ndarray, "m c"], targets: Int[np.ndarray, "m"]) -> TemperatureScaling:
        """A copy with the error on the test split, given finite logits that are not yet divided."""
        return replace(self, test=errors(logits, targets, self.temperature))


def scale_temperature(logits: Float[np.ndarray, "m c"], targets: Int[np.ndarray, "m"]) -> TemperatureScaling:
    """Fit the temperature on validation rows.

    With fewer than :data:`LEAST_ROWS` rows it stays 1.

    Args:
        logits: finite logits of the rows.
        targets: their classes.
    """
    enough = len(targets) >= LEAST_ROWS
    temperature = fit_temperature(logits, targets) if enough else 1.0
    return TemperatureScaling(temperature, len(targets), enough, errors(logits, targets, temperature))


def fit_temperature(logits: Float[np.ndarray, "m c"], targets: Int[np.ndarray, "m"]) -> float:
    """The temperature with the lowest cross-entropy, summed over the rows and one more row.

    That row counts the mean cross-entropy of the rows with uniform labels. It is a prior against extreme probabilities,
    as the smoothed targets of Platt (1999) are: if no row is wrong, the cross-entropy of the rows alone falls with T
    without end. The sum is convex in 1/T, so it has a single minimum in log T, which scipy's bounded scalar minimiser
    finds. The result lies between 1/20 and 20.
    """
    from scipy.optimize import minimize_scalar

    wide, rows = logits.astype(np.float64), np.arange(len(targets))

    def cross_entropy(logarithm: float) -> float:
        logarithms = log_softmax(wide * exp(-logarithm))
        return -float(logarithms[rows, targets].sum() + UNIFORM_ROWS * logarithms.mean())

    bound = log(LARGEST)
    found = minimize_scalar(cross_entropy, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-6})
    return exp(float(found.x))


def errors(logits: Float[np.ndarray, "m c"], targets: Int[np.ndarray, "m"], temperature: float) -> CalibrationError:
    """The calibration error before and after the logits are divided by a temperature."""
    before = expected_calibration_error(softmax(logits), targets)
    after = before if temperature == 1.0 else expected_calibration_error(softmax(logits / temperature), targets)
    return CalibrationError(before, after)


def expected_calibration_error(
    probabilities: Float[np.ndarray, "m c"], targets: Int[np.ndarray, "m"], bins: int = BINS
) -> float:
    """Mean distance between confidence and accuracy over equal-width bins of the confidence, weighted by their rows.

    Confidence is the largest probability of a row (Naeini, Cooper & Hauskrecht 2015; Guo et al. 2017).

    Args:
        probabilities: probabilities of the rows.
        targets: their classes.
        bins: number of bins; bin i holds (i/bins, (i+1)/bins].
    """
    confidence, right = probabilities.max(-1).astype(np.float64), probabilities.argmax(-1) == targets
    gaps = np.bincount(bin_of(confidence, bins), right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(targets))


def bin_of(confidence: Float[np.ndarray, "m"], bins: int = BINS) -> Int[np.ndarray, "m"]:
    """The bin of each confidence."""
    return np.asarray(np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1))
