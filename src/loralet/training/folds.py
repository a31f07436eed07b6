"""Folds of the training rows: which rows each run of a cross-validation holds out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from loralet.data.sources import Dataset
from loralet.data.splits import LARGEST_VALIDATION, copies
from loralet.errors import DataError
from loralet.runs.run import Run

AUTOMATIC_FOLDS = 5
"""Folds by default on small data."""
LEAST_VALIDATION = 500
"""A smaller validation split is replaced by folds: the 95 % interval of an accuracy of 85 % is ± 3 points on 500 rows,
± 10 points on 50."""


def number_of_folds(dataset: Dataset, asked: int | None, fraction: float) -> int:
    """The number of folds to use; 0: a validation split.

    Args:
        dataset: the data.
        asked: the requested number; None: 5 if the data has no validation split and one with ``fraction`` of its
            training rows would have fewer than 500 rows. Fewer than 5 if no class has 5 distinct texts.
        fraction: share of the training rows that a validation split would have.

    Raises:
        DataError: folds are requested for data with a validation split, or more than the largest class has distinct
            texts.
    """
    train = dataset.train
    if asked is None:
        split = min(round(len(train) * fraction), LARGEST_VALIDATION)
        if dataset.validation is not None or split >= LEAST_VALIDATION:
            return 0
        most = most_folds(train.texts, dataset.task.strata(train.targets))
        return min(AUTOMATIC_FOLDS, most) if most >= 2 else 0
    if asked and dataset.validation is not None:
        raise DataError(
            f"{dataset.source} has a validation split ({dataset.validation.source}), which --folds {asked} would not "
            "use; give the training file alone, or --folds 0"
        )
    most = most_folds(train.texts, dataset.task.strata(train.targets)) if asked else 0
    if asked > most:
        limit = f"at most {most} folds" if most else "a validation split (--folds 0)"
        reason = "the largest class has so many different texts" if most else "only one class has two different texts"
        raise DataError(f"{train.source}: --folds {asked} is not possible; use {limit}, as {reason}")
    return asked


def most_folds(texts: pa.ChunkedArray, strata: Int[np.ndarray, "m"]) -> int:
    """The largest number of folds.

    It is the number of distinct texts of the largest class, if at least two classes have two distinct texts: then a
    run that holds out one fold is trained on two classes. Else it is 0.
    """
    pairs = np.unique(np.stack([strata, copies(texts)]), axis=1)
    distinct = np.sort(np.bincount(pairs[0]))
    return int(distinct[-1]) if len(distinct) > 1 and distinct[-2] > 1 else 0


def fold_of_rows(texts: pa.ChunkedArray, strata: Int[np.ndarray, "m"], count: int, seed: int) -> Int[np.ndarray, "m"]:
    """The fold of each row, from 0: stratified, with all copies of a text in one fold.

    Computed by :class:`sklearn.model_selection.StratifiedGroupKFold` on texts in random order. If that leaves a single
    class outside of a fold, texts are moved.

    Args:
        texts: one string per row.
        strata: stratum of each row.
        count: number of folds, at most :func:`most_folds`.
        seed: seed of the order.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    groups = copies(texts)
    # Its own shuffling breaks the stratification in scikit-learn before 1.6.
    groups = np.random.default_rng(seed).permutation(int(groups.max()) + 1)[groups]
    folds = np.zeros(len(strata), np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for i, (_, held_out) in enumerate(StratifiedGroupKFold(count).split(strata, strata, groups)):
            folds[held_out] = i
    return _with_two_classes(folds, strata, groups, count)


def _with_two_classes(
    folds: Int[np.ndarray, "m"], strata: Int[np.ndarray, "m"], groups: Int[np.ndarray, "m"], count: int
) -> Int[np.ndarray, "m"]:
    """Move single texts to other folds until the rows outside of each fold have two classes."""
    folds = folds.copy()
    for fold in list(range(count)) * 2:
        outside = np.unique(strata[folds != fold])
        if len(outside) > 1:
            continue
        inside = np.flatnonzero((folds == fold) & ~np.isin(strata, outside))
        if not len(inside):
            continue
        sizes = np.bincount(folds, minlength=count)
        sizes[fold] = len(folds)
        pure = [row for row in inside if (strata[groups == groups[row]] == strata[row]).all()]
        folds[groups == groups[(pure or inside.tolist())[-1]]] = sizes.argmin()
    return folds


def fold_runs(run: Run, count: int) -> list[Run]:
    """The runs of a cross-validation: the same run for each fold, with weight 0 on the fold's rows.

    They share seed, initial values, dropout masks and batches with the run, so they differ only in the rows held out.
    """
    return [replace(run, id=f"{run.id}-fold{i + 1}", fold=i) for i in range(count)]


def out_of_fold(
    logits: Float[np.ndarray, "k m c"], held_out: Sequence[int | None], folds: Int[np.ndarray, "m"]
) -> Float[np.ndarray, "m c"] | None:
    """For each row, the logits of the run that holds it out; None if a fold is held out by no run.

    Args:
        logits: logits of each run.
        held_out: the fold that each run holds out; None: none.
        folds: fold of each row.
    """
    places = {fold: i for i, fold in enumerate(held_out) if fold is not None}
    if not set(folds.tolist()) <= places.keys():
        return None
    found: np.ndarray = logits[[places[fold] for fold in folds.tolist()], np.arange(len(folds))]
    return found
