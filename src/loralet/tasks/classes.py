"""Scores of each class of a single-label classifier, and its most frequent confusions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np
from jaxtyping import Int

SUM_ERROR = 1e-2
"""Largest distance of a sum of probabilities from 1; those of fp32 and many classes are within 1e-4."""


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class on a split, as scikit-learn defines them.

    Args:
        label: name of the class.
        precision: share of the rows predicted as this class that have its label; None if it is never predicted.
        recall: share of the rows with its label that are predicted as this class; None without such rows.
        f1: harmonic mean of both; None if the class is neither a label nor a prediction of a row.
        support: number of rows with its label.
        predicted: number of rows predicted as this class.
    """

    label: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    predicted: int


@dataclass(frozen=True)
class Confusion:
    """Rows of one label that are predicted as another one.

    Args:
        label: their label.
        predicted: the predicted label.
        rows: number of these rows.
        share: their share of all rows with the label.
    """

    label: str
    predicted: str
    rows: int
    share: float


def class_scores(
    labels: Sequence[str], predicted: Int[np.ndarray, "m"], targets: Int[np.ndarray, "m"]
) -> tuple[ClassScores, ...]:
    """The scores of every class, in the order of the labels.

    Args:
        labels: label names.
        predicted: predicted class numbers of the rows.
        targets: class numbers of the rows.
    """
    from sklearn.metrics import precision_recall_fscore_support

    classes = range(len(labels))
    *scores, support = precision_recall_fscore_support(targets, predicted, labels=classes, zero_division=np.nan)
    counts = np.bincount(predicted, minlength=len(labels))
    rows = zip(labels, *(values.tolist() for values in scores), support.tolist(), counts.tolist(), strict=True)
    return tuple(
        ClassScores(label, _known(precision), _known(recall), _known(f1), rows_of, predicted_as)
        for label, precision, recall, f1, rows_of, predicted_as in rows
    )


def _known(value: float) -> float | None:
    return None if isnan(value) else value


def confusion_counts(
    classes: int, predicted: Int[np.ndarray, "m"], targets: Int[np.ndarray, "m"]
) -> Int[np.ndarray, "c c"]:
    """Rows by class (down) and predicted class (across)."""
    counts = np.bincount(targets * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes)


def largest_confusions(labels: Sequence[str], counts: Int[np.ndarray, "c c"], most: int) -> tuple[Confusion, ...]:
    """The most frequent confusions, the largest first; of equal ones, those of the smaller class first.

    Args:
        labels: label names.
        counts: see :func:`confusion_counts`.
        most: maximum number of confusions.
    """
    totals = counts.sum(1)
    wrong = [(i, j) for i, j in zip(*np.nonzero(counts), strict=True) if i != j]
    wrong.sort(key=lambda pair: (-int(counts[pair]), int(totals[pair[0]])))
    return tuple(
        Confusion(labels[i], labels[j], int(counts[i, j]), float(counts[i, j] / totals[i])) for i, j in wrong[:most]
    )


def prediction_problems(
    classes: int, targets: np.ndarray, probabilities: Mapping[str, np.ndarray], predicted: Mapping[str, np.ndarray]
) -> Iterator[str]:
    """Messages about targets and predictions that are not classes, and probabilities that are none.

    Args:
        classes: number of classes.
        targets, probabilities, predicted: see :meth:`loralet.tasks.base.Task.prediction_problems`.
    """
    rows = targets.shape[:1]
    for name, values in {"labels": targets, **predicted}.items():
        if values.shape != rows or not np.issubdtype(values.dtype, np.integer):
            yield f"{name} has shape {list(values.shape)} and type {values.dtype}; one class for each row is expected"
        elif values.size and not (int(values.min()) >= 0 and int(values.max()) < classes):
            yield f"{name} has a class outside 0 to {classes - 1}"
    for name, values in probabilities.items():
        if values.shape != (*rows, classes) or not np.issubdtype(values.dtype, np.floating):
            yield f"{name} has shape {list(values.shape)}, expected {[*rows, classes]}"
        elif not (np.isfinite(values).all() and (values >= 0).all()):
            yield f"{name} has probabilities that are negative or not finite"
        elif np.abs(values.sum(-1, dtype=np.float64) - 1).max(initial=0) > SUM_ERROR:
            yield f"{name} has probabilities whose sum is not 1"
