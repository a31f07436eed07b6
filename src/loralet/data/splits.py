"""Which training rows are kept for validation, and which of those are looked at often."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import train_test_split

LARGEST_VALIDATION = 5000


def carve(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into training and validation, every class in the same proportion.

    Args:
        labels: class of each row, ``[rows]``.
        fraction: share of the rows for validation, at most 5,000 of them and at least one of each class that has two rows.
        seed: of the draw.

    Returns:
        Sorted row numbers of the training and of the validation part. A class of a single row stays in training.
    """
    return _stratified(labels, min(round(len(labels) * fraction), LARGEST_VALIDATION), seed)


def sample(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Sorted numbers of ``size`` stratified rows, or of all rows where there are no more than that."""
    return np.arange(len(labels)) if size >= len(labels) else _stratified(labels, size, seed)[1]


def _stratified(labels: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    counts = np.bincount(labels)
    single = counts[labels] < 2
    rows = np.flatnonzero(~single)
    classes = int((counts >= 2).sum())
    if len(rows) < 2 * classes or classes == 0:
        raise ValueError(f"{len(labels)} rows are too few to keep a validation part of {classes} classes")
    size = min(max(size, classes), len(rows) - classes)
    kept, drawn = train_test_split(rows, test_size=size, random_state=seed, stratify=labels[rows])
    return np.sort(np.concatenate([kept, np.flatnonzero(single)])), np.sort(drawn)
