"""Labels as values: train on every format, evaluate on every other one, whatever the spelling and type."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import Enum
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralet.data.columns import classes_of, label_column, task_of, text_column
from loralet.data.files import Columns, read_table
from loralet.data.label_values import LabelError, named_labels
from loralet.errors import DataError, InputError
from loralet.tasks.base import RawLabels
from loralet.tasks.labels import LabelLookup, common_type, label_key, sorted_labels
from loralet.tasks.single_label import SingleLabel

ORDER = [2, 0, 1, 1, 2, 0]
"""The class of each row of every data set here."""


class Column(Sequence[Any]):
    """A sequence without ``__array__``, as the columns of the datasets library are."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values

    def __getitem__(self, index: Any) -> Any:
        return self.values[index]

    def __len__(self) -> int:
        return len(self.values)


def of_file(name: str, write: Callable[[Path, list[Any]], object]) -> Callable[[list[Any]], RawLabels]:
    def read(labels: list[Any]) -> RawLabels:
        with TemporaryDirectory() as folder:
            path = Path(folder) / name
            write(path, labels)
            return read_table(path, Columns()).raw_labels

    return read


def of_python(convert: Callable[[list[Any]], Any]) -> Callable[[list[Any]], RawLabels]:
    """The labels of rows given in Python, by the names that training stores."""

    def read(labels: list[Any]) -> RawLabels:
        classes, numbers = label_column(convert(labels), len(labels))
        task = task_of(classes)
        names = pa.chunked_array([[task.labels[number] for number in numbers]])
        return RawLabels("Python", names, pa.array(range(1, len(labels) + 1)), (), task.label_type)

    return read


def delimited(mark: str) -> Callable[[Path, list[Any]], object]:
    def write(path: Path, labels: list[Any]) -> None:
        rows = [f"text {i}{mark}{label}\n" for i, label in enumerate(labels)]
        path.write_text("".join([f"text{mark}label\n", *rows]), encoding="utf-8")

    return write


def objects(labels: list[Any]) -> list[dict[str, Any]]:
    return [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]


def frame(labels: list[Any]) -> pd.DataFrame:
    return pd.DataFrame(objects(labels))


def polars_frame(labels: list[Any]) -> pl.DataFrame:
    return pl.DataFrame({"text": [f"text {i}" for i in range(len(labels))], "label": labels})


def table(labels: list[Any]) -> pa.Table:
    return pa.table({"text": [f"text {i}" for i in range(len(labels))], "label": labels})


UNTYPED: dict[str, Callable[[list[Any]], RawLabels]] = {
    "csv": of_file("a.csv", delimited(",")),
    "semicolons": of_file("a.csv", delimited(";")),
    "tsv": of_file("a.tsv", delimited("\t")),
    "pandas csv": of_file("a.csv.gz", lambda path, labels: frame(labels).to_csv(path, index=False)),
    "polars csv": of_file("a.csv", lambda path, labels: polars_frame(labels).write_csv(path)),
}
TYPED: dict[str, Callable[[list[Any]], RawLabels]] = {
    "jsonl": of_file("a.jsonl", lambda path, rows: path.write_text("\n".join(map(json.dumps, objects(rows))))),
    "json": of_file("a.json", lambda path, rows: path.write_text(json.dumps(objects(rows), indent=1))),
    "pandas json": of_file("a.jsonl", lambda path, rows: frame(rows).to_json(path, orient="records", lines=True)),
    "polars json": of_file("a.ndjson", lambda path, rows: polars_frame(rows).write_ndjson(path)),
    "parquet": of_file("a.parquet", lambda path, rows: pa.parquet.write_table(table(rows), path)),
    "pandas parquet": of_file("a.parquet", lambda path, rows: frame(rows).to_parquet(path)),
    "polars parquet": of_file("a.parquet", lambda path, rows: polars_frame(rows).write_parquet(path)),
    "arrow": of_file("a.arrow", lambda path, rows: pa.feather.write_feather(table(rows), str(path))),
    "list": of_python(list),
    "iterator": of_python(iter),
    "sequence": of_python(Column),
    "numpy": of_python(np.array),
    "numpy objects": of_python(lambda rows: np.array(rows, object)),
    "pandas": of_python(pd.Series),
    "pandas nullable": of_python(lambda rows: pd.Series(rows).convert_dtypes()),
    "polars": of_python(pl.Series),
    "Arrow": of_python(pa.array),
}
NUMBERS: dict[str, list[Any]] = {
    "int": [1, 2, 10],
    "float": [1.0, 2.0, 10.0],
    "str": ["1", "2", "10"],
    "pandas with NaN": ["1.0", "2.0", "10.0"],
    "scientific": ["1e0", "2.00E+00", "1e+01"],
    "zero-padded": ["01", "02", "10"],
}
KINDS: dict[str, dict[str, list[Any]]] = {
    "numbers": NUMBERS,
    "negative": {"int": [-3, 0, 7], "float": [-3.0, -0.0, 7.0], "str": ["-3", "0", "7"], "signs": ["-3", "0", "+7"]},
    "truth values": {"bool": [False, True], "Python": ["False", "True"], "JSON": ["false", "true"]},
    "names": {"str": ["a b", "é", "Zebra"]},
    "large": {"int": [-(2**62), 2**53 + 1, 2**63 - 1], "str": [str(-(2**62)), str(2**53 + 1), str(2**63 - 1)]},
}


def sources(kind: str) -> list[tuple[str, Callable[[list[Any]], RawLabels], list[Any]]]:
    """Every format with every spelling of a kind."""
    found = []
    for spelling, values in KINDS[kind].items():
        found += [(f"{name}, {spelling}", read, values) for name, read in (UNTYPED | TYPED).items()]
    return found


@cache
def read_all(kind: str) -> list[tuple[str, RawLabels]]:
    count = len(next(iter(KINDS[kind].values())))
    order = [index % count for index in ORDER]
    return [(name, read([values[index] for index in order])) for name, read, values in sources(kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_trained_on_any_format_knows_the_labels_of_every_other_one(kind: str) -> None:
    """Formats that give the same names and type need one training each."""
    read = read_all(kind)
    assert len(read) == (len(UNTYPED) + len(TYPED)) * len(KINDS[kind])
    different = {(tuple(raw.values.to_pylist()), raw.kind): (name, raw) for name, raw in read}
    found, wrong = list(different.values()), list[str]()
    for (trained, own), (evaluated, other) in product(found, found):
        task = SingleLabel.of([own])
        restored = SingleLabel(task.labels, (), task.label_type)  # as an artifact stores it
        if restored.encode_other([other])[0].tolist() != task.encode(own).tolist():
            wrong.append(f"{trained} -> {evaluated}")
    assert wrong == []


@pytest.mark.parametrize("kind", KINDS)
def test_labels_that_differ_are_unknown(kind: str) -> None:
    """The same formats, with one label replaced by another value."""
    found = dict(read_all(kind))
    task = SingleLabel.of([next(iter(found.values()))])
    for strange in ("3", "1.5", "maybe", "1e400", "0x1"):
        with pytest.raises(DataError, match="unknown label"):
            task.encode_other([UNTYPED["csv"]([strange, task.labels[0]])])


@pytest.mark.parametrize(
    ("values", "untyped", "typed"),
    [
        ([1, 2], "int", "int"),
        ([1.0, 2.0], "float", "float"),
        ([True, False], "bool", "bool"),
        (["a", "b"], "str", "str"),
        (["1", "2"], "int", "str"),
        (["01", "2"], "str", "str"),
    ],
)
def test_the_type_of_the_labels_is_known(values: list[Any], untyped: str, typed: str) -> None:
    assert {read(values).kind for read in UNTYPED.values()} == {untyped}
    # pandas writes the float 1.0 as 1 to JSON, and converts it to an integer for the nullable types.
    kept = [read for name, read in TYPED.items() if name not in ("pandas json", "pandas nullable")]
    assert {read(values).kind for read in kept} == {typed}


def test_integers_beyond_64_bits_are_labels() -> None:
    values = [2**64, -(2**70), 2**64]
    for read in (UNTYPED["csv"], TYPED["jsonl"], TYPED["list"], TYPED["iterator"]):
        task = SingleLabel.of([read(values)])
        assert (task.labels, task.label_type) == ((str(-(2**70)), str(2**64)), "int")
        assert classes_of(task.labels, "int").tolist() == [-(2**70), 2**64]
    unsigned = of_file("a.parquet", lambda path, _: pa.parquet.write_table(pa.table(
        {"text": ["a", "b"], "label": pa.array([2**64 - 1, 0], pa.uint64())}
    ), path))([])  # fmt: skip
    assert SingleLabel.of([unsigned]).labels == ("0", str(2**64 - 1))
    assert label_column(np.array([2**64 - 1, 0], np.uint64), 2)[0].tolist() == [0, 2**64 - 1]


def test_spellings_that_the_data_tells_apart_are_different_labels() -> None:
    task = SingleLabel.of([UNTYPED["csv"](["01", "1", "x"])])
    assert task.labels == ("01", "1", "x")
    assert task.encode_other([UNTYPED["csv"](["1", "01"])])[0].tolist() == [1, 0]
    with pytest.raises(DataError, match="unknown label"):
        task.encode_other([UNTYPED["csv"](["1.0", "x"])])


def test_mixed_and_missing_labels_in_python() -> None:
    for values, words in (
        (["a", 1], "mixed types"),
        ([True, 1], "mixed types"),
        ([1.0, None], "row 2 (counted from 1) has no label"),
        (np.array([np.nan, 1.0]), "row 1 (counted from 1) has no label"),
        (pd.Series([1, pd.NA], dtype="Int64"), "row 2 (counted from 1) has no label"),
        (pd.Series(pd.to_datetime(["2020-01-01", None])), "row 2 (counted from 1) has no label"),
        (pd.Series(pd.to_datetime(["2020-01-01", "2021-01-01"])), "labels of type"),
        ([["a"], ["b"]], "labels of type list"),
        ([0.5, 1.0], "continuous"),
        (["", "a"], "row 1 (counted from 1) has no label"),
        (np.array(["a", " "]), "row 2 (counted from 1) has no label"),
        ("ab", "labels is one string"),
        ({"a", "b"}, "the labels are a set, which has no order"),
        ([Decimal("NaN"), Decimal(1)], "row 1 (counted from 1) has no label"),
    ):
        with pytest.raises(InputError) as caught:
            label_column(values, 2)
        assert words in str(caught.value)


class Spelled(str, Enum):
    """A class whose ``str()`` is not its value."""

    NO, YES = "no", "yes"


@pytest.mark.parametrize(
    ("labels", "classes", "names"),
    [
        ([Decimal("2.00"), Decimal("1")], [1, 2], ("1", "2")),
        (pl.Series([Decimal("2.00"), Decimal("1.00")]), [1, 2], ("1", "2")),
        (pa.array([Decimal("2.0"), Decimal("1.0")]), [1, 2], ("1", "2")),
        (pl.Series([2, 1], dtype=pl.Int128), [1, 2], ("1", "2")),
        ([Spelled.YES, Spelled.NO], ["no", "yes"], ("no", "yes")),
        (pd.Series(["y", "n"], dtype="category"), ["n", "y"], ("n", "y")),
        (pl.Series(["y", "n"], dtype=pl.Enum(["y", "n"])), ["n", "y"], ("n", "y")),
        (pa.array(["y", "n"]).dictionary_encode(), ["n", "y"], ("n", "y")),
    ],
)
def test_other_python_types_of_labels(labels: Any, classes: list[Any], names: tuple[str, ...]) -> None:
    found, numbers = label_column(labels, 2)
    assert (found.tolist(), numbers.tolist(), task_of(found).labels) == (classes, [1, 0], names)


def test_texts_of_an_enumeration_are_their_values() -> None:
    assert text_column([Spelled.YES, Spelled.NO]).to_pylist() == ["yes", "no"]
    with pytest.raises(InputError, match="contain bytes, not text; decode them"):
        text_column([b"a", b"b"])
    with pytest.raises(InputError, match="texts are a set"):
        text_column({"a", "b"})


@pytest.mark.parametrize("values", [["b ", "b", "a"], [2, 1], [2.0, 1.0], [True, False], ["10", "9"]])
def test_classes_keep_their_type_and_their_order(values: list[Any]) -> None:
    classes, numbers = label_column(values, len(values))
    assert classes.tolist() == sorted(set(values))
    assert classes[numbers].tolist() == values
    task = task_of(classes)
    assert classes_of(task.labels, task.label_type).tolist() == classes.tolist()


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("1", "1.0", True),
        ("1", "01", True),
        ("10", "1e1", True),
        ("-0", "0", True),
        ("1", "1.5", False),
        ("True", "true", True),
        ("true", "1", False),
        ("1_000", "1000", False),
        ("١", "1", False),
        ("a", "A", False),
        ("1e999999999", "1e999999998", False),
        ("nan", "NaN", False),
    ],
)
def test_keys_are_equal_for_spellings_of_one_value(one: str, other: str, equal: bool) -> None:
    assert (label_key(one) == label_key(other)) is equal


def test_a_lookup_prefers_names_and_refuses_ambiguous_values() -> None:
    lookup = LabelLookup(["1", "01", "x", "2.0"])
    assert [lookup.find(name) for name in ("1", "01", "x", "2", "1.0", "y")] == [0, 1, 2, 3, None, None]


def test_orders_and_common_types() -> None:
    assert sorted_labels(["10", "9", "-1", "9"], "int") == ["-1", "9", "10"]
    assert sorted_labels(["10", "9"], "str") == ["10", "9"]
    assert [common_type(kinds) for kinds in (["int"], ["int", "float"], ["int", "bool"], ["str", "int"])] == [
        "int", "float", "str", "str",
    ]  # fmt: skip


def test_names_of_values() -> None:
    assert named_labels([1.0, None, -0.0, 2.5, 1e300], typed=True) == (["1", None, "0", "2.5", "1e+300"], "float")
    assert named_labels([True, float("nan"), False], typed=True) == (["true", None, "false"], "bool")
    assert named_labels([" a ", "", None], typed=True) == (["a", None, None], "str")
    assert named_labels([" 1 ", "", "2."], typed=False) == (["1", None, "2"], "float")
    for values in ([object()], [["a"]], [Decimal(1)], [float("inf"), 1.0], ["a", 1], [True, 1.0]):
        with pytest.raises(LabelError):
            named_labels(values, typed=True)


@given(st.lists(st.integers() | st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_equal_numbers_have_equal_names_and_others_do_not(values: list[float]) -> None:
    """Checked with Python's own equality of integers and floats."""
    try:
        names, _ = named_labels(values, typed=True)
    except LabelError:
        assert len(set(values)) > 10  # continuous numbers
        return
    for (a, one), (b, other) in product(zip(values, names, strict=True), repeat=2):
        assert (label_key(str(one)) == label_key(str(other))) == (a == b)


def test_label_names_keep_the_values_that_they_replace() -> None:
    raw = UNTYPED["csv"]([1, 2, 10])
    task = SingleLabel.of([raw], ("low", "high", "top"))
    assert (task.labels, task.values, task.label_type) == (("low", "high", "top"), ("1", "2", "10"), "str")
    restored = SingleLabel(task.labels, task.values)
    for values in ([10, 1], [10.0, 1.0], ["10", "01"], ["top", "low"]):
        for read in (UNTYPED["csv"], TYPED["jsonl"], TYPED["parquet"]):
            assert restored.encode_other([read(values)])[0].tolist() == [2, 0]
    with pytest.raises(DataError, match="unknown label"):
        restored.encode_other([UNTYPED["csv"]([0, 1])])
