"""Rows whose label is likely wrong."""

from __future__ import annotations

import numpy as np


def suspected_labels(probabilities: np.ndarray, labels: np.ndarray) -> list[tuple[int, int]]:
    """Rows whose label is likely wrong, the most suspicious first, each with the class that the model suggests.

    Confident learning in its simplest form (Northcutt, Jiang & Chuang 2021, section 3). The threshold of a class is the
    mean probability of that class over the rows labelled with it. A row is suspected if, among the classes whose
    probability reaches their threshold, the most probable one is not its label, and neither is the most probable class
    of all, which is suggested. The latter is the rule of cleanlab's ``find_label_issues``: a class of a few rows has a
    threshold close to 0, which nearly every row reaches. Rows are ranked by the margin between the two probabilities.
    No rows are removed, and the model itself may be wrong.

    Args:
        probabilities: of rows that the model was not trained on, ``[rows, classes]``.
        labels: ``[rows]``.
    """
    classes = probabilities.shape[1]
    thresholds = np.array(
        [probabilities[labels == c, c].mean() if (labels == c).any() else np.inf for c in range(classes)]
    )
    past = np.where(probabilities >= thresholds, probabilities, -1.0)
    best = probabilities.argmax(1)
    rows = np.flatnonzero((past.max(1) >= 0) & (past.argmax(1) != labels) & (best != labels))
    margin = probabilities[rows, labels[rows]] - probabilities[rows, best[rows]]
    return [(int(rows[i]), int(best[rows[i]])) for i in np.argsort(margin, kind="stable")]
