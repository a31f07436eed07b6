"""Stratified draws: the validation split, and the validation sample that is checked during training."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from loralet.data.sources import Dataset, Split

LARGEST_VALIDATION = 5000


def copies(texts: pa.ChunkedArray, seconds: pa.ChunkedArray | None = None) -> np.ndarray:
    """The group of each row, ``[rows]``: rows of one group have the same text.

    Case, spaces and the Unicode form make no difference. Groups are numbered from 0 by their first row.

    Args:
        texts: one string per row.
        seconds: the second text of each row, for pairs.
    """
    groups: dict[object, int] = {}
    keys: Iterable[object] = map(_folded, texts.to_pylist())
    if seconds is not None:
        keys = zip(keys, map(_folded, seconds.to_pylist()), strict=True)
    return np.fromiter((groups.setdefault(key, len(groups)) for key in keys), np.int64, len(texts))


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def train_and_validation(dataset: Dataset, fraction: float, seed: int) -> tuple[Split, Split]:
    """The training rows and the validation rows: those that come with the data, or drawn ones.

    Args:
        dataset: the data set.
        fraction, seed: see :func:`carve`. Copies of a text are drawn together.

    Raises:
        ValueError: no class has two rows.
    """
    train = dataset.train
    if dataset.validation is not None:
        return train, dataset.validation
    groups = copies(train.texts, train.seconds)
    kept, drawn = carve(dataset.task.strata(train.targets), fraction, seed, groups)
    return train.take(kept), train.take(drawn)


def carve(
    labels: np.ndarray, fraction: float, seed: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows into training and validation, stratified by class.

    Args:
        labels: class of each row, ``[rows]``.
        fraction: share of the rows for validation: at most 5,000 rows, at least one of each class that has two.
        seed: seed of the draw.
        groups: group of each row (:func:`copies`); a group is drawn as one row of the class of its first row. None: all
            rows are different. Groups are ignored if no class has two (:func:`separable`).

    Returns:
        Sorted row numbers of the training part and of the validation part. A class with one row stays in training.

    Raises:
        ValueError: no class has two rows.
    """
    if groups is None or not separable(labels, groups):
        groups = np.arange(len(labels))
    first = np.unique(groups, return_index=True)[1]
    own = labels[first]
    counts = np.bincount(own)
    if not (counts >= 2).any():
        raise ValueError(f"{len(labels)} rows are too few for a validation split: no class has two rows")
    candidates = np.where(counts >= 2, counts, 0)
    size = min(round(len(own) * fraction), LARGEST_VALIDATION)
    quotas = _quotas(candidates, np.minimum(candidates, 1), np.maximum(candidates - 1, 0), size)
    drawn = np.zeros(len(first), bool)
    drawn[_stratified(own, quotas, seed)[1]] = True
    # A class may have training rows only as copies of another class's texts.
    for missing in np.setdiff1d(labels, labels[~drawn[groups]]):
        drawn[groups[labels == missing]] = False
    return np.flatnonzero(~drawn[groups]), np.flatnonzero(drawn[groups])


def separable(labels: np.ndarray, groups: np.ndarray) -> bool:
    """Whether a class has two groups, so that rows can be held out without a copy of them among the training rows."""
    first = np.unique(groups, return_index=True)[1]
    return bool((np.bincount(labels[first]) >= 2).any())


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
