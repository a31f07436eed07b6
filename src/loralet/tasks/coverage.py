"""Coverage and accuracy of a classifier that abstains from rows of low confidence.

A classifier that predicts only the rows whose confidence (largest probability) reaches a threshold covers a share of
the rows (its coverage) and has another accuracy on them: the risk-coverage curve of selective classification (El-Yaniv
& Wiener 2010; Geifman & El-Yaniv 2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class Coverage:
    """The curve of a classifier on the rows of a split. Points are ordered by falling threshold, so coverage rises.

    Args:
        thresholds: the distinct confidences of the rows.
        rows: number of rows whose confidence is at least the threshold.
        right: number of these rows that are classified correctly.
    """

    thresholds: Float[np.ndarray, "p"]
    rows: Int[np.ndarray, "p"]
    right: Int[np.ndarray, "p"]

    @property
    def coverage(self) -> Float[np.ndarray, "p"]:
        """Share of all rows that are predicted."""
        return np.asarray(self.rows / self.rows[-1])

    @property
    def accuracy(self) -> Float[np.ndarray, "p"]:
        """Share of the predicted rows that are correct."""
        return np.asarray(self.right / self.rows)


@dataclass(frozen=True)
class Threshold:
    """A threshold of the confidence, and its effect on the rows it was chosen on.

    Args:
        threshold: the smallest confidence of a prediction; for ``--min-confidence``.
        rows, total: number of rows that are predicted, and of all rows.
        right: number of predicted rows that are correct.
    """

    threshold: float
    rows: int
    total: int
    right: int

    @property
    def coverage(self) -> float:
        """Share of all rows that are predicted."""
        return self.rows / self.total

    @property
    def accuracy(self) -> float:
        """Share of the predicted rows that are correct."""
        return self.right / self.rows


def coverage_curve(confidence: Float[np.ndarray, "m"], right: Bool[np.ndarray, "m"]) -> Coverage:
    """The curve of a classifier.

    Args:
        confidence: the largest probability of each row.
        right: whether the row is classified correctly.
    """
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # rows of equal confidence come together
    return Coverage(ordered[last].astype(np.float64), last + 1, np.cumsum(right[order])[last])


def threshold_for(curve: Coverage, accuracy: float) -> Threshold | None:
    """The threshold of the largest coverage whose accuracy is at least the wanted one; None if no threshold has it.

    It is written with as few digits as possible: of the numbers that separate the same rows, the shortest.

    Args:
        curve: the curve.
        accuracy: the wanted accuracy, as a fraction.
    """
    reached = np.flatnonzero(curve.accuracy >= accuracy)
    if not len(reached):
        return None
    i = int(reached[-1])
    below = float(curve.thresholds[i + 1]) if i + 1 < len(curve.thresholds) else 0.0
    found = 0.0 if i + 1 == len(curve.thresholds) else shortest(below, float(curve.thresholds[i]))
    return Threshold(found, int(curve.rows[i]), int(curve.rows[-1]), int(curve.right[i]))


def shortest(low: float, high: float) -> float:
    """The number in (low, high] with the fewest decimal places, for 0 <= low < high <= 1."""
    for digits in range(1, 17):
        for number in (round(high, digits), round(high - 10.0**-digits, digits)):
            if low < number <= high:
                return number
    return high
