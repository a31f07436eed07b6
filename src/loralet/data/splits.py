"""Stratified draws: the validation split, and the validation sample that is checked during training."""

from __future__ import annotations

import numpy as np

LARGEST_VALIDATION = 5000


def carve(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into training and validation, stratified by class.

    Args:
        labels: class of each row, ``[rows]``.
        fraction: share of the rows for validation: at most 5,000 rows, at least one of each class that has two.
        seed: seed of the draw.

    Returns:
        Sorted row numbers of the training part and of the validation part. A class with one row stays in training.
    """
    counts = np.bincount(labels)
    if not (counts >= 2).any():
        raise ValueError(f"{len(labels)} rows are too few for a validation split: no class has two rows")
    candidates = np.where(counts >= 2, counts, 0)
    size = min(round(len(labels) * fraction), LARGEST_VALIDATION)
    quotas = _quotas(candidates, np.minimum(candidates, 1), np.maximum(candidates - 1, 0), size)
    return _stratified(labels, quotas, seed)


def sample(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Sorted row numbers of a stratified sample of ``size`` rows, or of all rows if there are no more.

    The sample has at least one row of each class, unless there are more classes than ``size``.
    """
    if size >= len(labels):
        return np.arange(len(labels))
    counts = np.bincount(labels)
    least = np.minimum(counts, 1) if (counts > 0).sum() <= size else np.zeros_like(counts)
    return _stratified(labels, _quotas(counts, least, counts, size), seed)[1]


def _stratified(labels: np.ndarray, quotas: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted numbers of the remaining and of the drawn rows, with ``quotas`` rows drawn from each class."""
    counts = np.bincount(labels)
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    drawn = place < np.repeat(quotas, counts)
    return np.sort(by_class[~drawn]), np.sort(by_class[drawn])


def _quotas(counts: np.ndarray, least: np.ndarray, most: np.ndarray, size: int) -> np.ndarray:
    """Number of rows to draw from each class: proportional, within the bounds ``least`` and ``most``."""
    size = int(np.clip(size, least.sum(), most.sum()))
    exact = counts * (size / counts.sum())
    quotas: np.ndarray = np.clip(np.round(exact).astype(np.int64), least, most)
    while (missing := size - int(quotas.sum())) != 0:
        step, open_ = (1, quotas < most) if missing > 0 else (-1, quotas > least)
        quotas[np.argmax(np.where(open_, step * (exact - quotas), -np.inf))] += step
    return quotas
