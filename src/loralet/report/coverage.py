"""The coverage-accuracy curve of a report, and confidences for wanted accuracies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loralet.report.statistics import thinned, wilson
from loralet.report.wording import listed, percent
from loralet.tasks.coverage import Coverage, Threshold, coverage_curve, threshold_for

MOST_POINTS = 150
"""Maximum number of points of the curve."""
FEWEST_ROWS = 10
"""The curve starts at this number of rows; with fewer, accuracy is mostly chance."""
WANTED = (0.8, 0.9, 0.95, 0.99)
"""Accuracies for which a confidence is given, if they are above the accuracy on all rows."""


@dataclass(frozen=True)
class CoveragePoint:
    """A point of the curve: the rows above a confidence.

    Args:
        confidence: the smallest confidence of these rows.
        coverage: their share of all rows.
        accuracy, low, high: share of them classified correctly, and its 95 % interval.
    """

    confidence: float
    coverage: float
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class CoverageCurve:
    """The curve, and the confidence of each wanted accuracy; None if none gives it."""

    points: tuple[CoveragePoint, ...]
    thresholds: tuple[tuple[float, Threshold | None], ...]


def coverage_of(probabilities: np.ndarray, targets: np.ndarray) -> CoverageCurve:
    """The curve of a classifier.

    Args:
        probabilities: of the rows, ``[rows, classes]``.
        targets: class of each row, ``[rows]``.
    """
    curve = coverage_curve(probabilities.max(1), probabilities.argmax(1) == targets)
    first = min(int(np.searchsorted(curve.rows, FEWEST_ROWS)), len(curve.rows) - 1)
    places = first + thinned(len(curve.rows) - first, MOST_POINTS)
    points = tuple(_point(curve, int(i)) for i in places)
    wanted = [accuracy for accuracy in WANTED if accuracy > points[-1].accuracy]
    return CoverageCurve(points, tuple((accuracy, threshold_for(curve, accuracy)) for accuracy in wanted))


def _point(curve: Coverage, i: int) -> CoveragePoint:
    rows, right = int(curve.rows[i]), int(curve.right[i])
    return CoveragePoint(float(curve.thresholds[i]), rows / int(curve.rows[-1]), right / rows, *wilson(right, rows))


def coverage_text(curve: CoverageCurve, run: str, rows: str = "test rows") -> str:
    """The caption of the curve, with the confidences for wanted accuracies.

    Args:
        curve: the curve.
        run: name of the classifier.
        rows: the rows it was measured on.
    """
    text = (
        f"Accuracy of {run} on the {rows} whose confidence (largest probability) is at least a threshold, with its "
        "95 % interval, by the share of these rows. predict --min-confidence gives the other rows no label."
    )
    found = [(wanted, at) for wanted, at in curve.thresholds if at]
    never = [wanted for wanted, at in curve.thresholds if not at]
    if found:
        parts = [f"{percent(goal, 0)} at {at.threshold:g} ({percent(at.coverage)} of the rows)" for goal, at in found]
        text += f" Accuracy reaches {listed(parts)}; these confidences were chosen on the {rows}."
    if never:
        text += f" No confidence gives {listed([percent(goal, 0) for goal in never])}."
    return text
