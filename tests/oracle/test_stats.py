"""Statistics compared with scipy or with hand calculations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from loralet.report.statistics import (
    accuracy_interval,
    check_error,
    converged,
    holm,
    loss_spikes,
    over_seeds,
    paired,
    pareto,
    reliability,
    smoothed,
    spearman,
    thinned,
    wilson,
)
from loralet.tasks.suspects import suspected_labels

MONTE_CARLO = 0.004
"""Upper limit of the difference of two bootstraps (10,000 draws, 500 rows): five standard errors of a percentile."""


def rows_right(*shares: float, rows: int = 500, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((len(shares), rows)) < np.array(shares)[:, None]


def test_wilson_by_hand() -> None:
    # Wilson 1927 at 87 of 100 with z = 1.96: centre 0.8563, half width 0.0662
    assert wilson(87, 100) == pytest.approx((0.7901, 0.9225), abs=2e-4)
    assert wilson(0, 10)[0] == 0.0


def test_the_error_of_a_check_is_half_of_the_wilson_interval() -> None:
    interval = scipy_stats.binomtest(41, 48).proportion_ci(0.95, method="wilson")
    assert check_error(41 / 48, 48) == pytest.approx((interval.high - interval.low) / 2)
    assert check_error(1.0, 48) > 0.03  # all correct on few rows still has an error
    assert check_error(0.85, 4800) < 0.4 * check_error(0.85, 480)


def test_mean_deviation_and_interval_over_seeds() -> None:
    values = [0.90, 0.91, 0.93, 0.92, 0.89]
    ours = over_seeds(values)
    assert (ours.count, ours.mean) == (5, pytest.approx(np.mean(values)))
    assert ours.sd == pytest.approx(np.std(values, ddof=1))
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.001)
    assert ours.high == pytest.approx(theirs.high, abs=0.001)
    single = over_seeds([0.9])
    assert (single.mean, single.sd, single.low, single.high) == (0.9, None, None, None)


def test_interval_over_seeds_and_rows() -> None:
    one = rows_right(0.8)
    theirs = scipy_stats.bootstrap(
        (one[0],), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert accuracy_interval(one) == pytest.approx((theirs.low, theirs.high), abs=MONTE_CARLO)
    apart, alike = rows_right(0.6, 0.8, 0.9), np.repeat(rows_right(0.77), 3, axis=0)
    widths = [high - low for low, high in (accuracy_interval(apart), accuracy_interval(alike))]
    assert widths[0] > 2 * widths[1]  # different seeds widen the interval, copies do not


def test_mcnemar_by_hand() -> None:
    # 8 rows correct only in the first, 2 only in the second: 2 (1 + 10 + 45) / 2^10
    first = np.array([[True] * 8 + [False] * 2 + [True] * 40])
    second = np.array([[False] * 8 + [True] * 2 + [True] * 40])
    test = paired(first, second)
    assert test.p == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert (test.only_first, test.only_second, test.method) == (8, 2, "McNemar's exact test")
    assert test.difference == pytest.approx(-6 / 50)
    assert test.low < -6 / 50 < test.high
    assert paired(first, first).p == 1.0
    assert paired(second, first).difference == -test.difference


def test_paired_interval_is_the_bootstrap_of_the_differences() -> None:
    first, second = rows_right(0.7), rows_right(0.76, seed=1)
    difference = second[0].astype(float) - first[0]
    theirs = scipy_stats.bootstrap(
        (difference,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1)
    ).confidence_interval
    ours = paired(first, second)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=MONTE_CARLO)


def test_paired_over_several_seeds() -> None:
    first, same, better = (
        rows_right(0.7, 0.7, 0.7),
        rows_right(0.7, 0.7, 0.7, seed=1),
        rows_right(0.85, 0.85, 0.85, seed=2),
    )
    assert paired(first, same).p > 0.05
    found = paired(first, better)
    assert 0 < found.p < 0.001
    assert "3 seeds" in found.method
    assert paired(first, first).p == 1.0


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, non-decreasing
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.01, 0.9]) == pytest.approx([0.02, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_calibration_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.85, 0.15], [0.9, 0.1], [0.45, 0.55]])
    found = reliability(probabilities, np.array([0, 1, 0, 1]), bins=5)
    # (0.8, 1]: three rows, confidence 0.9, 2/3 correct; (0.4, 0.6]: one row, confidence 0.55, correct
    assert [(b.rows, b.confidence, b.accuracy) for b in found.bins] == [
        (1, 0.55, 1.0),
        (3, pytest.approx(0.9), pytest.approx(2 / 3)),
    ]
    assert found.ece == pytest.approx(0.25 * 0.45 + 0.75 * (0.9 - 2 / 3))
    assert all(b.low <= b.accuracy <= b.high for b in found.bins)
    exact = reliability(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1]))
    assert exact.ece == 0.0


def test_a_bin_includes_its_upper_end() -> None:
    (only,) = reliability(np.array([[0.6, 0.4]]), np.array([0]), bins=5).bins
    assert (only.start, only.end) == (0.4, 0.6)


def test_loss_spikes() -> None:
    calm = 1 + 0.01 * np.random.default_rng(0).standard_normal(400)
    assert loss_spikes(calm) == 0
    leaping = calm.copy()
    leaping[[200, 201, 300]] = 5.0
    assert loss_spikes(leaping) == 2  # consecutive spikes count once
    leaping[350] = np.nan
    assert loss_spikes(leaping) == 3
    assert loss_spikes(np.linspace(2, 0.1, 400)) == 0  # a decrease is not a spike
    assert loss_spikes(calm[:10]) == 0


def test_convergence_with_censored_runs() -> None:
    assert converged([100], [500]).text == "100"
    assert converged([None], [500]).text == ">500"
    assert converged([100, None, 300], [500, 500, 500]).text == "300"
    late = converged([100, None, None], [500, 400, 500])
    assert (late.text, late.censored, late.reached, late.seeds) == (">500", True, 1, 3)
    assert converged([100, 200], [500, 500]).text == "150"
    assert converged([100, None], [500, 500]).text == ">500"


def test_pareto_by_hand() -> None:
    assert pareto([1, 2, 3, 2], [0.5, 0.7, 0.6, 0.6]) == [True, True, False, False]
    assert pareto([1, 1], [0.5, 0.5]) == [True, True]  # equal points are both on the front


def test_spearman_matches_scipy_and_is_none_for_constants() -> None:
    x, y = [1.0, 2.0, 3.0, 4.0], [10.0, float("inf"), 20.0, 40.0]
    assert spearman(x, y) == pytest.approx(1 - 6 * (0 + 4 + 1 + 1) / (4 * 15))
    assert spearman(x, [1.0] * 4) is None
    assert spearman([1.0, 2.0], [1.0, 2.0]) is None


def test_suspected_labels_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.05, 0.95], [0.1, 0.9], [0.3, 0.7], [0.45, 0.55]])
    labels = np.array([0, 0, 0, 1, 1, 0])
    # Thresholds: class 0 (0.9 + 0.8 + 0.05 + 0.45) / 4 = 0.55, class 1 (0.9 + 0.7) / 2 = 0.8.
    # Row 2 reaches that of class 1, row 5 does not.
    assert suspected_labels(probabilities, labels) == [(2, 1)]
    assert suspected_labels(probabilities[:2], labels[:2]) == []


def test_rare_classes_make_no_suspects_of_rows_that_the_model_confirms() -> None:
    probabilities = np.array([[0.95, 0.04, 0.01], [0.94, 0.05, 0.01], [0.98, 0.01, 0.01], [0.1, 0.88, 0.02]])
    labels = np.array([0, 0, 2, 2])
    # Thresholds: class 0 0.945, class 2 0.015, so row 1 reaches that of no class, row 3 only that of its own label.
    assert suspected_labels(probabilities, labels) == [(2, 0)]
    labels = np.array([0, 0, 0, 2])
    # Class 2 has the threshold 0.02, class 0 the mean 0.957: row 1 reaches neither.
    assert suspected_labels(probabilities, labels) == []
    probabilities[:2, 1:] = [[0.02, 0.03], [0.03, 0.03]]  # rows 0 and 1 reach only the threshold of class 2
    assert suspected_labels(probabilities, labels) == []


def test_smoothing_matches_a_loop() -> None:
    values = np.array([3.0, 1.0, np.nan, 2.0, 5.0])
    decay, total, weight, expected = 0.5**0.5, 0.0, 0.0, []
    for value in values:
        known = np.isfinite(value)
        total, weight = decay * total + (1 - decay) * (value if known else 0), decay * weight + (1 - decay) * known
        expected.append(total / weight)
    assert smoothed(values, 2.0) == pytest.approx(expected)
    assert smoothed(np.full(9, 4.0), 3.0) == pytest.approx(4.0)
    assert np.isnan(smoothed(np.array([np.nan, 1.0]), 1.0)[0])


def test_thinning_keeps_the_endpoints() -> None:
    kept = thinned(2229, 300)
    assert (len(kept), kept[0], kept[-1]) == (300, 0, 2228)
    assert list(thinned(3, 300)) == [0, 1, 2]
    assert len(thinned(0, 300)) == 0
