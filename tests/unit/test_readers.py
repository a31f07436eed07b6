"""Readers of tables: how a file is written is found, announced or refused, never guessed silently."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_files import ROWS, content, refusal, write

from loralet.data.files import Columns, Table, read_table
from loralet.data.readers.delimited import read_delimited
from loralet.data.readers.records import Delimited, format_of, stem_of

EIGHT = [("a", "pos"), ('"Quoted start', "pos"), ("b", "neg"), ("c", "pos"), ('he said the end"', "neg")]
EIGHT += [("d", "pos"), ("e", "neg"), ("f", "pos")]
"""Rows in which a quote opens and another one closes, and neither encloses a field."""


def plain(rows: list[tuple[str, str]], between: str) -> str:
    return "".join(f"{text}{between}{label}\n" for text, label in [("text", "label"), *rows])


def read(folder: Path, name: str, raw: str | bytes, columns: Columns = Columns()) -> Table:  # noqa: B008  # frozen
    return read_table(write(folder / name, raw), columns)


def test_a_tab_separated_file_without_quoting_is_read_as_written(tmp_path: Path) -> None:
    table = read(tmp_path, "a.tsv", plain(EIGHT, "\t"))
    assert content(table) == EIGHT
    assert table.rows.to_pylist() == list(range(2, 10))
    assert table.notes == ("read without quoting, because quotes do not enclose fields in line 3",)
    assert content(read(tmp_path, "b.csv", plain(EIGHT, "\t"))) == EIGHT, "tabs in a file named .csv"


@pytest.mark.parametrize("between", [",", ";"])
def test_stray_quotes_that_would_join_rows_are_refused(tmp_path: Path, between: str) -> None:
    path = write(tmp_path / "a.csv", plain(EIGHT, between))
    told = refusal(path)
    assert "1 line does not have 2 columns" in told
    assert "- line 3: a quote opens here and closes in line 6, around what look like separate rows" in told
    assert "set --quoting none" in told
    assert content(read_table(path, Columns(quoting="none"))) == EIGHT
    assert len(read_table(path, Columns(quoting="standard"))) == 5


def test_the_lines_at_fault_are_named(tmp_path: Path) -> None:
    """A quoted word at the beginning, and a quote that a later row closes: the rows between are not to blame."""
    rows = [('"Hi," she said', "ham"), ("Win now", "spam"), ('"Oh no, open', "ham"), ("cash prize", "spam")]
    rows += [('fine"', "ham")]
    flipped = [(label, text) for text, label in rows]
    table = read(tmp_path, "a.tsv", "label\ttext\n" + "".join(f"{a}\t{b}\n" for a, b in flipped))
    assert content(table) == rows
    assert table.notes == ("read without quoting, because quotes do not enclose fields in 2 lines (2, 4)",)
    told = refusal(write(tmp_path / "a.csv", "label;text\n" + "".join(f"{a};{b}\n" for a, b in flipped)))
    assert "- line 2: text follows the closing quote in line 2: 'ham;\"Hi,\" she said'" in told
    assert "- line 4: a quote opens here and closes in line 6" in told
    assert not any(f"line {line}:" in told for line in (3, 5, 6))


def test_an_unclosed_quote_does_not_drop_the_rest(tmp_path: Path) -> None:
    rows = [(f"text {i}", "spam" if i % 2 else "ham") for i in range(60)]
    rows[29] = ('"an opening quote that nobody closes', "spam")
    told = refusal(write(tmp_path / "a.csv", plain(rows, ",")))
    assert "1 line does not have 2 columns" in told
    assert "- line 31: a quote opens here and is never closed" in told
    table = read(tmp_path, "a.tsv", plain(rows, "\t"))
    assert content(table) == rows
    assert "in line 31" in table.notes[0]


@pytest.mark.parametrize(
    ("raw", "rows"),
    [
        ('text,label\n"Dear, sir\nthanks, bye",neg\nok,pos\n', [("Dear, sir\nthanks, bye", "neg"), ("ok", "pos")]),
        ('text,label\n"Dear Anna,\nbest,\nTom",neg\nok,pos\n', [("Dear Anna,\nbest,\nTom", "neg"), ("ok", "pos")]),
        ('label,text\nneg,"Dear sir\nthanks, bye"\npos,ok\n', [("Dear sir\nthanks, bye", "neg"), ("ok", "pos")]),
        ('text\tlabel\n"a\tb\t\nc"\tneg\nok\tpos\n', [("a\tb\t\nc", "neg"), ("ok", "pos")]),
    ],
)
def test_quoted_texts_of_several_lines_are_announced(tmp_path: Path, raw: str, rows: list[tuple[str, str]]) -> None:
    table = read(tmp_path, "a.tsv" if "\t" in raw else "a.csv", raw)
    assert content(table) == rows
    assert table.notes == ("1 quoted record spans several lines, from line 2 on",)


@pytest.mark.parametrize(
    ("raw", "note"),
    [
        ('text, label\n"the cat, sat", "1"\n"a dog", "0"\n', "spaces between separators and quotes are left out"),
        ('label,  text\n1,  "the cat, sat"\n0, a dog\n', "spaces between separators and quotes are left out"),
        ("text,label\n'the cat, sat',1\n'a dog',0\n", "read with fields in single quotes"),
        ("text;label\n'the cat, sat';'1'\n'a dog';'0'\n", "read with fields in single quotes"),
    ],
)
def test_other_quoting_is_detected_and_announced(tmp_path: Path, raw: str, note: str) -> None:
    table = read(tmp_path, "a.csv", raw)
    assert content(table) == ROWS
    assert note in table.notes


def test_escaped_quotes_are_read_and_other_backslashes_kept(tmp_path: Path) -> None:
    raw = 'text,label\n"he said \\"hi\\", C:\\new",1\n"a dog",0\n'
    table = read(tmp_path, "a.csv", raw)
    assert content(table) == [('he said "hi", C:\\new', 1), ("a dog", 0)]
    assert table.notes == ('read with \\" as an escaped quote',)
    assert read(tmp_path, "b.csv", "text,label\nC:\\new,1\na dog,0\n").notes == ()


def test_apostrophes_in_texts_are_no_quotes(tmp_path: Path) -> None:
    table = read(tmp_path, "a.csv", "text,label\n'tis,1\nit's 'so',0\nan 'apple',1\n")
    assert (table.texts.to_pylist(), table.notes) == (["'tis", "it's 'so'", "an 'apple'"], ())


@pytest.mark.parametrize(
    ("raw", "header"),
    [
        ("text|label\nthe cat, sat|1\na dog|0\n", ()),
        ("sep=;\ntext;label\nthe cat, sat;1\na dog;0\n", ()),
        ("SEP=\t\ntext\tlabel\nthe cat, sat\t1\na dog\t0\n", ()),
        ('"sep=|"\r\ntext|label\r\nthe cat, sat|1\r\na dog|0\r\n', ()),
        ("sep=;\nthe cat, sat;1\na dog;0\n", ("text", "label")),
        ("the cat, sat;1\na dog;0\n", ("text", "label")),
        ("the cat, sat\t1\na dog\t0\n", ("text", "label")),
        ("text;label, coded\nthe cat, sat;1\na dog;0\n", ()),
    ],
)
def test_the_separator_is_found(tmp_path: Path, raw: str, header: tuple[str, ...]) -> None:
    table = read(tmp_path, "a.csv", raw, Columns(header=header, label="label, coded" if "coded" in raw else ""))
    assert content(table) == ROWS
    assert "columns are separated by" in table.notes[0]
    write(tmp_path / "b.csv", raw.partition("\n")[2] if "sep=" in raw.lower() else raw)
    mark = ";" if ";" in raw else "|" if "|" in raw else "\t"
    given = Columns(header=header, separator=mark, label="label, coded" if "coded" in raw else "")
    assert content(read_table(tmp_path / "b.csv", given)) == ROWS


def test_two_possible_separators_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a dog, brown;0\na cat, black;1\n")
    told = refusal(path, Columns(header=("text", "label")))
    assert "commas and semicolons both separate 2 columns in every row; set --separator" in told
    table = read_table(path, Columns(header=("text", "label"), separator=";"))
    assert content(table) == [("a dog, brown", 0), ("a cat, black", 1)]


def test_comments_are_left_out_above_the_header_only(tmp_path: Path) -> None:
    table = read(tmp_path, "a.csv", "# exported, by x\n#\ntext,label\n#tagged,1\nb,0\n")
    assert content(table) == [("#tagged", 1), ("b", 0)]
    assert table.notes == ("left out 2 lines (1, 2) of comments above the header",)
    assert table.rows.to_pylist() == [4, 5]
    assert content(read(tmp_path, "b.csv", "#text,label\na,1\nb,0\n")) == [("a", 1), ("b", 0)]
    assert content(read(tmp_path, "c.csv", "#a,1\nb,0\n", Columns(header=("text", "label")))) == [("#a", 1), ("b", 0)]
    assert "comments only above the header" in refusal(write(tmp_path / "d.csv", "text,label\na,1\n# end\nb,0\n"))


@pytest.mark.parametrize(("mark", "shown"), [("^", "^"), ("~", "~"), ("::", ":"), ("\x01", r"$'\x01'")])
def test_a_separator_that_is_not_tried_is_named(tmp_path: Path, mark: str, shown: str) -> None:
    path = write(tmp_path / "a.csv", f"id{mark}Text{mark}label\n7{mark}a, b{mark}1\n8{mark}c{mark}0\n")
    assert refusal(path).startswith(f"a.csv, line 1: the header {f'id{mark}Text{mark}label'!r} seems to have")
    assert refusal(path).endswith(f"; set --separator {shown}")
    if len(mark) == 1:
        assert content(read_table(path, Columns(separator=mark))) == [("a, b", 1), ("c", 0)]
    alone = write(tmp_path / "b.csv", f"my{mark}name\na\nb\n")
    assert read_table(alone, Columns(text=f"my{mark}name"), labelled=False).texts.to_pylist() == ["a", "b"]


def test_repeated_byte_order_marks_are_left_out(tmp_path: Path) -> None:
    raw = "\ufeff\ufefftext,label\na,1\nb,0\n"
    for coding in ("utf-8", "utf-16-le"):
        assert content(read(tmp_path, "a.csv", raw.encode(coding))) == [("a", 1), ("b", 0)]


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_unicode_encodings_are_read(tmp_path: Path, coding: str, name: str) -> None:
    csv_text, json_text = "text,label\nca fé,1\nb,0\n", '{"text": "ca fé", "label": 1}\n{"text": "b", "label": 0}\n'
    table = read(tmp_path, name, (csv_text if name == "a.csv" else json_text).encode(coding))
    assert content(table) == [("ca fé", 1), ("b", 0)]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_files_are_read_whatever_their_name(tmp_path: Path, pack: Any) -> None:
    buffer = pa.BufferOutputStream()
    pa.parquet.write_table(pa.table({"text": [text for text, _ in ROWS], "label": [1, 0]}), buffer)
    raws = {
        "a.csv": b'text,label\n"the cat, sat",1\na dog,0\n',
        "a.jsonl": b'{"text": "the cat, sat", "label": 1}\n{"text": "a dog", "label": 0}\n',
        "a.parquet": buffer.getvalue().to_pybytes(),
    }
    for name, raw in raws.items():
        for file in (f"{name}.gz", name):
            assert content(read(tmp_path, file, pack(raw))) == ROWS
    assert "the compressed file is damaged" in refusal(write(tmp_path / "b.csv.gz", pack(raws["a.csv"])[:-9]))


def workbook(first: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(first, "x" * 9000)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["a.csv", "a.xlsx", "a.parquet", "a.jsonl"])
@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (workbook("xl/workbook.xml"), "is an Excel workbook (.xlsx); save its sheet as"),
        (workbook("content.xml"), "is a spreadsheet (.ods)"),
        (workbook("train.csv"), "is a zip archive (train.csv); extract the table first"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "is an Excel workbook (.xls)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "run git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html>\n", "is an HTML page, not a table"),
        (b"\x28\xb5\x2f\xfd\0\0", "is compressed with zstd"),
    ],
)
def test_other_kinds_of_files_are_named(tmp_path: Path, name: str, raw: bytes, words: str) -> None:
    assert words in refusal(write(tmp_path / name, raw))


def test_tables_under_the_name_of_another_format_are_named(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "a.csv")
    assert "is a Parquet file; give it the extension .parquet" in refusal(tmp_path / "a.csv")


@pytest.mark.parametrize("stream", [False, True])
def test_arrow_files_are_read_with_their_label_names(tmp_path: Path, stream: bool) -> None:
    features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}
    table = pa.table({"text": ["a", "b"], "label": [1, 0]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    opened = pa.ipc.new_stream if stream else pa.ipc.new_file
    with opened(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    found = read_table(tmp_path / "a.arrow", Columns())
    assert (content(found), found.names, found.unit) == ([("a", 1), ("b", 0)], ("no", "yes"), "row")
    assert "not readable as Arrow" in refusal(write(tmp_path / "b.arrow", b"junk"))


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        ('[{"text": "the cat, sat", "label": 1},\n {"text": "a dog", "label": 0}]', [1, 2]),
        ('[\n  {\n    "text": "the cat, sat",\n    "label": 1\n  },\n  {"text": "a dog", "label": 0}\n]\n', [2, 6]),
        ('{\n  "text": "the cat, sat",\n  "label": 1\n}\n{"label": 0,\n"text": "a dog"}\n', [1, 5]),
    ],
)
def test_lists_and_indented_json_are_read(tmp_path: Path, raw: str, lines: list[int]) -> None:
    for name in ("a.json", "a.jsonl"):
        table = read(tmp_path, name, raw)
        assert (content(table), table.rows.to_pylist(), table.unit) == (ROWS, lines, "line")


@pytest.mark.parametrize("mark", ["", ", "])
def test_objects_on_one_line_are_numbered_by_row(tmp_path: Path, mark: str) -> None:
    raw = mark.join(['{"text": "the cat, sat", "label": 1}', '{"text": "a dog", "label": 0}'])
    table = read(tmp_path, "a.json", f"[{raw}]" if mark else raw)
    assert (content(table), table.rows.to_pylist(), table.unit) == (ROWS, [1, 2], "row")
    raw = '[{"text": "a", "label": 1}, {"text": "b"}, {"text": "c", "label": null}]'
    assert "2 rows (2, 3) without a label" in refusal(write(tmp_path / "b.json", raw))
    assert "the list has no objects" in refusal(write(tmp_path / "c.json", "[ ]\n"))


def test_json_keeps_what_arrow_would_convert(tmp_path: Path) -> None:
    raw = '{"text": "2020-01-01", "label": 12345678901234567890123, "m": {"a": [1, null]}}\n{"text": "", "label": 1}\n'
    table = read_table(write(tmp_path / "a.jsonl", raw), Columns(), keep_empty=True)
    assert content(table) == [("2020-01-01", 12345678901234567890123), ("", 1)]


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("question,sentence,label", "column 'question' and column 'sentence'"),
        ("text,text_pair,label", "column 'text' and column 'text_pair'"),
        ("title,text,label", "column 'title' and column 'text'"),
        ("Subject,Body,label", "column 'Subject' and column 'Body'"),
        ("title,description,content,label", "column 'title', column 'description' and column 'content'"),
    ],
)
def test_several_text_columns_are_asked_for(tmp_path: Path, header: str, named: str) -> None:
    names = header.split(",")
    path = write(tmp_path / "a.csv", f"{header}\n{','.join(names)}\n")
    told = refusal(path)
    assert f"{named} may be the text; choose with --text-column" in told
    assert read_table(path, Columns(text=names[1])).texts.to_pylist() == [names[1]]
    joined = read_table(path, Columns(text=f"{names[1]} + {names[0]}"))
    assert (joined.texts.to_pylist(), joined.text_columns) == ([f"{names[1]} {names[0]}"], (names[1], names[0]))


def test_several_class_columns_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,topic,intent\na,b,c\n")
    assert "column 'topic' and column 'intent' may be the label; choose one with --label-column" in refusal(path)
    assert content(read_table(path, Columns(label="intent"))) == [("a", "c")]
    assert "no column 'Intent' (did you mean 'intent'?)" in refusal(path, Columns(label="Intent"))


def test_formats_are_those_of_extensions() -> None:
    assert [format_of(name) for name in ("a.CSV", "a.csv.GZ", "a.tab", "a.ndjson", "a.gz", "csv", "a.txt")] == [
        "csv", "csv", "tsv", "jsonl", "", "", "",
    ]  # fmt: skip
    assert [stem_of(name) for name in ("train.csv", "train.csv.gz", "a.b.jsonl")] == ["train", "train", "a.b"]


CELLS = st.text(st.sampled_from("ab ,;\t\"'\n\\#|"), min_size=1, max_size=6)


@given(st.lists(st.tuples(CELLS, st.sampled_from(["x", "y"])), min_size=1, max_size=6), st.sampled_from(",;\t|"))
def test_what_the_csv_module_writes_is_read_as_written_or_announced(rows: list[tuple[str, str]], mark: str) -> None:
    """Standard files of random cells: equal records without a note, or a note or refusal that says so."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=mark, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    given_options = Delimited(expected=frozenset(("text", "label")))
    records = read_delimited("a.csv", buffer.getvalue(), "csv", Delimited(separator=mark, quoting="standard"))
    assert list(zip(*records.columns, strict=True)) == rows
    try:
        detected = read_delimited("a.csv", buffer.getvalue(), "csv", given_options)
    except Exception as error:
        assert "line" in str(error)  # noqa: PT017
        return
    if list(zip(*detected.columns, strict=True)) != rows:
        assert any("read with" in note or "left out" in note for note in detected.notes)
