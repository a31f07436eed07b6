"""One file of texts and labels, read into Arrow columns; whatever is wrong with it is told with its row."""

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
"""Bytes that Arrow's readers take at once; one row must fit."""


@dataclass(frozen=True)
class Columns:
    """Which columns to read; an empty name is looked for among the usual ones.

    Args:
        text: column of the text.
        label: column of the label.
        header: names of the columns of a file without a header row.
    """

    text: str = ""
    label: str = ""
    header: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Texts and, where the file has them, raw labels.

    Args:
        source: the file, for messages.
        texts: one string a row, none empty.
        labels: strings or integers; None for a file without labels.
        rows: each row's number in the file: the line on which it begins, as an editor counts them (in Parquet, its place from 1).
        names: label names that the file itself carries (Parquet from a hub), by label.
        left_out: numbers of the rows whose text was empty.
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
        """The labels, of a table that was read with them."""
        assert self.labels is not None
        return RawLabels(self.source, self.labels, self.rows, self.names)


def read_table(path: Path, columns: Columns, labelled: bool = True, keep_empty: bool = False) -> Table:
    """Read one file.

    Args:
        path: .csv, .tsv, .jsonl, .json (one object a line) or .parquet.
        columns: which columns hold what.
        labelled: read the labels too, which then must be there.
        keep_empty: keep rows whose text is empty, so that what comes out lines up with the file.

    Raises:
        DataError: a missing or empty file, ragged rows, bad UTF-8, missing columns, a missing label; with file and row.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"{path}: cannot tell the format from {path.suffix or 'a name without an ending'!r}; known: {', '.join(SUFFIXES)}"
        )
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; it needs at least one row of text")
    with path.open("rb") as file:
        if suffix != ".parquet" and file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            raise DataError(f"{path}: row 1 begins as UTF-16 does; save the file as UTF-8")
    if columns.header and suffix not in (".csv", ".tsv"):
        raise DataError(
            f"{path}: --columns names the columns of a CSV or TSV file without a header; this file carries its own names"
        )
    if suffix in (".csv", ".tsv"):
        raw, rows = _read_csv(path, columns.header)
    elif suffix in (".jsonl", ".json"):
        raw, rows = _read_json(path)
    else:
        raw = _read_parquet(path)
        rows = range(1, raw.num_rows + 1)
    if raw.num_rows == 0:
        raise DataError(f"{path}: the file has no rows{' below its header' if suffix in ('.csv', '.tsv') else ''}")
    return _select(path, raw, columns, pa.array(rows, pa.int64()), labelled, keep_empty)


def _read_csv(path: Path, header: Sequence[str]) -> tuple[pa.Table, Sequence[int]]:
    delimiter = _delimiter(path, header)
    names, skipped = _first_record(path, delimiter, header)
    if header:
        if [name.strip().lower() for name in names] == [name.strip().lower() for name in header]:
            raise DataError(
                f"{path}: row 1 holds the very names that --columns gives; the file has a header row, so leave --columns out"
            )
        names, skipped = list(header), 0
    ragged: list[Any] = []

    def note(row: Any) -> str:
        ragged.append(row)
        return "skip"

    try:
        table = pyarrow.csv.read_csv(
            path,
            # Single-threaded, because only then does Arrow number the rows that it refuses.
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
            f"  - row {place} has {row.actual_columns} columns instead of {row.expected_columns}: {row.text[:60]!r}"
            for place, row in places
        ]
        listed += [f"  ... and {len(ragged) - SHOWN_ROWS} more"] if len(ragged) > SHOWN_ROWS else []
        raise DataError(
            f"{path}: {len(ragged)} row{'s do' if len(ragged) > 1 else ' does'} not fit the {len(names)} columns {', '.join(names)}; "
            f"a text with a {delimiter!r} in it must be quoted, and every quote closed:\n" + "\n".join(listed)
        )
    return table, rows


def _delimiter(path: Path, header: Sequence[str]) -> str:
    """What parts the columns: in a CSV file a tab or a semicolon too, as spreadsheets write it where the comma is for decimals."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    fields, _ = _first_record(path, ",", header)
    several = len(fields) == 1 and len(header) != 1
    return next((other for other in "\t;" if several and other in fields[0]), ",")


def _first_record(path: Path, delimiter: str, header: Sequence[str]) -> tuple[list[str], int]:
    """The fields of a file's first record, its own header unless one is given, and the number of lines down to its end."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        usual = csv.field_size_limit()
        csv.field_size_limit(
            BLOCK if header else usual
        )  # a text may be that long; a column's name is not, so its quote is open
        try:
            names: list[str] = next((record for record in reader if record), [])
        except csv.Error as error:
            raise DataError(f"{path}: row 1, the header, cannot be read ({error}); close its quotes") from error
        finally:
            csv.field_size_limit(usual)
    if not names:
        raise DataError(f"{path}: the file has only blank lines; give it a header row and rows below")
    return names, reader.line_num


def _record_lines(path: Path, delimiter: str, records: int, skipped: int) -> Sequence[int]:
    """The line on which each record below the header begins; Arrow passes over blank lines, and a quoted text may span several."""
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
        if "expected after" in str(error):  # else one field is beyond the csv module's limit
            raise DataError(
                f"{path}: the record that begins in row {line} goes on to row {reader.line_num}, where its quote closes in the middle of a text: "
                "a stray quote swallows what lies between; double it, and put the text in quotes"
            ) from error
        return plain
    return begins if len(begins) == records else plain


def _read_json(path: Path) -> tuple[pa.Table, Sequence[int]]:
    reading = pyarrow.json.ReadOptions(use_threads=True, block_size=BLOCK)
    try:
        table = pyarrow.json.read_json(path, read_options=reading)
        # Arrow takes a column of nothing but dates for timestamps; as strings they stay what was written.
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
    """The first line that is at fault, in words; Arrow counts rows within blocks."""
    kinds: dict[str, str] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but no text
        except ValueError as error:
            return f"row {number} is not valid JSON ({error}); one object a line is expected"
        if not isinstance(row, dict):
            return f"row {number} is {type(row).__name__}, not an object; one object a line is expected"
        for key, value in row.items():
            kind = type(value).__name__
            if value is not None and kinds.setdefault(key, kind) != kind:
                return f"row {number} has {kind} for {key!r} where earlier rows have {kinds[key]}; write them all alike"
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
            raise DataError(f"{path}: {raw.column_names.count(name)} columns are called {name!r}; rename all but one")
    if label_column in text_columns:
        raise DataError(f"{path}: column {label_column!r} is to be both the text and the label; name two columns")
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
            f"{path}: every text in column {' + '.join(text_columns)!r} is empty; name another with --text-column"
        )
    if labels is not None and labels.null_count:
        missing = rows.filter(pc.is_null(labels).combine_chunks()).to_pylist()
        raise DataError(
            f"{path}: {listed_rows(missing)} without a label in column {label_column!r}; label them or leave them out"
        )
    names = _label_names(raw, label_column) if label_column else ()
    return Table(str(path), texts, labels, rows, names, left_out)


def _find_text(path: Path, names: Sequence[str], given: str) -> list[str]:
    if given:
        if given not in names:
            raise DataError(f"{path}: there is no column {given!r}; the columns are {', '.join(names)}")
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
        f"{path}: no column looks like the text (looked for {', '.join((*TEXT_NAMES, *TITLE_NAMES, *DESCRIPTION_NAMES))}); "
        f"the columns are {', '.join(names)}. Name it with --text-column, or give --columns if the file has no header row"
    )


def _find_label(path: Path, names: Sequence[str], given: str) -> str:
    if given:
        if given not in names:
            raise DataError(f"{path}: there is no column {given!r}; the columns are {', '.join(names)}")
        return given
    by_lower = {name.lower().strip(): name for name in reversed(names)}
    usual = [by_lower[name] for name in LABEL_NAMES if name in by_lower]
    if usual:
        return usual[0]
    raise DataError(
        f"{path}: no column looks like the label (looked for {', '.join(LABEL_NAMES)}); the columns are {', '.join(names)}. "
        "Name it with --label-column, or give --columns if the file has no header row"
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
            f"{path}: column {name!r} holds {column.type}, not text; write it as strings, or name another column"
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
                    f"{path}: row {row}, column {name!r} is not UTF-8 (byte {fault.object[fault.start]:#x} at {fault.start}: "
                    f"{fault.object[max(0, fault.start - 20) : fault.start + 10]!r}); save the file as UTF-8"
                ) from error
        raise
    return pc.fill_null(strings, "")


def _labels(path: Path, column: pa.ChunkedArray, name: str, rows: pa.Array) -> pa.ChunkedArray:
    """Labels as integers where all are, and are written as such (01 is a name), else as strings; an empty cell is null."""
    if pa.types.is_boolean(column.type) or pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    if pa.types.is_integer(column.type):
        return column.cast(pa.int64())
    if pa.types.is_floating(column.type):
        for row, value in zip(rows.to_pylist(), column.to_pylist(), strict=True):
            if value is not None and not float(value).is_integer():
                raise DataError(
                    f"{path}: column {name!r} holds numbers with a fraction (row {row}: {value}), not class labels; "
                    "write them as whole numbers or as names"
                )
        return column.cast(pa.int64())  # pandas makes whole numbers into these as soon as one is missing
    nulls = column.is_null()
    strings = pc.utf8_trim_whitespace(_strings(path, column, name, rows))
    strings = pc.if_else(pc.or_(nulls, pc.equal(strings, "")), pa.scalar(None, pa.string()), strings)
    whole = pc.match_substring_regex(strings.drop_null(), r"^(0|-?[1-9]\d{0,17})$")
    return strings.cast(pa.int64()) if len(whole) and pc.all(whole).as_py() else strings


def _label_names(raw: pa.Table, label: str) -> tuple[str, ...]:
    """Names of a ClassLabel feature, from the ``huggingface`` key of a Parquet schema's metadata."""
    try:
        info = json.loads((raw.schema.metadata or {}).get(b"huggingface", b"{}"))
        return tuple(map(str, info["info"]["features"][label]["names"]))
    except (ValueError, KeyError, TypeError):
        return ()
