"""Texts without labels: the rows of a table with all its columns, or lines, from a file or from standard input."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loralet.data.column_names import TEXTS
from loralet.data.files import Columns, read_records, records_of, select, values_of
from loralet.data.readers.content import lines_of, not_utf8, read_bytes, require_table, unpacked
from loralet.data.readers.records import Column, Records, Unit, format_of
from loralet.errors import DataError

STANDARD_INPUT = "standard input"


@dataclass(frozen=True)
class TextRows:
    """Texts with their origin.

    Args:
        texts: one string per row; some may be empty.
        rows: row numbers in the source, for messages.
        columns: all columns of the table, by name; empty for lines.
        unit: what the row numbers count.
        notes: how a table was read.
    """

    texts: Sequence[str]
    rows: Sequence[int]
    columns: Mapping[str, Sequence[object]] = field(default_factory=dict)
    unit: Unit = "line"
    notes: tuple[str, ...] = ()


def read_texts(file: str, form: str, columns: Columns) -> TextRows:
    """Read texts to classify.

    Args:
        file: path of the file; ``-`` is standard input.
        form: ``csv``, ``tsv``, ``jsonl``, ``lines`` (one text per line), or ``auto``: by the extension of the file, and
            lines for other extensions and for standard input.
        columns: the text column of a table, and how it is written.

    Raises:
        DataError: see :func:`loralet.data.files.read_table`; also no texts, or lines that look like a table.
    """
    if form == "auto" and file != "-" and format_of(file):
        return _of_table(read_records(Path(file), columns), columns)
    name = STANDARD_INPUT if file == "-" else file
    raw = unpacked(name, sys.stdin.buffer.read()) if file == "-" else read_bytes(Path(file))
    if form in ("auto", "lines"):
        return _of_lines(name, raw, columns, certain=form == "lines")
    return _of_table(records_of(name, raw, form, columns), columns)


def _of_table(records: Records, columns: Columns) -> TextRows:
    table, names = select(records, columns, labelled=False, keep_empty=True), records.names
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            f"{records.source}: several columns are named {', '.join(map(repr, repeated))}; rename all but one"
        )
    cells = {name: _cells(records, name, column) for name, column in zip(names, records.columns, strict=True)}
    text = " + ".join(map(repr, table.text_columns))
    trained = not columns.text and table.text_columns == columns.trained_text
    notes = (
        f"text from column {text}{', as in training' * trained}",
        *(f"{records.source}: {note}" for note in records.notes),
    )
    return TextRows(table.texts.to_pylist(), table.rows.to_pylist(), cells, records.unit, notes)


def _cells(records: Records, name: str, column: Column) -> Sequence[object]:
    """The cells of a column.

    Raises:
        DataError: text that is not UTF-8.
    """
    values = values_of(column)
    for row, value in zip(records.rows, values, strict=True):
        if isinstance(value, str) and not_utf8(value):
            raise DataError(
                f"{records.source}: {records.unit} {row}, column {name!r} is not UTF-8 ({not_utf8(value)}); save the "
                "file as UTF-8"
            )
    return values


def _of_lines(name: str, raw: bytes, columns: Columns, certain: bool) -> TextRows:
    require_table(name, raw, "")
    texts = lines_of(name, raw)
    if columns.text:
        raise DataError(
            f"{name}: read as lines, which have no column {columns.text!r}; set --input-format csv, tsv or jsonl"
        )
    found = "" if certain else table_format(texts, columns.trained_text)
    if found:
        raise DataError(
            f"{name}, line 1: {texts[0][:60]!r} looks like the beginning of a table; set --input-format {found}, or "
            "--input-format lines to classify every line as a text"
        )
    return TextRows(texts, range(1, len(texts) + 1))


def table_format(lines: Sequence[str], trained: Sequence[str] = ()) -> str:
    """The format of the table that lines of text seem to be; empty if they seem to be texts.

    A header has a common name of a text column, or that of the training data, in one of several fields, or alone above
    other lines. JSON begins with an object, or with a list of objects.

    Args:
        lines: the lines.
        trained: names of the text columns of the training data.
    """
    first = lines[0].strip()
    if first.startswith(("{", "[{")) or first == "[":
        try:
            json.loads(first)
        except (ValueError, RecursionError):
            return "jsonl" if first in ("{", "[", "[{") and len(lines) > 1 else ""
        return "jsonl"
    for separator, form in ((",", "csv"), (";", "csv"), ("|", "csv"), ("\t", "tsv")):
        fields = [field.strip().lower() for field in _fields(first, separator)]
        if (TEXTS | {name.strip().lower() for name in trained}) & set(fields) and (len(fields) > 1 or len(lines) > 1):
            return form
    return ""


def _fields(line: str, separator: str) -> list[str]:
    """The fields of a line; none if it is no record: it has a carriage return, or a field of more than 128 kB."""
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []
