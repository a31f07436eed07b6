"""Read a file of texts and labels into Arrow columns. Errors name the file and the row."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from loralet.errors import SHOWN_ROWS, DataError, listed_rows
from loralet.tasks.base import RawLabels

TEXT_NAMES = ("text", "sentence", "content", "review", "document", "body", "message", "query")
TITLE_NAMES = ("title", "headline", "subject")
DESCRIPTION_NAMES = ("description", "abstract", "summary")
LABEL_NAMES = ("label", "labels", "class", "category", "target", "topic", "class index", "label_text")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
BLOCK = 64 << 20
"""Block size of Arrow's readers in bytes. A row must fit into a block."""


@dataclass(frozen=True)
class Columns:
    """Which columns to read. An empty name selects a column by its usual names.

    Args:
        text: name of the text column.
        label: name of the label column.
        header: column names of a file without a header row.
    """

    text: str = ""
    label: str = ""
    header: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Texts and raw labels of a file.

    Args:
        source: the file, for messages.
        texts: one string per row; not empty unless ``keep_empty`` was set.
        labels: strings or integers; None if labels were not read.
        rows: row numbers in the file: the line on which the row begins, from 1 (in Parquet: the row index, from 1).
        names: label names stored in the file (Parquet from a hub), by label.
        left_out: row numbers of the rows left out because their text is empty.
    """

    source: str
    texts: pa.ChunkedArray
    labels: pa.ChunkedArray | None
    rows: pa.Array
    names: tuple[str, ...] = ()
    left_out: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def raw_labels(self) -> RawLabels:
        """The labels of a table that was read with labels."""
        assert self.labels is not None
        return RawLabels(self.source, self.labels, self.rows, self.names)


def read_table(path: Path, columns: Columns, labelled: bool = True, keep_empty: bool = False) -> Table:
    """Read one file.

    Args:
        path: .csv, .tsv, .jsonl, .json (one object per line) or .parquet.
        columns: the text and label columns.
        labelled: also read the labels, which must exist.
        keep_empty: keep rows with an empty text, so that the result lines up with the file.

    Raises:
        DataError: a missing or empty file, ragged rows, invalid UTF-8, missing columns, or a missing label. The message
            names file and row.
    """
    raw, rows = _read_raw(path, columns)
    return _select(path, raw, columns, rows, labelled, keep_empty)


def read_with_columns(path: Path, columns: Columns) -> tuple[Table, pa.Table]:
    """:func:`read_table` with empty texts and without labels, and all columns of the file, those of CSV as bytes."""
    raw, rows = _read_raw(path, columns)
    return _select(path, raw, columns, rows, labelled=False, keep_empty=True), raw


def _read_raw(path: Path, columns: Columns) -> tuple[pa.Table, pa.Array]:
    """All columns of a file, and the row numbers."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: unknown file extension {path.suffix!r}; known: {', '.join(SUFFIXES)}")
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; it needs at least one row of text")
    with path.open("rb") as file:
        if suffix != ".parquet" and file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{path}: the file is UTF-16; save it as UTF-8")
    if columns.header and suffix not in (".csv", ".tsv"):
        raise DataError(f"{path}: --columns is only for CSV and TSV files without a header row; remove it")
    if suffix in (".csv", ".tsv"):
        raw, rows = _read_csv(path, columns.header)
    elif suffix in (".jsonl", ".json"):
        raw, rows = _read_json(path)
    else:
        raw = _read_parquet(path)
        rows = range(1, raw.num_rows + 1)
    if raw.num_rows == 0:
        raise DataError(f"{path}: the file has no rows{' below its header' if suffix in ('.csv', '.tsv') else ''}")
    return raw, pa.array(rows, pa.int64())


def _read_csv(path: Path, header: Sequence[str]) -> tuple[pa.Table, Sequence[int]]:
    delimiter = _delimiter(path, header)
    names, skipped = _first_record(path, delimiter, header)
    if header:
        if [name.strip().lower() for name in names] == [name.strip().lower() for name in header]:
            raise DataError(f"{path}, row 1: a header row with the names given in --columns; remove --columns")
        names, skipped = list(header), 0
    ragged: list[Any] = []

    def note(row: Any) -> str:
        ragged.append(row)
        return "skip"

    try:
        table = pyarrow.csv.read_csv(
            path,
            # Arrow numbers the rows that it rejects only when it runs on one thread.
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, block_size=BLOCK, column_names=names, skip_rows=skipped
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: pa.binary() for name in names}, strings_can_be_null=False, check_utf8=False
            ),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error) or "Could not skip" in str(error):
            raise DataError(f"{path}: the file has no rows below its header") from error
        raise DataError(f"{path}: not readable as {path.suffix[1:].upper()} ({error})") from error
    rows = _record_lines(path, delimiter, table.num_rows + len(ragged), skipped)
    if ragged:
        places = [(rows[row.number - skipped - 1], row) for row in ragged[:SHOWN_ROWS]]
        listed = [
            f"  - row {place}: {row.actual_columns} columns, expected {row.expected_columns}: {row.text[:60]!r}"
            for place, row in places
        ]
        listed += [f"  ... and {len(ragged) - SHOWN_ROWS} more"] if len(ragged) > SHOWN_ROWS else []
        count = f"{len(ragged)} row{'s do' if len(ragged) > 1 else ' does'}"
        raise DataError(
            f"{path}: {count} not have {len(names)} columns ({', '.join(names)}). "
            f"Quote texts that contain {delimiter!r}, and close every quote:\n" + "\n".join(listed)
        )
    return table, rows


def _delimiter(path: Path, header: Sequence[str]) -> str:
    """The column separator: a tab in TSV; a comma, tab or semicolon in CSV.

    Spreadsheets write semicolons where the comma is the decimal separator.
    """
    if path.suffix.lower() == ".tsv":
        return "\t"
    fields, _ = _first_record(path, ",", header)
    several = len(fields) == 1 and len(header) != 1
    return next((other for other in "\t;" if several and other in fields[0]), ",")


def _first_record(path: Path, delimiter: str, header: Sequence[str]) -> tuple[list[str], int]:
    """Fields of the first record (the header row, unless ``header`` is given) and the number of its last line."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        usual = csv.field_size_limit()
        # A text may be this long. A column name is not: its quote was not closed.
        csv.field_size_limit(BLOCK if header else usual)
        try:
            names: list[str] = next((record for record in reader if record), [])
        except csv.Error as error:
            raise DataError(f"{path}, row 1: the header cannot be read ({error}); close its quotes") from error
        finally:
            csv.field_size_limit(usual)
    if not names:
        raise DataError(f"{path}: the file has only blank lines; add a header row and data rows")
    return names, reader.line_num


def _record_lines(path: Path, delimiter: str, records: int, skipped: int) -> Sequence[int]:
    """The line on which each record below the header begins.

    It is not the record's index, because Arrow skips blank lines and a quoted text may span lines.
    """
    plain = range(skipped + 1, skipped + 1 + records)
    with path.open("rb") as raw:
        breaks, last = 0, b""
        while block := raw.read(1 << 20):
            breaks, last = breaks + block.count(b"\n"), block
    if breaks + (not last.endswith(b"\n")) == skipped + records:
        return plain
    begins, line = [], 1
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            for record in reader:
                if record and line > skipped:
                    begins.append(line)
                line = reader.line_num + 1
    except csv.Error as error:
        if "expected after" in str(error):  # otherwise a field exceeds the limit of the csv module
            raise DataError(
                f"{path}, row {line}: a stray quote; the quoted text ends inside a field in row {reader.line_num}. "
                'Write quotes inside a text twice (""), and put the text in quotes'
            ) from error
        return plain
    return begins if len(begins) == records else plain


def _read_json(path: Path) -> tuple[pa.Table, Sequence[int]]:
    reading = pyarrow.json.ReadOptions(use_threads=True, block_size=BLOCK)
    try:
        table = pyarrow.json.read_json(path, read_options=reading)
        # Arrow parses a column of dates as timestamps. Read as strings, they stay as written.
        dates = [pa.field(f.name, pa.string()) for f in table.schema if pa.types.is_timestamp(f.type)]
        if dates:
            parsing = pyarrow.json.ParseOptions(explicit_schema=pa.schema(dates))
            table = pyarrow.json.read_json(path, read_options=reading, parse_options=parsing)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: {_json_fault(path) or error}") from error
    with path.open("rb") as file:
        lines = [number for number, line in enumerate(file, 1) if line.strip()]
    return table, lines if len(lines) == table.num_rows else range(1, table.num_rows + 1)


def _json_fault(path: Path) -> str:
    """Describe the first invalid line. Arrow's messages cannot be used: it counts rows within blocks."""
    kinds: dict[str, str] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()  # a lone surrogate is valid JSON, but not valid text
        except ValueError as error:
            return f"row {number} is not valid JSON ({error}); write one object per line"
        if not isinstance(row, dict):
            return f"row {number} is {type(row).__name__}, not an object; write one object per line"
        for key, value in row.items():
            kind = type(value).__name__
            if value is not None and kinds.setdefault(key, kind) != kind:
                return f"row {number}: {key!r} is {kind}, but {kinds[key]} in earlier rows; use one type"
    return ""


def _read_parquet(path: Path) -> pa.Table:
    try:
        return pyarrow.parquet.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not readable as Parquet ({error}); write or download it again") from error


def _select(path: Path, raw: pa.Table, columns: Columns, rows: pa.Array, labelled: bool, keep_empty: bool) -> Table:
    text_columns = _find_text(path, raw.column_names, columns.text)
    label_column = _find_label(path, raw.column_names, columns.label) if labelled else None
    for name in (*text_columns, label_column):
        if raw.column_names.count(name) > 1:
            raise DataError(f"{path}: {raw.column_names.count(name)} columns are named {name!r}; rename all but one")
    if label_column in text_columns:
        raise DataError(f"{path}: column {label_column!r} is both the text and the label; choose two columns")
    parts = [_strings(path, raw[name], name, rows) for name in text_columns]
    texts = parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, " ")
    labels = None if label_column is None else _labels(path, raw[label_column], label_column, rows)
    full = pc.or_(keep_empty, pc.not_equal(pc.utf8_trim_whitespace(texts), ""))
    left_out = tuple(rows.filter(pc.invert(full).combine_chunks()).to_pylist())
    if left_out:
        texts, rows = texts.filter(full), rows.filter(full.combine_chunks())
        labels = None if labels is None else labels.filter(full)
    if len(texts) == 0:
        raise DataError(
            f"{path}: every text in column {' + '.join(text_columns)!r} is empty; choose another with --text-column"
        )
    if labels is not None and labels.null_count:
        missing = rows.filter(pc.is_null(labels).combine_chunks()).to_pylist()
        raise DataError(
            f"{path}: {listed_rows(missing)} without a label in column {label_column!r}; add labels or remove the rows"
        )
    names = _label_names(raw, label_column) if label_column else ()
    return Table(str(path), texts, labels, rows, names, left_out)


def _find_text(path: Path, names: Sequence[str], given: str) -> list[str]:
    if given:
        if given not in names:
            raise DataError(f"{path}: no column {given!r}; the columns are {', '.join(names)}")
        return [given]
    by_lower = {name.lower().strip(): name for name in reversed(names)}
    usual = [by_lower[name] for name in TEXT_NAMES if name in by_lower]
    if usual:
        return usual[:1]
    titles = [by_lower[name] for name in TITLE_NAMES if name in by_lower][:1]
    bodies = [by_lower[name] for name in DESCRIPTION_NAMES if name in by_lower][:1]
    if titles or bodies:
        return titles + bodies
    raise DataError(
        f"{path}: no text column found (known names: {', '.join((*TEXT_NAMES, *TITLE_NAMES, *DESCRIPTION_NAMES))}); "
        f"the columns are {', '.join(names)}. "
        "Name it with --text-column, or use --columns if the file has no header row"
    )


def _find_label(path: Path, names: Sequence[str], given: str) -> str:
    if given:
        if given not in names:
            raise DataError(f"{path}: no column {given!r}; the columns are {', '.join(names)}")
        return given
    by_lower = {name.lower().strip(): name for name in reversed(names)}
    usual = [by_lower[name] for name in LABEL_NAMES if name in by_lower]
    if usual:
        return usual[0]
    raise DataError(
        f"{path}: no label column found (known names: {', '.join(LABEL_NAMES)}); "
        f"the columns are {', '.join(names)}. "
        "Name it with --label-column, or use --columns if the file has no header row"
    )


def _strings(path: Path, column: pa.ChunkedArray, name: str, rows: pa.Array) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    if not (
        pa.types.is_binary(column.type) or pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    ):
        raise DataError(
            f"{path}: column {name!r} has type {column.type}, not text; write it as strings, or choose another column"
        )
    binary = column.cast(pa.binary()) if pa.types.is_string(column.type) else column.cast(pa.large_binary())
    try:
        strings = binary.cast(pa.string())
    except pa.ArrowInvalid as error:
        for row, value in zip(rows.to_pylist(), binary, strict=True):
            try:
                (value.as_py() or b"").decode()
            except UnicodeDecodeError as fault:
                raise DataError(
                    f"{path}: row {row}, column {name!r} is not UTF-8 "
                    f"(byte {fault.object[fault.start]:#x} at {fault.start}: "
                    f"{fault.object[max(0, fault.start - 20) : fault.start + 10]!r}); save the file as UTF-8"
                ) from error
        raise
    return pc.fill_null(strings, "")


def _labels(path: Path, column: pa.ChunkedArray, name: str, rows: pa.Array) -> pa.ChunkedArray:
    """Labels as integers if all are plain integers (01 is a name), else as strings. Empty cells are null."""
    if pa.types.is_boolean(column.type) or pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64())
    if pa.types.is_floating(column.type):
        for row, value in zip(rows.to_pylist(), column.to_pylist(), strict=True):
            if value is not None and not float(value).is_integer():
                raise DataError(
                    f"{path}, row {row}: label {value} in column {name!r} is not an integer; "
                    "write class labels as integers or names"
                )
        return column.cast(pa.int64())  # pandas writes integers as floats if one is missing
    nulls = column.is_null()
    strings = pc.utf8_trim_whitespace(_strings(path, column, name, rows))
    strings = pc.if_else(pc.or_(nulls, pc.equal(strings, "")), pa.scalar(None, pa.string()), strings)
    whole = pc.match_substring_regex(strings.drop_null(), r"^(0|-?[1-9]\d{0,17})$")
    return strings.cast(pa.int64()) if len(whole) and pc.all(whole).as_py() else strings


def _label_names(raw: pa.Table, label: str) -> tuple[str, ...]:
    """Names of a ClassLabel feature, from the ``huggingface`` key of the Parquet schema metadata."""
    try:
        info = json.loads((raw.schema.metadata or {}).get(b"huggingface", b"{}"))
        return tuple(map(str, info["info"]["features"][label]["names"]))
    except (ValueError, KeyError, TypeError):
        return ()
