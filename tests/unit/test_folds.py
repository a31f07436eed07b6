"""Folds: when they replace a validation split, which rows they contain, and their predictions in the run folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from sklearn.model_selection import StratifiedGroupKFold

from loralet.config import DataOptions
from loralet.data.columns import memory_dataset
from loralet.data.sources import Dataset, Split
from loralet.data.splits import copies
from loralet.errors import DataError, RunError
from loralet.runs.out_of_fold import NAME, OutOfFold, read_out_of_fold, save_out_of_fold
from loralet.runs.run import Run
from loralet.tasks.single_label import SingleLabel
from loralet.training.corpus import settle
from loralet.training.folds import fold_of_rows, fold_runs, most_folds, number_of_folds, out_of_fold


def column(texts: list[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(texts, pa.string())])


def data(rows: int, classes: int = 2, validation: bool = False) -> Dataset:
    """Distinct texts with cycling labels."""
    task = SingleLabel(tuple("abcdefgh"[:classes]))
    made = memory_dataset(column([f"text {i}" for i in range(rows)]), np.arange(rows) % classes, task)
    own = Split("dev.csv", column(["x", "y"]), np.array([0, 1])) if validation else None
    return Dataset(made.source, task, made.train, own, None, made.fingerprint, ())


@pytest.mark.parametrize(
    ("rows", "fraction", "validation", "asked", "folds"),
    [
        (4994, 0.1, False, None, 5),  # the split would have 499 rows
        (4995, 0.1, False, None, 0),  # 500 rows
        (900, 0.5, False, None, 5),
        (1000, 0.5, False, None, 0),
        (60, 0.1, True, None, 0),
        (60, 0.1, True, 0, 0),
        (60, 0.1, False, 0, 0),
        (60, 0.1, False, 3, 3),
        (6000, 0.1, False, 2, 2),
        (8, 0.1, False, None, 4),  # a class has 4 texts
        (4, 0.1, False, None, 2),
        (3, 0.1, False, None, 0),  # one class has a single text
    ],
)
def test_folds_replace_a_small_validation_split(
    rows: int, fraction: float, validation: bool, asked: int | None, folds: int
) -> None:
    assert number_of_folds(data(rows, validation=validation), asked, fraction) == folds


@pytest.mark.parametrize(
    ("made", "asked", "words"),
    [
        (data(60, validation=True), 5, ["has a validation split (dev.csv)", "--folds 5", "--folds 0"]),
        (data(20), 11, ["--folds 11 is not possible; use at most 10 folds, as the largest class has so many"]),
        (data(3), 2, ["--folds 2 is not possible; use a validation split (--folds 0), as only one class has two"]),
    ],
)
def test_folds_that_are_not_possible_are_reported(made: Dataset, asked: int, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        number_of_folds(made, asked, 0.1)
    assert all(part in str(caught.value) for part in words)


def test_copies_differ_at_most_in_case_and_white_space() -> None:
    assert copies(column(["a b", "A  b", "ab", " a\tb ", "c", "ab"])).tolist() == [0, 0, 1, 0, 2, 1]


def test_the_largest_number_of_folds_counts_distinct_texts() -> None:
    texts = column(["a", "A", "b", "c", "d", "e"])
    assert most_folds(texts, np.array([0, 0, 0, 1, 1, 1])) == 3
    assert most_folds(texts, np.array([0, 0, 0, 0, 0, 1])) == 0
    assert most_folds(texts, np.array([0, 0, 1, 1, 1, 1])) == 0


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=8, max_size=80), st.integers(2, 6))
@example([(0, 1), (0, 1), (2, 0), (2, 0), (1, 1), (1, 2), (1, 2), (2, 2)], 2)
def test_folds_are_a_partition_that_keeps_copies_together(drawn: list[tuple[int, int]], count: int) -> None:
    texts, strata = column([f"text {number}" for number, _ in drawn]), np.array([label for _, label in drawn])
    count = min(count, most_folds(texts, strata))
    if count < 2:
        return
    folds = fold_of_rows(texts, strata, count, 0)
    assert set(folds.tolist()) == set(range(count))
    by_text: dict[int, set[int]] = {}
    for (number, _), fold in zip(drawn, folds.tolist(), strict=True):
        by_text.setdefault(number, set()).add(fold)
    assert all(len(own) == 1 for own in by_text.values())
    assert all(len(np.unique(strata[folds != fold])) > 1 for fold in range(count)), "a run has two classes to learn"


def test_folds_are_stratified_and_drawn_by_their_seed() -> None:
    strata = np.random.default_rng(0).choice(4, 300, p=[0.6, 0.3, 0.08, 0.02])
    texts = column([f"text {i}" for i in range(300)])
    folds = fold_of_rows(texts, strata, 5, 0)
    table = np.stack([np.bincount(strata[folds == fold], minlength=4) for fold in range(5)])
    assert (table.max(0) - table.min(0)).max() <= 1
    assert np.array_equal(folds, fold_of_rows(texts, strata, 5, 0))
    other = fold_of_rows(texts, strata, 5, 1)
    assert (folds != other).mean() > 0.5
    # the order of the groups is the only difference from scikit-learn
    groups = np.random.default_rng(0).permutation(300)
    for fold, (_, own) in enumerate(StratifiedGroupKFold(5).split(strata, strata, groups)):
        assert np.array_equal(np.flatnonzero(folds == fold), own)


def test_a_corpus_with_folds_trains_on_all_rows() -> None:
    made = data(30)
    corpus = settle(made, DataOptions(), 12, 3)
    assert (len(corpus.train), corpus.folds, corpus.validation_rows) == (30, 3, 0)
    assert len(corpus.sample) == 12
    assert corpus.sample.folds is not None
    assert corpus.train.folds is not None
    rows = [made.train.texts.to_pylist().index(text) for text in corpus.sample.texts.to_pylist()]
    assert corpus.sample.folds.tolist() == corpus.train.folds[rows].tolist()
    split = settle(made, DataOptions(), 12)
    assert (len(split.train), split.folds, split.validation_rows) == (27, 0, 3)


def test_the_runs_of_the_folds_differ_only_in_the_fold() -> None:
    run = Run("a", "m", "lora", seed=3)
    assert fold_runs(run, 2) == [
        Run("a-fold1", "m", "lora", seed=3, fold=0),
        Run("a-fold2", "m", "lora", seed=3, fold=1),
    ]
    assert fold_runs(run, 0) == []


def test_out_of_fold_logits_are_those_of_the_run_that_holds_the_row_out() -> None:
    logits = np.arange(3 * 4 * 2.0).reshape(3, 4, 2)
    found = out_of_fold(logits, [1, None, 0], np.array([0, 1, 1, 0]))
    assert found is not None
    assert found.tolist() == [
        logits[2, 0].tolist(),
        logits[0, 1].tolist(),
        logits[0, 2].tolist(),
        logits[2, 3].tolist(),
    ]
    assert out_of_fold(logits, [1, None, 2], np.array([0, 1, 1, 0])) is None


def test_out_of_fold_predictions_are_written_and_read(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    targets, folds = np.array([0, 1, 1, 0]), np.array([1, 0, 1, 0])
    save_out_of_fold(tmp_path, OutOfFold(targets, folds, {"run": logits}, {"majority": np.zeros(4, np.int64)}))
    found = read_out_of_fold(tmp_path)
    assert np.array_equal(found.targets, targets)
    assert np.array_equal(found.folds, folds)
    assert found.logits.keys() == {"run"}
    assert np.array_equal(found.logits["run"], logits)
    assert {name: values.tolist() for name, values in found.predicted.items()} == {"majority": [0, 0, 0, 0]}


def test_missing_and_broken_predictions_are_reported(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no out-of-fold predictions .*loralet train --folds 5 writes them"):
        read_out_of_fold(tmp_path)
    save_file({"labels": np.zeros(2, np.int64)}, tmp_path / NAME)
    with pytest.raises(RunError, match="cannot be read as predictions"):
        read_out_of_fold(tmp_path)
    (tmp_path / NAME).write_text("no tensors")
    with pytest.raises(RunError, match="cannot be read as predictions"):
        read_out_of_fold(tmp_path)
