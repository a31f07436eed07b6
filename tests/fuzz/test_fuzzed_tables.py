"""Generated tables: every file is read or refused with a message, and a plain table is read as written."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
from bounds import bounded_memory, fuzzed, outcome
from changes import changed_bytes, changed_json, json_bytes, mostly
from hypothesis import given
from hypothesis import strategies as st

from loralet.data.check import check_data
from loralet.data.files import Columns
from loralet.data.sources import load_dataset
from loralet.data.texts import read_texts

HEADERS = ("text", "label", "sentence", "category", "id", "Text ", "# text", "", "1", "label", "title")
WORDS = ("good", "bad", "1", "0", "1.0", "True", "a|b", 'News, "quoted"', "it's", "", " ", "x" * 40, "東京", "e\u0301")
SEPARATORS = (",", ";", "\t", "|")
FORMATS = ("csv", "tsv", "jsonl", "json", "txt", "csv.gz", "tab", "ndjson.xz")
BINARY = ("parquet", "arrow", "feather")

cells = st.sampled_from(WORDS) | st.text(max_size=20)
usual = st.just(Columns())
unusual = st.builds(
    Columns,
    text=st.sampled_from(["", "", "", "text", "id+text", "absent", "+", "text+text"]),
    label=st.sampled_from(["", "", "label", "text", "absent"]),
    header=st.sampled_from([(), (), (), ("text", "label"), ("a", "text", "label"), ("text",)]),
    separator=st.sampled_from(["", "", "", *SEPARATORS, " ", "x", "€"]),
    quoting=st.sampled_from(["auto", "standard", "none"]),
)
columns = mostly(usual, unusual)
compressions = mostly(st.just(bytes), st.sampled_from([gzip.compress, bz2.compress, lzma.compress]), 9)


@st.composite
def rows(draw: st.DrawFn) -> list[list[str]]:
    """A header and rows, most of the same width."""
    width = draw(st.sampled_from([2, 3, 2, 4, 1]))
    header = draw(st.lists(st.sampled_from(HEADERS), min_size=width, max_size=width))
    wide = st.lists(cells, min_size=width, max_size=width)
    if width > 1 and draw(st.integers(0, 4)) < 4:
        header = ["text", "label", "id", "place"][:width]
        few = st.sampled_from(
            draw(st.sampled_from([("good", "bad"), ("1", "0", "1.0"), ("True", "false"), ("a|b", "a")]))
        )
        usual_row = st.tuples(cells, few, *[cells] * (width - 2)).map(list)
        wide = usual_row if draw(st.integers(0, 3)) < 3 else mostly(usual_row, wide, 9)
    kinds = wide | st.lists(cells, max_size=5) if draw(st.integers(0, 4)) == 4 else wide
    body = draw(st.lists(kinds, min_size=3, max_size=12))
    return [header, *body]


@st.composite
def delimited(draw: st.DrawFn) -> bytes:
    """A table as programs write it: quoted by the csv module, or joined without quotes."""
    table, separator = draw(rows()), draw(st.sampled_from(SEPARATORS))
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"]))
    if draw(st.booleans()):
        out = io.StringIO()
        try:
            csv.writer(out, delimiter=separator, lineterminator=end, escapechar=None).writerows(table)
        except csv.Error:  # such as a single empty field, or a NUL
            return draw(st.binary(max_size=200))
        text = out.getvalue()
    else:
        text = "".join(separator.join(row) + end for row in table)
    coding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "latin-1"]))
    return text.encode(coding, errors="replace" if coding == "latin-1" else "surrogatepass")


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """JSON lines, indented objects or a list, with missing and further keys and values of all types."""
    header, *body = draw(rows())
    listed: Any = [dict(zip(header, row, strict=False)) for row in body]
    if draw(st.booleans()):
        listed = draw(mostly(st.just(listed), changed_json(listed), 1))
    if not isinstance(listed, list) or draw(st.booleans()):
        return json.dumps(listed, indent=draw(st.sampled_from([None, 2]))).encode()
    return b"\n".join(map(json_bytes, listed))


def in_file(content: st.SearchStrategy[bytes], *forms: str) -> st.SearchStrategy[tuple[str, bytes]]:
    """Content, with or without changed bytes, and the extension of its file, which seldom fits another format."""
    changed = content | content.flatmap(changed_bytes)
    return st.tuples(mostly(st.sampled_from(forms), st.sampled_from(FORMATS), 9), changed)


tables = in_file(delimited(), "csv", "tsv") | in_file(objects(), "jsonl")
files = mostly(tables, in_file(st.binary(max_size=300), *FORMATS), 9)


def used(path: Path, form: str, given_columns: Columns) -> None:
    """Read a file as texts to classify and as training data, and check the data."""
    outcome(read_texts, str(path), form, given_columns)
    dataset = outcome(load_dataset, str(path), given_columns)
    if dataset is not None:
        checked = outcome(check_data, dataset)
        assert checked is not None
        assert len(dataset.train.texts) == len(dataset.train.targets) > 0
        for line in (*checked.lines, *dataset.notes):
            assert line


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


def test_any_text_file_is_read_or_refused(place: Path) -> None:
    @fuzzed(50)
    @given(
        files,
        compressions,
        mostly(st.just("auto"), st.sampled_from(["csv", "tsv", "jsonl", "lines"]), 9),
        columns,
    )
    def case(file: tuple[str, bytes], compress: Any, asked: str, given_columns: Columns) -> None:
        form, content = file
        path = place / f"table.{form}"
        path.write_bytes(compress(content))
        used(path, asked, given_columns)

    with bounded_memory():
        case()


@st.composite
def arrow_tables(draw: st.DrawFn) -> tuple[str, bytes]:
    """Parquet and Arrow files of columns of many types, and with changed bytes."""
    count = draw(st.integers(0, 6))
    kinds: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
        (pa.string(), cells.filter(_valid)),
        (pa.large_string(), cells.filter(_valid)),
        (pa.int64(), st.integers(-5, 5)),
        (pa.float32(), st.floats(width=32)),
        (pa.bool_(), st.booleans()),
        (pa.list_(pa.int8()), st.lists(st.integers(0, 3), max_size=3)),
        (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["a", "b"])),
        (pa.decimal128(5, 1), st.decimals(-9, 9, places=1)),
        (pa.timestamp("s"), st.integers(0, 10**9)),
        (pa.null(), st.none()),
    ]
    names = draw(st.sampled_from([("text", "label"), ("text", "label", "id"), ("text", "text"), ("label",)]))
    made = []
    for _ in names:
        kind, of = draw(st.sampled_from(kinds if draw(st.integers(0, 2)) == 0 else kinds[:3]))
        made.append(pa.array(draw(st.lists(mostly(of, st.none(), 9), min_size=count, max_size=count)), kind))
    features = draw(st.sampled_from(["", "{", "[]", '{"info": {"features": {"label": {"names": ["a", 1]}}}}']))
    table = pa.Table.from_arrays(made, names=list(names)).replace_schema_metadata({"huggingface": features})
    form = draw(st.sampled_from(BINARY))
    out = io.BytesIO()
    if form == "parquet":
        pyarrow.parquet.write_table(table, out)
    else:
        kind = draw(st.sampled_from([pyarrow.ipc.new_file, pyarrow.ipc.new_stream]))
        with kind(out, table.schema) as writer:
            writer.write_table(table)
    content = out.getvalue()
    return form, draw(st.just(content) | changed_bytes(content) | changed_bytes(content))


def _valid(text: str) -> bool:
    return text.isprintable()


def test_any_parquet_or_arrow_file_is_read_or_refused(place: Path) -> None:
    @fuzzed(40)
    @given(arrow_tables(), columns)
    def case(table: tuple[str, bytes], given_columns: Columns) -> None:
        form, content = table
        path = place / f"table.{form}"
        path.write_bytes(content)
        used(path, "auto", given_columns)

    with bounded_memory():
        case()
