"""Texts to classify: the rows of a table with all its columns, or lines, from a file or from standard input."""

from __future__ import annotations

import codecs
import csv
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loralet.data.files import (
    DESCRIPTION_NAMES,
    SUFFIXES,
    TEXT_NAMES,
    TITLE_NAMES,
    Columns,
    read_with_columns,
)
from loralet.errors import DataError

STANDARD_INPUT = "standard input"
NAMES = frozenset((*TEXT_NAMES, *TITLE_NAMES, *DESCRIPTION_NAMES))


@dataclass(frozen=True)
class TextRows:
    """Texts with their origin.

    Args:
        texts: one string per row; some may be empty.
        rows: row numbers in the source, for messages.
        columns: all columns of the table, by name; empty for lines.
    """

    texts: Sequence[str]
    rows: Sequence[int]
    columns: Mapping[str, Sequence[object]] = field(default_factory=dict)


def read_texts(file: str, form: str, text_column: str) -> TextRows:
    """Read texts to classify.

    Args:
        file: path of the file; ``-`` is standard input.
        form: ``csv``, ``tsv``, ``jsonl``, ``lines`` (one text per line), or ``auto``: by the extension of the file, and
            lines for other extensions and for standard input.
        text_column: the text column of a table; detected by common names if empty.

    Raises:
        DataError: see :func:`loralet.data.files.read_table`; also no texts, or lines that look like a table.
    """
    suffix = Path(file).suffix.lower() if file != "-" else ""
    if form == "auto" and suffix in SUFFIXES:
        return _read_table(Path(file), text_column)
    name = STANDARD_INPUT if file == "-" else file
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    if form in ("auto", "lines"):
        return _read_lines(name, raw, text_column, certain=form == "lines")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"input.{form}"
        copy.write_bytes(raw)
        try:
            return _read_table(copy, text_column)
        except DataError as error:
            raise DataError(str(error).replace(str(copy), name)) from error


def _read_table(path: Path, text_column: str) -> TextRows:
    table, raw = read_with_columns(path, Columns(text=text_column))
    repeated = sorted({name for name in raw.column_names if raw.column_names.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: several columns are named {', '.join(map(repr, repeated))}; rename all but one")
    rows: list[int] = table.rows.to_pylist()
    columns = {name: _values(path, name, raw[name].to_pylist(), rows) for name in raw.column_names}
    return TextRows(table.texts.to_pylist(), rows, columns)


def _values(path: Path, name: str, column: Sequence[object], rows: Sequence[int]) -> list[object]:
    """The cells of a column; bytes of a CSV file as text.

    Raises:
        DataError: bytes that are not UTF-8.
    """
    values: list[object] = []
    for row, value in zip(rows, column, strict=True):
        try:
            values.append(value.decode() if isinstance(value, bytes) else value)
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: row {row}, column {name!r} is not UTF-8; save the file as UTF-8") from error
    return values


def _read_lines(name: str, raw: bytes, text_column: str, certain: bool) -> TextRows:
    raw = raw.removeprefix(codecs.BOM_UTF8)
    lines = raw.removesuffix(b"\n").split(b"\n") if raw else []
    texts: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            texts.append(line.removesuffix(b"\r").decode())
        except UnicodeDecodeError as error:
            raise DataError(f"{name}: row {number} is not UTF-8; save it as UTF-8") from error
    if not texts:
        raise DataError(f"{name}: contains no text")
    if text_column:
        raise DataError(
            f"{name}: read as lines, which have no column {text_column!r}; set --input-format csv, tsv or jsonl"
        )
    found = "" if certain else table_format(texts)
    if found:
        raise DataError(
            f"{name}, row 1: {texts[0][:60]!r} looks like the beginning of a table; set --input-format {found}, or "
            "--input-format lines to classify every line as a text"
        )
    return TextRows(texts, range(1, len(texts) + 1))


def table_format(lines: Sequence[str]) -> str:
    """The format of the table that lines of text seem to be; empty if they seem to be texts.

    A header has a common name of a text column in one of several fields, or alone above other lines. The first line of
    JSON Lines is a JSON object.
    """
    first = lines[0].strip()
    if first.startswith("{"):
        try:
            json.loads(first)
        except (ValueError, RecursionError):
            return ""
        return "jsonl"
    for separator, form in ((",", "csv"), (";", "csv"), ("\t", "tsv")):
        fields = [field.strip().lower() for field in next(csv.reader([first], delimiter=separator), [])]
        if NAMES & set(fields) and (len(fields) > 1 or len(lines) > 1):
            return form
    return ""
