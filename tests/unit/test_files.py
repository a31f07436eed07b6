"""Tables of texts: files that are read, and messages for files that are not."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from loralet.data.files import Columns, Table, listed_rows, read_table
from loralet.errors import DataError


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_parquet(path: Path, names: list[str] | None = None, **columns: Any) -> Path:
    table = pa.table(columns)
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}, "text": {"dtype": "string", "_type": "Value"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pa.parquet.write_table(table, path)
    return path


def labels_of(table: Table) -> list[Any]:
    """The labels in their type; their names are canonical."""
    assert table.labels is not None
    assert table.labels.type == pa.string()
    made = {"int": int, "float": float, "bool": {"true": True, "false": False}.__getitem__, "str": str}
    return [made[table.label_type](name) for name in table.labels.to_pylist()]


def content(table: Table) -> list[tuple[str, Any]]:
    """Text and label of each row."""
    assert table.labels is not None
    assert len(table) == len(table.texts) == len(table.labels) == len(table.rows)
    return list(zip(table.texts.to_pylist(), labels_of(table), strict=True))


def refusal(path: Path, columns: Columns = Columns(), **options: bool) -> str:  # noqa: B008  # frozen
    """The error message for a file, which includes the file name."""
    with pytest.raises(DataError) as caught:
        read_table(path, columns, **options)
    message = str(caught.value)
    assert str(path) in message
    return message.replace(str(path), path.name)


ROWS = [("the cat, sat", 1), ("a dog", 0)]


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("a.csv", 'text,label\n"the cat, sat",1\na dog,0\n'),
        ("a.CSV", 'text,label\n"the cat, sat",1\na dog,0\n'),
        ("a.csv", 'text,label\r\n"the cat, sat",1\r\na dog,0\r\n'),
        ("a.csv", 'text,label\n"the cat, sat",1\na dog,0'),
        ("a.csv", 'label,text\n1,"the cat, sat"\n0,a dog\n'),
        ("a.csv", "text;label\nthe cat, sat;1\na dog;0\n"),
        ("a.csv", "text\tlabel\nthe cat, sat\t1\na dog\t0\n"),
        ("a.csv", '\ufeff"text";"label"\r\n"the cat, sat";1\r\na dog;0\r\n'),
        ("a.csv", '\ufefftext,label\n"the cat, sat",1\na dog,0\n'),
        ("a.csv", '\ufeff"text","label"\r\n"the cat, sat",1\r\na dog,0\r\n'),
        ("a.csv", 'text,label\r"the cat, sat",1\ra dog,0\r'),
        ("a.tsv", "text\tlabel\nthe cat, sat\t1\na dog\t0\n"),
        ("a.tsv", "\ufefftext\tlabel\r\nthe cat, sat\t1\r\na dog\t0\r\n"),
        ("a.jsonl", '{"text": "the cat, sat", "label": 1}\n{"label": 0, "text": "a dog"}\n'),
        ("a.json", '{"text": "the cat, sat", "label": 1}\r\n{"text": "a dog", "label": 0}'),
        ("a.jsonl", '\ufeff{"text": "the cat, sat", "label": 1}\n{"text": "a dog", "label": 0}\n'),
    ],
)
def test_all_text_formats_give_equal_tables(tmp_path: Path, name: str, raw: str) -> None:
    table = read_table(write(tmp_path / name, raw), Columns())
    assert content(table) == ROWS
    assert (table.texts.type, table.label_type) == (pa.string(), "int")
    assert (table.source, table.names, table.left_out) == (str(tmp_path / name), (), ())
    assert content(read_table(write(tmp_path / name, raw.replace("dog", "hen")), Columns())) == [ROWS[0], ("a hen", 0)]


def has_string_views() -> bool:
    """Whether this release of Arrow converts strings to string views; those without write no Parquet files of them."""
    try:
        pa.array(["a"]).cast(pa.string_view())
    except pa.ArrowNotImplementedError:
        return False
    return True


STRINGS = [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]


@pytest.mark.parametrize("kind", [*STRINGS, *([pa.string_view()] if has_string_views() else [])])
@pytest.mark.parametrize("whole", [pa.int8(), pa.int64(), pa.uint16()])
def test_parquet_gives_an_equal_table(tmp_path: Path, kind: pa.DataType, whole: pa.DataType) -> None:
    texts, labels = pa.array([text for text, _ in ROWS]).cast(kind), pa.array([label for _, label in ROWS], whole)
    table = read_table(write_parquet(tmp_path / "a.parquet", text=texts, label=labels), Columns())
    assert content(table) == ROWS
    assert (table.texts.type, table.label_type) == (pa.string(), "int")
    assert table.rows.to_pylist() == [1, 2]


@pytest.mark.parametrize(
    ("header", "text", "label"),
    [
        ("text,label,id", "t", 1),
        ("sentence,labels,id", "t", 1),
        ("content,class,id", "t", 1),
        (" Review , CATEGORY,id", "t", 1),
        ("summary,topic,id", "t", 1),
        ("Tweet,Intent,id", "t", 1),
        ("message,queue,priority", "t", 1),
        ("label,query,target", "1", "t"),
        ("title,label,description", "t 3", 1),
        ("description,label,title", "3 t", 1),
        ("headline,Class Index,id", "t", 1),
        ("abstract,label_text,id", "t", 1),
        ("text,label_text,label", "t", 3),
    ],
)
def test_usual_column_names_are_found(tmp_path: Path, header: str, text: str, label: int | str) -> None:
    assert content(read_table(write(tmp_path / "a.csv", f"{header}\nt,1,3\n"), Columns())) == [(text, label)]


def test_given_column_names_take_precedence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label,body,kind\nt,1,b,2\n")
    assert content(read_table(path, Columns(text="text"))) == [("t", 1)]
    assert content(read_table(path, Columns(text="body + text"))) == [("b t", 1)]
    assert content(read_table(path, Columns(text="body", label="kind"))) == [("b", 2)]
    assert content(read_table(path, Columns(text="text", label="kind"))) == [("t", 2)]


def test_a_file_without_a_header_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", '\ufeff3,Wall St. falls,Again\n4,"Chips,\nfaster",Now\n')
    columns = Columns(header=("label", "title", "description"))
    table = read_table(path, columns)
    assert content(table) == [("Wall St. falls Again", 3), ("Chips,\nfaster Now", 4)]
    assert table.rows.to_pylist() == [1, 2]
    assert content(read_table(path, Columns(text="x", label="y", header=("y", "x", "z")))) == [
        ("Wall St. falls", 3),
        ("Chips,\nfaster", 4),
    ]
    assert "--columns" in refusal(path)
    assert "line 1: 3 columns, expected 2: '3,Wall St. falls" in refusal(path, Columns(header=("label", "text")))


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_columns_is_only_for_files_without_column_names(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, '{"text": "a", "label": 1}') if name == "a.jsonl" else write_parquet(path, text=["a"], label=[1])
    assert "--columns is only for CSV and TSV files" in refusal(path, Columns(header=("text", "label")))
    assert content(read_table(path, Columns())) == [("a", 1)]


def test_quoted_texts_may_contain_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,label\n"one, ""two""\nthree\r\n",1\n5\'10" tall,0\n')
    table = read_table(path, Columns())
    assert content(table) == [('one, "two"\nthree\r\n', 1), ("5'10\" tall", 0)]
    assert table.rows.to_pylist() == [2, 5]


@pytest.mark.parametrize(
    ("raw", "rows", "left_out"),
    [
        ("text,label\na,1\n,1\nb,0\n", [2, 4], (3,)),
        ("text,label\na,1\n\n\n,1\nb,0", [2, 6], (5,)),
        ("\n\ntext,label\na,1\n,1\nb,0\n\n", [4, 6], (5,)),
        ('text,label\n"a\n\na",1\n" \n",1\nb,0\n', [2, 7], (5,)),
        ('text,label\r\n"a\r\na",1\r\n\t,1\r\nb,0\r\n', [2, 5], (4,)),
        ("text,label\ra,1\r,1\rb,0\r", [2, 4], (3,)),
    ],
)
def test_row_numbers_are_line_numbers(tmp_path: Path, raw: str, rows: list[int], left_out: tuple[int, ...]) -> None:
    table = read_table(write(tmp_path / "a.csv", raw), Columns())
    assert (table.rows.to_pylist(), table.left_out) == (rows, left_out)
    assert [label for _, label in content(table)] == [1, 0]


def test_a_very_long_field_is_read(tmp_path: Path) -> None:
    long = "x" * 140_000
    table = read_table(write(tmp_path / "a.csv", f'text,label\n"{long}\n",1\n\nb,0\n'), Columns())
    assert content(table) == [(f"{long}\n", 1), ("b", 0)]
    assert table.rows.to_pylist() == [2, 5]


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("text,label\na,1\nb,2,3\n", ["line 3: 3 columns, expected 2: 'b,2,3'"]),
        ("text,label\na,1\n\n\nb\n", ["line 5: 1 column, expected 2: 'b'"]),
        ('text,label\n"a\na",1\nb,2,3\n', ["line 4: 3 columns, expected 2: 'b,2,3'"]),
        ("\ntext,label\na,1\nb,2,3\n", ["line 4: 3 columns, expected 2: 'b,2,3'"]),
        ("text,label\r\na,1\r\nb,2,3\r\nc\r\n", ["2 lines do", "line 3: 3 columns", "line 4: 1 column,"]),
        (
            'text,label\na,1\n"b,2\nc,1\n',
            ["1 line does", "line 3: a quote opens here and is never closed", "close every quote"],
        ),
    ],
)
def test_ragged_rows_are_reported_with_their_number(tmp_path: Path, raw: str, told: list[str]) -> None:
    message = refusal(write(tmp_path / "a.csv", raw))
    for words in (*told, "Quote texts", "text, label"):
        assert words in message


def test_semicolons_separate_columns_only_if_the_first_row_has_several(tmp_path: Path) -> None:
    plain = write(tmp_path / "b.csv", "cats; dogs\nbirds; fish\n")
    assert read_table(plain, Columns(header=("text",)), labelled=False).texts.to_pylist() == [
        "cats; dogs",
        "birds; fish",
    ]
    assert (
        content(read_table(write(tmp_path / "c.csv", "a dog;0\nthe cat, sat;1\n"), Columns(header=("text", "label"))))
        == ROWS[::-1]
    )
    assert "line 2: 3 columns, expected 2: 'a;b;1'" in refusal(write(tmp_path / "d.csv", "text;label\na;b;1\nc;0\n"))
    assert "Quote texts that contain ';'" in refusal(write(tmp_path / "d.csv", "text;label\na;b;1\nc;0\n"))
    assert content(read_table(write(tmp_path / "e.csv", 'text,label\n"a;b",1\n'), Columns())) == [("a;b", 1)]


def test_names_equal_to_the_header_are_rejected(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\na dog,0\n")
    for header in (("text", "label"), ("Text", "LABEL")):
        assert "remove --columns" in refusal(path, Columns(header=header))
    assert len(read_table(path, Columns(header=("label", "text")))) == 2, "the names differ, so the first row is data"
    longest = write(tmp_path / "long.csv", "a" * 200_000 + ",0\n")
    assert read_table(longest, Columns(header=("text", "label"))).rows.to_pylist() == [1]


def test_text_and_label_must_be_different_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\na dog,0\n")
    assert "both the text and the label" in refusal(path, Columns(text="label"))
    assert "both the text and the label" in refusal(path, Columns(label="text"))
    assert read_table(path, Columns(text="label"), labelled=False).texts.to_pylist() == ["0"]


def test_at_most_five_ragged_rows_are_listed(tmp_path: Path) -> None:
    raw = "text\tlabel\n" + "a\t1\n" * 10 + "b\t1\tc\n" * 8
    message = refusal(write(tmp_path / "a.tsv", raw))
    assert "8 lines do not have 2 columns (text, label)" in message
    assert [f"line {n}: 3 columns" in message for n in range(11, 18)] == [False, True, True, True, True, True, False]
    assert "... and 3 more" in message
    assert "Quote texts that contain '\\t'" in message


@pytest.mark.parametrize(
    ("name", "raw", "row", "column"),
    [
        ("a.csv", b"text,label\na,1\n\ncaf\xe9 au lait,2\n", 4, "text"),
        ("a.csv", b"text,label\na,1\nb,caf\xe9\n", 3, "label"),
        ("a.tsv", b"text\tlabel\na\t1\ncaf\xe9\t2\n", 3, "text"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n\n{"text": "caf\xe9", "label": 2}\n', 3, "text"),
    ],
)
def test_invalid_utf8_is_reported_with_row_and_byte(
    tmp_path: Path, name: str, raw: bytes, row: int, column: str
) -> None:
    message = refusal(write(tmp_path / name, raw))
    for words in (f"line {row}, column {column!r}", "byte 0xe9 at 3", "caf", "save the file as UTF-8"):
        assert words in message
    assert len(read_table(write(tmp_path / name, raw.replace(b"\xe9", "é".encode())), Columns())) == 2


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [
        ("a.csv", "", "the file is empty; it needs at least one row"),
        ("a.jsonl", "", "the file is empty; it needs at least one row"),
        ("a.parquet", "", "the file is empty; it needs at least one row"),
        ("a.csv", "text,label\n", "no rows below its header"),
        ("a.csv", "text,label", "no rows below its header"),
        ("a.tsv", "text\tlabel\r\n\r\n", "no rows below its header"),
        ("a.csv", "\n\n", "only blank lines; add a header row"),
        ("a.jsonl", "\n\n", "the file has no rows"),
        (
            "a.csv",
            "text,label\n ,1\n\u3000,2\n",
            "every text in column 'text' is empty; choose another with --text-column",
        ),
        ("a.csv", "title,description,label\n,,2\n", "every text in column 'title + description' is empty"),
        (
            "a.csv",
            '"text,label\n' + "a,1\n" * 40_000,
            "line 1: a quote opens here and is never closed",
        ),
        ("a.parquet", "PAR1 cut short", "not readable as Parquet"),
        ("a.txt", "a", "unknown file extension '.txt'; known: .csv, .tsv, .jsonl, .json, .parquet and .arrow"),
        ("a", "a", "unknown file extension ''; known: .csv"),
        ("a.zip.gz", "a", "unknown file extension '.gz'"),
    ],
)
def test_empty_files_and_other_formats_are_rejected(tmp_path: Path, name: str, raw: str, words: str) -> None:
    assert words in refusal(write(tmp_path / name, raw))


def test_parquet_without_rows_is_rejected(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", text=pa.array([], pa.string()), label=pa.array([], pa.int64()))
    assert refusal(path).endswith("the file has no rows")


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.csv") == "a.csv: no such file"


@pytest.mark.parametrize(
    ("raw", "columns", "words"),
    [
        (
            "x,label\na,1\n",
            Columns(),
            ["no text column found", "sentence", "the columns are x, label", "--text-column", "--columns"],
        ),
        (
            "text,x\na,1\n",
            Columns(),
            ["no label column found", "category", "the columns are text, x", "--label-column", "--columns"],
        ),
        ("text:label\na:1\n", Columns(), ["the header 'text:label' seems to have the separator ':'", "--separator :"]),
        ("text,label\na,1\n", Columns(text="body"), ["no column 'body'", "the columns are text, label"]),
        ("text,label\na,1\n", Columns(label="kind"), ["no column 'kind'", "the columns are text, label"]),
        ("text,text,label\na,b,1\n", Columns(), ["2 columns are named 'text'", "rename all but one"]),
        ("text,label,label\na,1,1\n", Columns(), ["2 columns are named 'label'", "rename all but one"]),
    ],
)
def test_missing_and_duplicate_columns_are_reported_with_existing_ones(
    tmp_path: Path, raw: str, columns: Columns, words: list[str]
) -> None:
    message = refusal(write(tmp_path / "a.csv", raw), columns)
    for word in words:
        assert word in message
    assert content(read_table(write(tmp_path / "b.csv", "text,label,x,x\na,1,2,3\n"), Columns())) == [("a", 1)]


def test_empty_texts_are_dropped_and_reported_or_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,label\na,1\n,2\n" \t",2\nb,0\n')
    table = read_table(path, Columns())
    assert (content(table), table.left_out, table.rows.to_pylist()) == ([("a", 1), ("b", 0)], (3, 4), [2, 5])
    kept = read_table(path, Columns(), keep_empty=True)
    assert (content(kept), kept.left_out) == ([("a", 1), ("", 2), (" \t", 2), ("b", 0)], ())
    assert kept.rows.to_pylist() == [2, 3, 4, 5]


def test_null_texts_count_as_empty(tmp_path: Path) -> None:
    table = read_table(write_parquet(tmp_path / "a.parquet", text=["a", None, "b"], label=[1, 2, 0]), Columns())
    assert (content(table), table.left_out) == ([("a", 1), ("b", 0)], (2,))
    path = write(tmp_path / "a.jsonl", '{"text": null, "label": 1}\n{"label": 2}\n\n{"text": "b", "label": 0}\n')
    table = read_table(path, Columns())
    assert (content(table), table.left_out, table.rows.to_pylist()) == ([("b", 0)], (1, 2), [4])
    assert read_table(path, Columns(), keep_empty=True).texts.to_pylist() == ["", "", "b"]


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [
        (
            "a.csv",
            "text,label\na,1\n\nb,\nc,2\n",
            "line 4 without a label in column 'label'; add labels or remove the rows",
        ),
        ("a.csv", "text,label\na,x\nb, \nc,\n", "2 lines (3, 4) without a label in column 'label'"),
        (
            "a.jsonl",
            '{"text": "a", "label": 1}\n{"text": "b"}\n{"text": "c", "label": null}\n',
            "2 lines (2, 3) without a label",
        ),
        ("a.csv", "text,label\n" + "a,\n" * 9, "9 lines (2, 3, 4, 5, 6, ...) without a label"),
    ],
)
def test_missing_labels_are_reported_with_their_rows(tmp_path: Path, name: str, raw: str, words: str) -> None:
    path = write(tmp_path / name, raw)
    assert words in refusal(path)
    assert read_table(path, Columns(), labelled=False).labels is None


def test_a_row_without_text_needs_no_label(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", "text,label\na,1\n,\n"), Columns())
    assert (content(table), table.left_out) == ([("a", 1)], (3,))
    assert "line 3 without a label" in refusal(tmp_path / "a.csv", keep_empty=True)


@pytest.mark.parametrize("raw", ["text\na\n", "text,label\na,\n", "text,label,label\na,1,2\n"])
def test_labels_are_ignored_for_unlabelled_tables(tmp_path: Path, raw: str) -> None:
    table = read_table(write(tmp_path / "a.csv", raw), Columns(), labelled=False)
    assert (table.texts.to_pylist(), table.labels) == (["a"], None)
    assert "label" in refusal(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("values", "read"),
    [
        (["1", "-2", " 3 "], [1, -2, 3]),
        (["01", "10", "1"], ["01", "10", "1"]),
        (["-0", "0", "1"], ["-0", "0", "1"]),
        (["1", "two", "3"], ["1", "two", "3"]),
        (["true", "false", "yes"], ["true", "false", "yes"]),
        ([" good ", "bad", "good"], ["good", "bad", "good"]),
        (["1.0", "2.0", "1.0"], [1.0, 2.0, 1.0]),
        (["1.0", "2", "-0.0"], [1.0, 2.0, 0.0]),
        (["1.5", "2.0", "1.5"], ["1.5", "2.0", "1.5"]),
        (["1e0", "2", "1.000e+00"], [1.0, 2.0, 1.0]),
        (["1e20", "1", "1E+20"], [1e20, 1.0, 1e20]),
        (["1e-1", "1", "0.1"], ["1e-1", "1", "0.1"]),
        (["1e5", "3f2", "100000"], ["1e5", "3f2", "100000"]),
        (["1" * 30, "1", "2"], [int("1" * 30), 1, 2]),
        (["True", "false", "TRUE"], [True, False, True]),
    ],
)
def test_csv_labels_have_the_type_of_all_cells(tmp_path: Path, values: list[str], read: list[Any]) -> None:
    table = read_table(
        write(tmp_path / "a.csv", "text,label\n" + "".join(f"a,{value}\n" for value in values)), Columns()
    )
    assert labels_of(table) == read


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ([1, -2], [1, -2]),
        ([1.0, 2], [1.0, 2.0]),
        ([2**70, -(2**63) - 1], [2**70, -(2**63) - 1]),
        ([1e300, -1e300], [1e300, -1e300]),
        (["1", "2"], ["1", "2"]),
        (["1", "x"], ["1", "x"]),
        ([True, False], [True, False]),
        (["2020-01-01", "2021-01-01"], ["2020-01-01", "2021-01-01"]),
    ],
)
def test_json_labels(tmp_path: Path, values: list[Any], read: list[Any]) -> None:
    raw = "\n".join(json.dumps({"text": "2020-01-01", "label": value}) for value in values)
    table = read_table(write(tmp_path / "a.jsonl", raw), Columns())
    assert content(table) == [("2020-01-01", label) for label in read]


@pytest.mark.parametrize(
    ("values", "read"),
    [
        (pa.array([True, False]), [True, False]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
        (pa.array(["1", "2"]), ["1", "2"]),
        (pa.array([0.1, 0.5], pa.float32()), [0.1, 0.5]),
        (pa.array([b"no", b"ja"], pa.binary(2)), ["no", "ja"]),
        (pa.array([2**64 - 1, 0], pa.uint64()), [2**64 - 1, 0]),
        (pa.array([Decimal("1.00"), Decimal("2.50")]), [1.0, 2.5]),
    ],
)
def test_parquet_labels(tmp_path: Path, values: pa.Array, read: list[Any]) -> None:
    assert content(read_table(write_parquet(tmp_path / "a.parquet", text=["a", "b"], label=values), Columns())) == list(
        zip("ab", read, strict=True)
    )


def test_continuous_numbers_are_no_labels_in_csv_either(tmp_path: Path) -> None:
    rows = "".join(f"a,{i / 7:.6f}\n" for i in range(1, 41))
    path = write(tmp_path / "a.csv", f"text,label\n{rows}")
    assert "column 'label': the labels are continuous numbers (40 different ones in 40 rows)" in refusal(path)
    ratings = [f"{i % 9 / 2:.1f}" for i in range(40)]
    path = write(tmp_path / "b.csv", "text,label\n" + "".join(f"a,{rating}\n" for rating in ratings))
    assert labels_of(read_table(path, Columns())) == ratings
    versions = write(tmp_path / "c.csv", "text,label\n" + "".join(f"a,1.{i}.0\n" for i in range(40)))
    assert len(set(labels_of(read_table(versions, Columns())))) == 40


def test_continuous_numbers_are_no_labels(tmp_path: Path) -> None:
    """Ratings are classes; a value that hardly repeats is the target of a regression."""
    ratings = [i % 9 / 2 for i in range(40)]
    path = write_parquet(tmp_path / "a.parquet", text=["a"] * 40, label=ratings)
    assert labels_of(read_table(path, Columns())) == ratings
    path = write_parquet(tmp_path / "a.parquet", text=["a"] * 40, label=[i / 7 for i in range(40)])
    assert "column 'label': the labels are continuous numbers (40 different ones in 40 rows)" in refusal(path)
    whole = write_parquet(tmp_path / "a.parquet", text=["a"] * 40, label=[float(i) for i in range(40)])
    assert len(read_table(whole, Columns())) == 40


def test_integral_floats_from_pandas_are_labels(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", text=["a", "b", "c"], label=[None, 1.0, 2.0])
    assert "row 1 without a label" in refusal(path)
    path = write_parquet(tmp_path / "a.parquet", text=["a"], label=pa.array([None], pa.float64()))
    assert "row 1 without a label" in refusal(path)
    path = write_parquet(tmp_path / "a.parquet", text=["a", "b"], label=[1.0, float("nan")])
    assert "row 2 without a label" in refusal(path)
    assert content(read_table(write_parquet(tmp_path / "a.parquet", text=["a", "b"], label=[1.0, 2.0]), Columns())) == [
        ("a", 1),
        ("b", 2),
    ]
    assert content(read_table(write_parquet(tmp_path / "a.parquet", text=["a", "b"], label=[1, 2]), Columns())) == [
        ("a", 1),
        ("b", 2),
    ]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"text": 5, "label": 1}, "line 1, column 'text' is int, not text; write it as strings"),
        ({"text": ["a"], "label": 1}, "line 1, column 'text' is list, not text"),
        ({"text": "a", "label": ["x"]}, "line 1, column 'label': a label is of type list; write one class per text"),
        ({"text": "a", "label": {"x": 1}}, "line 1, column 'label': a label is of type dict"),
        ({"text": "a", "label": float("inf")}, "column 'label': the label inf is not a finite number"),
    ],
)
def test_columns_of_other_types_are_rejected(tmp_path: Path, value: dict[str, Any], words: str) -> None:
    assert words in refusal(write(tmp_path / "a.jsonl", json.dumps(value)))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ('{"text": "a", "label": 1}\n\n{"text": "b",\n', ["line 3 is not valid JSON", "one object per line"]),
        (
            '{"text": "a", "label": 1}\r\n{"text": "b" "label": 1}\r\n',
            ["line 2 is not valid JSON", "Expecting ',' delimiter", "one object per line"],
        ),
        ('{"text": "a", "label": 1}\n"b"\n', ["line 2 is a string, not an object", "one object per line"]),
        ("[[1, 2], [3, 4]]", ["line 1 is a list, not an object"]),
        ('[{"text": "a", "label": 1}\n{"text": "b", "label": 1}]', ["not valid JSON after line 1", "commas"]),
        ('[{"text": "a", "label": 1},\n{"text": "b", "label": 1}', ["not valid JSON after line 2", "close the list"]),
        ('[{"text": "a", "label": 1}]\n[{"text": "b", "label": 1}]', ["more text after the list"]),
        (
            '{"text": "a", "label": 1}\n{"text": "b", "label": "x"}\n',
            ["line 2, column 'label': a label is str, but int in earlier rows; use one type"],
        ),
        (
            '{"text": "a", "label": true}\n\n{"text": "b", "label": 1}\n',
            ["line 3, column 'label': a label is int, but bool in earlier rows"],
        ),
        (
            '{"text": "a", "label": null}\n{"text": "b", "label": 1}\n{"text": 3, "label": 1}',
            ["line 3, column 'text' is int, not text"],
        ),
        ('{"text": "a", "label": 1}\n{"text": "\\ud800", "label": 1}\n', ["line 2, column 'text'", "lone surrogate"]),
        ('{"text": "a", "label": 1, "\\ud800": 2}', ["line 1: the key", "rename it"]),
        ('{"text": "a", "label": 1, "text": "b"}', ["line 1 is not valid JSON", "the key 'text' occurs twice"]),
        ('{"text": ["a"], "label": [1]}', ["one object of columns (text, label)", 'orient="records"']),
        ('{"version": 1, "data": [{"text": "a", "label": 1}]}', ["the rows are in the list 'data'"]),
        (
            '{"text": "a", "label": 1, "m": ' + "[" * 200 + "]" * 200 + "}",
            ["line 1: 'm' is nested more than 100 levels"],
        ),
        ('{"text": "a", "label": 1}\n{"m": ' + "[" * 20_000 + "]" * 20_000 + "}", ["line 2 is nested too deeply"]),
    ],
)
def test_invalid_and_mixed_json_is_reported_with_its_line(tmp_path: Path, raw: str, words: list[str]) -> None:
    message = refusal(write(tmp_path / "a.jsonl", raw))
    for word in words:
        assert word in message


def test_multiline_json_objects_are_read(tmp_path: Path) -> None:
    table = read_table(
        write(tmp_path / "a.json", '{\n"text": "a",\n"label": 1}\n{"text": "b", "label": 0}\n'), Columns()
    )
    assert (content(table), table.rows.to_pylist()) == ([("a", 1), ("b", 0)], [1, 4])


def test_label_names_in_parquet_metadata_are_read(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", ["World", "Sports"], text=["a", "b"], label=[1, 0])
    assert (read_table(path, Columns()).names, content(read_table(path, Columns()))) == (
        ("World", "Sports"),
        [("a", 1), ("b", 0)],
    )
    path = write_parquet(tmp_path / "b.parquet", ["World", "Sports"], text=["a", "b"], label=[1, 0], kind=[0, 1])
    assert read_table(path, Columns(label="kind")).names == ()
    assert read_table(path, Columns(), labelled=False).names == ()


@pytest.mark.parametrize(
    "metadata", [b"{", b"[]", b'{"info": {"features": {"label": {"dtype": "int64"}}}}', b'{"info": null}']
)
def test_other_parquet_metadata_is_ignored(tmp_path: Path, metadata: bytes) -> None:
    table = pa.table({"text": ["a"], "label": [1]}).replace_schema_metadata({b"huggingface": metadata})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet", Columns()).names == ()


def test_listed_rows() -> None:
    assert listed_rows([7]) == "row 7"
    assert listed_rows([7, 9]) == "2 rows (7, 9)"
    assert listed_rows(range(1, 6)) == "5 rows (1, 2, 3, 4, 5)"
    assert listed_rows(range(1, 7)) == "6 rows (1, 2, 3, 4, 5, ...)"
