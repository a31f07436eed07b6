"""Which training rows are kept for validation, and which of those are looked at often."""

from __future__ import annotations

import numpy as np

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
    classes = int((counts >= 2).sum())
    if classes == 0:
        raise ValueError(f"{len(labels)} rows are too few to keep a validation part: no class has two")
    quotas = _quotas(np.where(counts >= 2, counts, 0), size)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    drawn = place < np.repeat(quotas, counts)
    return np.sort(by_class[~drawn]), np.sort(by_class[drawn])


def _quotas(counts: np.ndarray, size: int) -> np.ndarray:
    """Rows to draw of each class: in proportion, but at least one and not all of them."""
    least, most = np.minimum(counts, 1), np.maximum(counts - 1, 0)
    size = int(np.clip(size, least.sum(), most.sum()))
    exact = counts * (size / counts.sum())
    quotas: np.ndarray = np.clip(np.round(exact).astype(np.int64), least, most)
    while (missing := size - int(quotas.sum())) != 0:
        step, open_ = (1, quotas < most) if missing > 0 else (-1, quotas > least)
        quotas[np.argmax(np.where(open_, step * (exact - quotas), -np.inf))] += step
    return quotas
