"""Read the texts and labels of a file. Errors name the file and the line (in Parquet and Arrow: the row)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from loralet.data.column_names import LABELS, TEXTS, find_label, find_text
from loralet.data.label_values import LabelError, named_labels
from loralet.data.readers.columnar import read_columnar
from loralet.data.readers.content import ARCHIVE, UNPACK, not_utf8, read_bytes, require_table, text_of, unpacked
from loralet.data.readers.delimited import read_delimited
from loralet.data.readers.json_rows import read_json
from loralet.data.readers.records import KNOWN, Column, Delimited, Quoting, Records, Unit, format_of
from loralet.errors import DataError, listed_rows
from loralet.tasks.base import RawLabels
from loralet.tasks.labels import LabelType

STRINGS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
)
"""Tests for the types of text columns in Arrow."""
HEAD = 4096
"""Bytes by which a file's kind is recognised."""


@dataclass(frozen=True)
class Columns:
    """Which columns to read, and how a text file separates them. Empty fields are detected.

    Args:
        text: name of the text column, or names joined by +.
        label: name of the label column.
        header: column names of a file without a header row.
        separator: character between columns.
        quoting: see :class:`loralet.data.readers.records.Delimited`.
        trained_text: text columns that a classifier was trained on; used if the table has all of them and ``text`` is
            empty.
        trained_label: its label column; likewise.
    """

    text: str = ""
    label: str = ""
    header: tuple[str, ...] = ()
    separator: str = ""
    quoting: Quoting = "auto"
    trained_text: tuple[str, ...] = ()
    trained_label: str = ""

    @property
    def known(self) -> tuple[str, ...]:
        """The names of columns that the table is known or likely to have."""
        return tuple(name for name in (self.text, self.label, *self.trained_text, self.trained_label) if name)

    def text_of(self, source: str, names: Sequence[str]) -> list[str]:
        """The text columns among all columns; errors as for :func:`find_text`."""
        if not self.text and self.trained_text and set(self.trained_text) <= set(names):
            return list(self.trained_text)
        return find_text(source, names, self.text)

    def label_of(self, source: str, names: Sequence[str]) -> str:
        """The label column among all columns; errors as for :func:`find_label`."""
        usual = self.trained_label if self.trained_label in names else ""
        return find_label(source, names, self.label or usual)


@dataclass(frozen=True)
class Table:
    """Texts and raw labels of a file.

    Args:
        source: the file, for messages.
        texts: one string per row; not empty unless ``keep_empty`` was set.
        labels: canonical label names (:mod:`loralet.data.label_values`); None if labels were not read.
        label_type: the type of the labels in the file.
        rows: number of each row in the file, from 1.
        unit: what the numbers count: the ``line`` on which a row begins, or the ``row`` of Parquet and Arrow.
        text_columns, label_column: names of the columns that were read.
        names: label names stored in the file (Parquet from a hub), by label.
        left_out: numbers of the rows left out because their text is empty.
        notes: how the file was read, where that is not obvious.
    """

    source: str
    texts: pa.ChunkedArray
    labels: pa.ChunkedArray | None
    rows: pa.Array
    unit: Unit = "line"
    label_type: LabelType = "str"
    text_columns: tuple[str, ...] = ()
    label_column: str = ""
    names: tuple[str, ...] = ()
    left_out: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def raw_labels(self) -> RawLabels:
        """The labels of a table that was read with labels."""
        assert self.labels is not None
        return RawLabels(self.source, self.labels, self.rows, self.names, self.label_type, self.unit)


def read_table(path: Path, columns: Columns, labelled: bool = True, keep_empty: bool = False) -> Table:
    """Read one file.

    Args:
        path: a CSV, TSV, JSON, Parquet or Arrow file, by its extension; it may be compressed.
        columns: the text and label columns.
        labelled: also read the labels, which must exist.
        keep_empty: keep rows with an empty text, so that the result lines up with the file.

    Raises:
        DataError: a missing or empty file, another kind of file, lines that do not have all columns, text that is not
            UTF-8, missing or ambiguous columns, or a missing label. The message names the file and the lines.
    """
    return select(read_records(path, columns), columns, labelled, keep_empty)


def read_records(path: Path, columns: Columns) -> Records:
    """All columns of a file; raises as :func:`read_table`."""
    form, source = format_of(path.name), str(path)
    if not path.exists():
        raise DataError(f"{path}: no such file")
    with path.open("rb") as file:
        head = file.read(HEAD)
        head += file.read() if head.startswith(ARCHIVE) else b""  # its table of contents is at the end
    if not form:
        require_table(source, head, "")
        raise DataError(f"{path}: unknown file extension {path.suffix!r}; known: {KNOWN}")
    if form in ("parquet", "arrow") and head and not any(head.startswith(mark) for mark, _ in UNPACK):
        _require_no_header(source, columns)
        require_table(source, head, form)
        return _with_rows(read_columnar(source, path, form))
    return records_of(source, read_bytes(path), form, columns)


def records_of(source: str, raw: bytes, form: str, columns: Columns) -> Records:
    """All columns of a table in memory; raises as :func:`read_table`.

    Args:
        source: where it comes from, for messages.
        raw: its bytes.
        form: ``csv``, ``tsv``, ``jsonl``, ``parquet`` or ``arrow``.
        columns: how it is written.
    """
    raw = unpacked(source, raw)
    require_table(source, raw, form)
    if form in ("csv", "tsv"):
        expected = TEXTS | LABELS | {name.strip().lower() for name in columns.known}
        given = Delimited(columns.header, columns.separator, columns.quoting, expected)
        return read_delimited(source, text_of(source, raw), form, given)
    _require_no_header(source, columns)
    if form == "jsonl":
        return read_json(source, text_of(source, raw))
    return _with_rows(read_columnar(source, raw, form))


def _require_no_header(source: str, columns: Columns) -> None:
    if columns.header:
        raise DataError(f"{source}: --columns is only for CSV and TSV files without a header row; remove it")


def _with_rows(records: Records) -> Records:
    if not records.rows:
        raise DataError(f"{records.source}: the file has no rows")
    return records


def select(records: Records, columns: Columns, labelled: bool, keep_empty: bool) -> Table:
    """The texts and labels of records; arguments and errors as for :func:`read_table`."""
    source, names = records.source, records.names
    text_columns = columns.text_of(source, names)
    label_column = columns.label_of(source, names) if labelled else None
    for name in (*text_columns, *([] if label_column is None else [label_column])):
        if names.count(name) > 1:
            raise DataError(f"{source}: {names.count(name)} columns are named {name!r}; rename all but one")
    if label_column in text_columns:
        raise DataError(f"{source}: column {label_column!r} is both the text and the label; choose two columns")
    parts = [_texts(records, name) for name in text_columns]
    texts = parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, " ")
    labels: pa.ChunkedArray | None = None
    kind: LabelType = "str"
    if label_column is not None:
        labels, kind = _labels(records, label_column)
    rows = pa.array(records.rows, pa.int64())
    full = pc.or_(keep_empty, pc.not_equal(pc.utf8_trim_whitespace(texts), ""))
    left_out = tuple(rows.filter(pc.invert(full).combine_chunks()).to_pylist())
    if left_out:
        texts, rows = texts.filter(full), rows.filter(full.combine_chunks())
        labels = None if labels is None else labels.filter(full)
    if len(texts) == 0:
        raise DataError(
            f"{source}: every text in column {' + '.join(text_columns)!r} is empty; choose another with --text-column"
        )
    if labels is not None and labels.null_count:
        missing = rows.filter(pc.is_null(labels).combine_chunks()).to_pylist()
        raise DataError(
            f"{source}: {listed_rows(missing, records.unit)} without a label in column {label_column!r}; add labels or "
            "remove the rows"
        )
    return Table(
        source,
        texts,
        labels,
        rows,
        records.unit,
        kind,
        tuple(text_columns),
        label_column or "",
        records.label_names.get(label_column or "", ()),
        left_out,
        records.notes,
    )


def values_of(column: Column) -> Sequence[object]:
    """The values of a column as Python objects. Text that is not UTF-8 has its bytes as lone surrogates."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type) and column.type != pa.float64():
        # The shortest decimal of a narrower float, as 0.1 is not the double nearest to 0.1.
        return [None if value is None else float(value) for value in column.cast(pa.string()).to_pylist()]
    if any(kind(column.type) for kind in STRINGS):
        column = column.cast(pa.string() if pa.types.is_string_view(column.type) else column.type)
        return [None if value is None else _string(value) for value in column.cast(pa.large_binary()).to_pylist()]
    return [_plain(value) for value in column.to_pylist()]


def _plain(value: object) -> object:
    """A decimal number as an integer or a float."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def _texts(records: Records, name: str) -> pa.ChunkedArray:
    """A column as strings, with missing ones empty."""
    column = records.column(name)
    if isinstance(column, pa.ChunkedArray):
        made = _arrow_texts(column)
        if made is not None:
            return made
    values = values_of(column)
    for row, value in zip(records.rows, values, strict=True):
        if value is not None and not isinstance(value, (str, bytes)) and value == value:  # NaN is a missing text
            raise DataError(
                f"{records.source}: {records.unit} {row}, column {name!r} is {type(value).__name__}, not text; write "
                "it as strings, or choose another column"
            )
    strings = [_string(value) for value in values]
    try:
        return _chunked(pa.array(strings, pa.string()))
    except UnicodeEncodeError:
        row, fault = next((row, text) for row, text in zip(records.rows, map(not_utf8, strings), strict=True) if text)
        raise DataError(
            f"{records.source}: {records.unit} {row}, column {name!r} is not UTF-8 ({fault}); save the file as UTF-8"
        ) from None


def _arrow_texts(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """An Arrow column of strings, whichever kind; None for other types and for bytes that are not UTF-8."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not any(kind(column.type) for kind in (*STRINGS, pa.types.is_null)):
        return None
    try:
        strings = column.cast(pa.string())
        strings.validate(full=True)
    except pa.ArrowInvalid:
        return None
    return pc.fill_null(strings, "")


def _string(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    return value if isinstance(value, str) else ""


def _chunked(made: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """An array in the form of a table's column. Arrow makes several chunks of more than 2 GB itself."""
    return made if isinstance(made, pa.ChunkedArray) else pa.chunked_array([made])


def _labels(records: Records, name: str) -> tuple[pa.ChunkedArray, LabelType]:
    """Canonical names of a label column, and its type."""
    values = values_of(records.column(name))
    where = f"{records.source}: "
    for row, value in zip(records.rows, values, strict=True):
        if isinstance(value, str) and not_utf8(value):
            raise DataError(
                f"{where}{records.unit} {row}, column {name!r} is not UTF-8 ({not_utf8(value)}); save the file as UTF-8"
            )
    try:
        names, kind = named_labels(values, records.typed)
    except LabelError as error:
        where += "" if error.index is None else f"{records.unit} {records.rows[error.index]}, "
        raise DataError(f"{where}column {name!r}: {error}") from error
    return _chunked(pa.array(names, pa.string())), kind
