"""Data sets: files of each split, label ids, and notes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralet.data import sources
from loralet.data.files import Columns
from loralet.data.readers.records import KNOWN as EXTENSIONS
from loralet.data.sources import Dataset, HeldOut, Split, find_files, hash_texts, load_dataset, load_labelled
from loralet.errors import DataError
from loralet.tasks.single_label import SingleLabel

Rows = Sequence[tuple[str, int | str]]
TRAIN: Rows = [("a one", 1), ("a two", 0), ("a three", 1), ("a four", 0)]
COLUMNS = Columns()
COLUMN_NOTES = ("text from column 'text', labels from column 'label'",)


def write(path: Path, rows: Rows, names: Sequence[str] = ()) -> Path:
    """Write a table of texts and labels in the format of the file extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    if path.suffix == ".parquet":
        table = pa.table({"text": texts, "label": labels})
        if names:
            table = table.replace_schema_metadata(
                {"huggingface": json.dumps({"info": {"features": {"label": {"names": names}}}})}
            )
        pa.parquet.write_table(table, path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        path.write_text("".join(f"{text}{mark}{label}\n" for text, label in [("text", "label"), *rows]))
    return path


def content(split: Split) -> list[tuple[str, int]]:
    assert split.targets.dtype == np.int64
    return list(zip(split.texts.to_pylist(), split.targets.tolist(), strict=True))


def refusal(source: Path, columns: Columns = COLUMNS, names: Sequence[str] = (), drop_overlap: bool = False) -> str:
    """The error message for a data set, with paths relative to the source."""
    with pytest.raises(DataError) as caught:
        load_dataset(str(source), columns, names, drop_overlap)
    assert str(source) in str(caught.value)
    return str(caught.value).replace(f"{source}/", "").replace(str(source), source.name)


def test_a_single_file_is_training_data(tmp_path: Path) -> None:
    data = load_dataset(str(write(tmp_path / "a.csv", TRAIN)), COLUMNS)
    assert content(data.train) == list(TRAIN)
    assert (data.validation, data.test, data.task.labels, data.notes) == (None, None, ("0", "1"), COLUMN_NOTES)
    assert (data.text_columns, data.label_column) == (("text",), "label")
    assert data.source == data.train.source == str(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train.csv", "validation.csv", "test.csv"),
        ("training.tsv", "valid.jsonl", "test.parquet"),
        ("Train.csv", "val.parquet", "TEST.tsv"),
        ("deep/train.jsonl", "deep/dev.jsonl", "deep/test.jsonl"),
    ],
)
def test_a_folder_may_contain_splits_in_any_format(tmp_path: Path, train: str, validation: str, test: str) -> None:
    write(tmp_path / train, TRAIN)
    write(tmp_path / validation, [("b one", 1)])
    write(tmp_path / test, [("c one", 0), ("c two", 1)])
    write(tmp_path / "unsupervised.csv", [("never read", 7)])
    write(tmp_path / ".hidden" / "train.csv", [("never read", 7)])
    (tmp_path / "README.md").write_text("test")
    data = load_dataset(str(tmp_path), COLUMNS)
    assert content(data.train) == list(TRAIN)
    assert data.validation is not None
    assert content(data.validation) == [("b one", 1)]
    assert data.test is not None
    assert content(data.test.read()) == [("c one", 0), ("c two", 1)]
    assert data.test.read().source == str(tmp_path / test)


def test_shards_are_one_split_in_their_order(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train-00001-of-00002.parquet", [("a three", 1), ("a four", 0)], ["neg", "pos"])
    write(tmp_path / "data" / "train-00000-of-00002.parquet", [("a one", 1), ("a two", 0)], ["neg", "pos"])
    write(tmp_path / "data" / "test-00000-of-00001.parquet", [("c one", 1)], ["neg", "pos"])
    data = load_dataset(str(tmp_path), COLUMNS)
    assert content(data.train) == list(TRAIN)
    assert data.task.labels == ("neg", "pos")
    assert data.train.source == f"{tmp_path}/data/train-00000-of-00002.parquet and 1 more"
    assert data.test is not None
    assert len(data.test) == 1


def test_a_missing_shard_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00003.parquet", TRAIN)
    write(tmp_path / "train-00002-of-00003.parquet", TRAIN)
    message = refusal(tmp_path)
    assert (
        "only 2 of 3 train files (train-00000-of-00003.parquet, train-00002-of-00003.parquet); add the rest" in message
    )
    write(tmp_path / "train-00001-of-00003.parquet", TRAIN)
    assert len(load_dataset(str(tmp_path), COLUMNS).train) == 12


def test_an_error_in_a_shard_names_the_shard(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", TRAIN)
    write(tmp_path / "test-00000-of-00002.csv", [("c one", 1), ("c two", 1), ("c three", 0)])
    write(tmp_path / "test-00001-of-00002.csv", [("d one", 1), ("", 1), ("d three", 5)])
    assert "test-00001-of-00002.csv: line 4 with an unknown label (5); known from training: 0, 1" in refusal(tmp_path)
    write(tmp_path / "test-00001-of-00002.csv", [("d one", 1), ("", 1)])
    assert load_dataset(str(tmp_path), COLUMNS).findings == (
        f"{tmp_path}/test-00001-of-00002.csv: left out line 3 with an empty text",
    )


def test_shards_may_have_labels_of_different_types(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00002.csv", [("a one", 1), ("a two", 2)])
    write(tmp_path / "train-00001-of-00002.csv", [("b one", "x"), ("b two", 2)])
    data = load_dataset(str(tmp_path), COLUMNS)
    assert data.task.labels == ("1", "2", "x")
    assert data.train.targets.tolist() == [0, 1, 2, 1]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("train.csv", "train.jsonl"),
        ("train.csv", "training.csv"),
        ("train.csv", "other/train.csv"),
        ("train.parquet", "train-00000-of-00001.parquet"),
        ("train-00000-of-00001.csv", "train-00000-of-00002.csv"),
    ],
)
def test_two_sources_of_one_split_are_rejected(tmp_path: Path, first: str, second: str) -> None:
    write(tmp_path / first, TRAIN)
    write(tmp_path / second, TRAIN)
    message = refusal(tmp_path)
    for words in ("several sets of train files", first, second, "keep one"):
        assert words in message
    (tmp_path / second).unlink()
    if first.endswith("of-00001.csv"):
        return
    assert len(load_dataset(str(tmp_path), COLUMNS).train) == 4


def test_missing_sources_are_reported(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path.name}: no train, validation or test file ({EXTENSIONS}) in this folder"
    write(tmp_path / "test.csv", TRAIN)
    assert refusal(tmp_path) == f"{tmp_path.name}: no training file; found test.csv"
    assert refusal(tmp_path / "gone.csv") == "gone.csv: no such file or folder"
    with pytest.raises(DataError, match=r"gone\.parquet: no such file or folder"):
        load_dataset("gone.parquet", COLUMNS)


def test_only_parquet_splits_of_a_hub_data_set_are_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "data" / "train-00000-of-00001.parquet", TRAIN)
    asked: list[object] = []

    def fetch(repo: str, choose: object, kind: str) -> Path:
        names = [
            "README.md",
            "data/train-00000-of-00001.parquet",
            "data/extra-00000-of-00001.parquet",
            "test.csv",
            "dev.parquet",
        ]
        asked.append((repo, kind, choose(names)))  # type: ignore[operator]
        return tmp_path

    monkeypatch.setattr(sources.hub, "fetch", fetch)
    data = load_dataset("someone/texts", COLUMNS)
    assert asked == [("someone/texts", "dataset", ["data/train-00000-of-00001.parquet", "dev.parquet"])]
    assert (data.source, len(data.train)) == ("someone/texts", 4)


@pytest.mark.parametrize(
    ("values", "labels", "numbers"),
    [
        ([10, 9, 10, -1], ("-1", "9", "10"), [2, 1, 2, 0]),
        (["b", "10", "9", "a"], ("10", "9", "a", "b"), [3, 0, 1, 2]),
        (["é", "Z", "a", "a"], ("Z", "a", "é"), [2, 0, 1, 1]),
    ],
)
def test_integers_are_ordered_by_value_and_strings_by_alphabet(
    tmp_path: Path, values: list[int | str], labels: tuple[str, ...], numbers: list[int]
) -> None:
    data = load_dataset(str(write(tmp_path / "a.csv", [(f"t{i}", value) for i, value in enumerate(values)])), COLUMNS)
    assert (data.task.labels, data.train.targets.tolist()) == (labels, numbers)


def test_label_names_in_the_file_set_the_labels_even_without_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [("a", 2), ("b", 0)], ["zebra", "yak", "ape"])
    data = load_dataset(str(path), COLUMNS)
    assert (data.task.labels, data.train.targets.tolist()) == (("zebra", "yak", "ape"), [2, 0])
    plain = load_dataset(str(write(tmp_path / "b.parquet", [("a", 2), ("b", 0)])), COLUMNS)
    assert (plain.task.labels, plain.train.targets.tolist()) == (("0", "2"), [1, 0])


def test_a_label_number_beyond_the_names_is_rejected(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [("a", 0), ("b", 1), ("c", 2)], ["no", "yes"])
    assert "row 3 with an unknown label (2); known from training: 0 (no), 1 (yes)" in refusal(path)


def test_given_names_must_match_the_number_of_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", TRAIN)
    data = load_dataset(str(path), COLUMNS, ("bad", "good"))
    assert (data.task.labels, data.train.targets.tolist()) == (("bad", "good"), [1, 0, 1, 0])
    message = refusal(path, names=("bad", "fair", "good"))
    assert "--label-names gives 3 names (bad, fair, good), the data has 2 labels (0, 1); give one for each" in message


def test_given_names_that_are_the_labels_set_their_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [("a", "good"), ("b", "bad"), ("c", "fair")])
    assert load_dataset(str(path), COLUMNS).train.targets.tolist() == [2, 0, 1]
    data = load_dataset(str(path), COLUMNS, ("good", "fair", "bad"))
    assert (data.task.labels, data.train.targets.tolist()) == (("good", "fair", "bad"), [0, 2, 1])
    renamed = load_dataset(str(path), COLUMNS, ("g", "f", "b"))
    assert (renamed.task.labels, renamed.train.targets.tolist()) == (("g", "f", "b"), [2, 0, 1])


def test_given_names_take_precedence_over_names_in_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [("a", 1), ("b", 0)], ["neg", "pos"])
    assert load_dataset(str(path), COLUMNS, ("minus", "plus")).task.labels == ("minus", "plus")
    assert "the data has 2 labels (neg, pos)" in refusal(path, names=("x",))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_labels_missing_from_training_are_reported_with_their_rows(tmp_path: Path, split: str) -> None:
    write(tmp_path / "train.csv", TRAIN)
    write(tmp_path / f"{split}.csv", [("c one", 1), ("c two", 7), ("c three", 8)])
    assert f"{split}.csv: 2 lines (3, 4) with an unknown label (7, 8); known from training: 0, 1" in refusal(tmp_path)
    write(tmp_path / f"{split}.csv", [("c one", 1), ("c two", "x")])
    assert f"{split}.csv: line 3 with an unknown label ('x')" in refusal(tmp_path)
    write(tmp_path / f"{split}.csv", [("c one", 1)])
    assert load_dataset(str(tmp_path), COLUMNS).task.labels == ("0", "1")


def test_strings_and_integers_of_two_splits_are_matched(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [("a", "1"), ("b", "2"), ("c", "n/a")])
    write(tmp_path / "test.csv", [("d", 2), ("e", 1)])
    data = load_dataset(str(tmp_path), COLUMNS)
    assert data.test is not None
    assert data.task.labels == ("1", "2", "n/a")
    assert data.test.read().targets.tolist() == [1, 0]


def test_a_single_class_is_rejected(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [("a", "good"), ("b", "good")])
    assert refusal(path) == "a.csv: only one class ('good'); a classifier needs at least two"


def test_overlap_is_counted_and_dropped_on_request(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [*TRAIN, ("c one", 0), ("c one", 1)])
    write(tmp_path / "test.csv", [("c one", 0), ("c two", 1)])
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    data = load_dataset(str(tmp_path), COLUMNS)
    assert len(data.train) == 6
    assert data.findings == (f"{train}: 2 rows are also in {test}; use --drop-overlap to leave them out",)
    dropped = load_dataset(str(tmp_path), COLUMNS, drop_overlap=True)
    assert content(dropped.train) == list(TRAIN)
    assert dropped.notes == (*COLUMN_NOTES, f"{train}: left out 2 rows that are also in {test}")
    assert dropped.findings == ()
    assert dropped.fingerprint != data.fingerprint
    assert dropped.test is not None
    assert dropped.test.reads == 0
    write(test, [("c two", 1)])
    assert load_dataset(str(tmp_path), COLUMNS).findings == ()


def test_an_empty_split_after_dropping_the_overlap_is_reported(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", TRAIN)
    write(tmp_path / "test.csv", TRAIN)
    message = refusal(tmp_path, drop_overlap=True)
    assert "train.csv: every row is also in test.csv, so no training rows remain; use other rows" in message
    write(tmp_path / "test.csv", [row for row in TRAIN if row[1]])
    assert "only one class ('0')" in refusal(tmp_path, drop_overlap=True)


def test_dropped_empty_texts_are_noted(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [("", 1), *TRAIN, ("", 0)])
    data = load_dataset(str(tmp_path), COLUMNS)
    assert (data.notes, data.findings) == (
        COLUMN_NOTES,
        (f"{tmp_path}/train.csv: left out 2 lines (2, 7) with an empty text",),
    )
    assert len(data.train) == 4


def fingerprint(folder: Path, train: Rows, test: Rows = ()) -> str:
    write(folder / "train.csv", train)
    (folder / "test.csv").unlink(missing_ok=True)
    if test:
        write(folder / "test.csv", test)
    return load_dataset(str(folder), COLUMNS).fingerprint


def test_the_fingerprint_changes_with_every_text_label_and_split(tmp_path: Path) -> None:
    made = [
        fingerprint(tmp_path, TRAIN),
        fingerprint(tmp_path, [("a One", 1), *TRAIN[1:]]),
        fingerprint(tmp_path, [("a one", 0), *TRAIN[1:]]),
        fingerprint(tmp_path, TRAIN[::-1]),
        fingerprint(tmp_path, TRAIN[:-1]),
        fingerprint(tmp_path, [("a o", 1), ("nea two", 0), *TRAIN[2:]]),  # the same characters, split elsewhere
        fingerprint(tmp_path, TRAIN, [("c", 1)]),
        fingerprint(tmp_path, TRAIN, [("c", 0)]),
    ]
    assert len(set(made)) == len(made)
    assert fingerprint(tmp_path, TRAIN) == made[0]


def test_the_fingerprint_does_not_change_with_format_or_shards(tmp_path: Path) -> None:
    whole = load_dataset(str(write(tmp_path / "a.csv", TRAIN)), COLUMNS).fingerprint
    assert load_dataset(str(write(tmp_path / "a.parquet", TRAIN)), COLUMNS).fingerprint == whole
    write(tmp_path / "shards" / "train-00000-of-00002.jsonl", TRAIN[:3])
    write(tmp_path / "shards" / "train-00001-of-00002.jsonl", TRAIN[3:])
    assert load_dataset(str(tmp_path / "shards"), COLUMNS).fingerprint == whole


@given(st.lists(st.text(max_size=5), max_size=12), st.data())
def test_the_hash_of_texts_depends_only_on_their_content(texts: list[str], data: st.DataObject) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    whole = hash_texts(pa.chunked_array([pa.array(texts, pa.string())])).hexdigest()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(texts)), max_size=4)))
    ends = [0, *cuts, len(texts)]
    parts = [pa.array(["before", *texts, "after"], pa.string()).slice(a + 1, b - a) for a, b in pairwise(ends)]
    assert hash_texts(pa.chunked_array(parts, pa.string())).hexdigest() == whole
    place = data.draw(st.integers(0, len(texts)))
    other = [*texts[:place], data.draw(st.text(st.characters(codec="utf-8"), max_size=3)), *texts[place:]]
    assert hash_texts(pa.chunked_array([pa.array(other, pa.string())])).hexdigest() != whole


def test_the_test_split_counts_its_reads() -> None:
    split = Split("test.csv", pa.chunked_array([["a", "b"]]), np.array([0, 1]))
    held = HeldOut(split)
    assert (held.reads, len(held), held.reads) == (0, 2, 0)
    assert held.read() is split
    held.read()
    assert held.reads == 2


def test_loading_does_not_count_as_a_read(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", TRAIN)
    write(tmp_path / "test.csv", [("a one", 1)])
    data: Dataset = load_dataset(str(tmp_path), COLUMNS)
    assert data.test is not None
    assert data.test.reads == 0
    data.test.read()
    assert data.test.reads == 1


def test_take_keeps_texts_and_labels_together(tmp_path: Path) -> None:
    split = load_dataset(str(write(tmp_path / "a.csv", TRAIN)), COLUMNS).train
    assert content(split.take(np.array([3, 0]))) == [("a four", 0), ("a one", 1)]
    assert split.take(np.array([3, 0])).source == split.source


NAMES = ("world", "sports", "business")
KNOWN = SingleLabel(NAMES)


@pytest.mark.parametrize(
    ("values", "names", "numbers"),
    [
        (["sports", "world", "sports"], NAMES, [1, 0, 1]),
        ([3, 1, 3], ("1", "2", "3"), [2, 0, 2]),
        ([2, 1, 2], ("1", "2", "3"), [1, 0, 1]),
        (["2", "n/a", "2"], ("2", "n/a"), [0, 1, 0]),
    ],
)
def test_labels_are_matched_by_name(
    tmp_path: Path, values: list[int | str], names: tuple[str, ...], numbers: list[int]
) -> None:
    split = load_labelled(
        str(write(tmp_path / "a.csv", [(f"t{i}", value) for i, value in enumerate(values)])),
        COLUMNS,
        SingleLabel(names),
    )
    assert (split.targets.tolist(), split.texts.to_pylist()) == (numbers, ["t0", "t1", "t2"])
    assert split.notes == COLUMN_NOTES


def test_integers_are_indices_only_on_request(tmp_path: Path) -> None:
    path = str(write(tmp_path / "a.csv", [("t0", 2), ("t1", 0), ("t2", 1)]))
    with pytest.raises(DataError, match="set --labels-are-indices"):
        load_labelled(path, COLUMNS, KNOWN)
    assert load_labelled(path, COLUMNS, KNOWN, indices=True).targets.tolist() == [2, 0, 1]
    stored = SingleLabel(NAMES, ("2", "1", "0"))
    assert load_labelled(path, COLUMNS, stored).targets.tolist() == [0, 2, 1], "as the training data writes them"
    numbers = SingleLabel(("1", "2", "3"))
    with pytest.raises(DataError, match=r"line 3 with an unknown label \(0\); known from training: '1', '2', '3'"):
        load_labelled(path, COLUMNS, numbers)
    assert load_labelled(path, COLUMNS, numbers, indices=True).targets.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("values", "names", "strange"), [([2, 0, 2], ("1", "2", "3"), "0"), ([0, 1, 0], ("2", "7"), "0, 1")]
)
def test_numbers_are_not_indices_if_the_labels_are_numbers(
    tmp_path: Path, values: list[int | str], names: tuple[str, ...], strange: str
) -> None:
    with pytest.raises(DataError, match=f"unknown label \\({strange}\\)"):
        load_labelled(
            str(write(tmp_path / "a.csv", [(f"t{i}", value) for i, value in enumerate(values)])),
            COLUMNS,
            SingleLabel(names),
        )


@pytest.mark.parametrize(
    ("values", "given"), [(["bad", "good"], ("good", "evil")), ([2, 7], ("7", "2")), ([0, 1], ("1", "zero"))]
)
def test_a_label_cannot_get_the_name_of_another_label(
    tmp_path: Path, values: list[int | str], given: tuple[str, ...]
) -> None:
    path = write(tmp_path / "a.csv", [(f"t{i}", values[i % 2]) for i in range(6)])
    with pytest.raises(DataError, match="another label has that name"):
        load_dataset(str(path), COLUMNS, given)
    assert load_dataset(str(path), COLUMNS, ("yes", "no")).task.labels == ("yes", "no")


def test_training_rows_in_a_validation_file_are_reported_and_can_be_dropped(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [(f"t{i}", i % 2) for i in range(8)])
    write(tmp_path / "validation.csv", [(f"t{i}", i % 2) for i in range(6, 10)])
    told = load_dataset(str(tmp_path), COLUMNS, ())
    assert len(told.train) == 8
    assert "2 rows are also in" in told.findings[0]
    assert "validation.csv" in told.findings[0]
    dropped = load_dataset(str(tmp_path), COLUMNS, (), drop_overlap=True)
    assert dropped.train.texts.to_pylist() == [f"t{i}" for i in range(6)]
    assert "left out 2 rows" in dropped.notes[1]


def test_labelled_rows_of_a_file_with_label_names(tmp_path: Path) -> None:
    rows: Rows = [("a", 0), ("b", 2)]
    assert load_labelled(str(write(tmp_path / "a.parquet", rows, NAMES[::-1])), COLUMNS, KNOWN).targets.tolist() == [
        2,
        0,
    ]
    assert load_labelled(str(write(tmp_path / "b.parquet", rows, NAMES)), COLUMNS, KNOWN).targets.tolist() == [0, 2]
    other = str(write(tmp_path / "c.parquet", rows, ["x", "y", "z"]))
    with pytest.raises(DataError, match="unknown label"):
        load_labelled(other, COLUMNS, KNOWN)
    assert load_labelled(other, COLUMNS, KNOWN, indices=True).targets.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            ["world", "Sport"],
            "line 3 with an unknown label ('Sport'); known from training: 'world', 'sports', 'business'; "
            "similar: 'sports'",
        ),
        ([0, 3], "2 lines (2, 3) with an unknown label (0, 3); known from training: 'world', 'sports', 'business'"),
        ([-1, -1], "2 lines (2, 3) with an unknown label (-1)"),
    ],
)
def test_unknown_labels_are_reported(tmp_path: Path, values: list[int | str], words: str) -> None:
    path = write(tmp_path / "a.csv", [(f"t{i}", value) for i, value in enumerate(values)])
    with pytest.raises(DataError) as caught:
        load_labelled(str(path), COLUMNS, KNOWN)
    assert str(caught.value).startswith(f"{path}: {words}")


def test_labelled_rows_of_a_folder_come_from_its_test_file(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [("a", 0), ("b", 1)])
    with pytest.raises(DataError, match=r"no test file; found .*train\.csv"):
        load_labelled(str(tmp_path), COLUMNS, KNOWN)
    write(tmp_path / "test-00000-of-00002.csv", [("c", 2)])
    write(tmp_path / "test-00001-of-00002.csv", [("d", "world")])
    assert content(load_labelled(str(tmp_path), COLUMNS, SingleLabel(("world", "sports", "2")))) == [("c", 2), ("d", 0)]
    assert content(load_labelled(str(tmp_path / "train.csv"), COLUMNS, SingleLabel(("0", "1")))) == [("a", 0), ("b", 1)]


def test_find_files_names_the_files_of_each_split(tmp_path: Path) -> None:
    for name in (
        "data/train-00000-of-00002.csv",
        "data/train-00001-of-00002.csv",
        "data/dev.csv",
        "test.csv",
        "contest.csv",
        "test_old.csv",
    ):
        write(tmp_path / name, TRAIN)
    found = {
        split: [str(path.relative_to(tmp_path)) for path in paths] for split, paths in find_files(str(tmp_path)).items()
    }
    assert found == {
        "train": ["data/train-00000-of-00002.csv", "data/train-00001-of-00002.csv"],
        "validation": ["data/dev.csv"],
        "test": ["test.csv"],
    }


@pytest.mark.parametrize("name", ["eval.csv", "Dev.tsv", "val.jsonl", "validation.csv.gz", "development.csv"])
def test_validation_files_have_many_names(tmp_path: Path, name: str) -> None:
    write(tmp_path / "train.csv", TRAIN)
    plain = name.removesuffix(".gz")
    path = write(tmp_path / plain, [("b one", 1)])
    if plain != name:
        (tmp_path / name).write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    data = load_dataset(str(tmp_path), COLUMNS)
    assert data.validation is not None
    assert (content(data.validation), data.findings) == ([("b one", 1)], ())


def test_tables_that_are_in_no_split_are_named(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", TRAIN)
    write(tmp_path / "holdout.csv", TRAIN)
    write(tmp_path / "more" / "extra.parquet", TRAIN)
    (tmp_path / "notes.txt").write_text("text")
    found = load_dataset(str(tmp_path), COLUMNS).findings
    assert found == (f"{tmp_path}: not used, as the names are of no split: holdout.csv, more/extra.parquet",)


def test_rows_are_named_by_file_and_line(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00002.csv", [("a one", 1), ("", 1), ("a two", 0)])
    write(tmp_path / "train-00001-of-00002.csv", [("b one", 1), ("b two", 0)])
    places = load_dataset(str(tmp_path), COLUMNS).train.take(np.array([1, 2])).places
    listed = "2 rows (train-00000-of-00002.csv line 4, train-00001-of-00002.csv line 2)"
    assert places.listed([0, 1]) == listed
    assert places.listed([0]) == "train-00000-of-00002.csv line 4"
    one = load_dataset(str(write(tmp_path / "a.parquet", TRAIN)), COLUMNS).train.places
    assert (one.listed([0, 3]), one.listed([2])) == ("2 rows (1, 4)", "row 3")
    bare = Split("given", pa.chunked_array([["a", "b"]]), np.array([0, 1]))
    assert bare.places.listed([1]) == "row 2"
