"""Read CSV and TSV files: find separator and quoting, and refuse what would be read otherwise than written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from loralet.data.readers.dialects import Dialect, Reading, faults, physical_lines, read_in, swallowed
from loralet.data.readers.records import Delimited, Records
from loralet.errors import SHOWN_ROWS, DataError, listed_rows

SEPARATORS = {"csv": ",;\t|", "tsv": "\t,;|"}
"""Separators to try, the usual one of the format first. Spreadsheets write semicolons where the comma is decimal."""
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
DECLARED = re.compile(r""""?sep=([^'"\0\r\n])"?\s*""", re.IGNORECASE)
"""The first line with which spreadsheets declare the separator."""
RARE = "^~:§¦\x01\x1c\x1d\x1e\x1f"
"""Separators that are not tried, but named if the header seems to have one."""
HEAD = 20
"""Lines that are read to find the header."""


@dataclass(frozen=True)
class _Lines:
    """The lines of a file, and what precedes its table.

    Args:
        source: the file, for messages.
        form: ``csv`` or ``tsv``.
        lines: all lines.
        first: index of the first line of the table.
        given: the options.
    """

    source: str
    form: str
    lines: list[str]
    first: int
    given: Delimited

    @property
    def usual(self) -> str:
        """The usual separator of the format."""
        return SEPARATORS[self.form][0]


def read_delimited(source: str, text: str, form: str, given: Delimited) -> Records:
    """Read the records of a CSV or TSV file.

    Args:
        source: the file, for messages.
        text: its content.
        form: ``csv`` or ``tsv``.
        given: header, separator and quoting, as far as they are known.

    Raises:
        DataError: no rows, rows with another number of columns, quotes that do not fit, or several possible readings.
            The message lists lines.
    """
    lines = physical_lines(text)
    whole, notes = _without_preamble(_Lines(source, form, lines, 0, given))
    separator = whole.given.separator or _separator(whole)
    if separator != whole.usual and not given.separator:
        notes.append(f"columns are separated by {NAMES.get(separator, repr(separator))}")
    names = _names(whole, separator)
    _require_no_rare_separator(whole, names)
    reading, more = _read(whole, separator, len(names))
    notes += more
    records, begins = reading.records, reading.lines
    if given.header:
        names = list(given.header)
        if _folded(records[0] if records else []) == _folded(names):
            raise DataError(
                f"{source}, line {begins[0]}: a header row with the names given in --columns; remove --columns"
            )
    else:
        names = [name.strip() for name in records[0]]
        if names[0].startswith("#") and names[0].lstrip("# ").lower() in given.expected:
            names[0] = names[0].lstrip("# ")
        records, begins = records[1:], begins[1:]
    if not records:
        raise DataError(f"{source}: the file has no rows below its header")
    columns = tuple(zip(*records, strict=True))
    return Records(source, tuple(names), columns, begins, "line", False, tuple(notes))


def _folded(names: Sequence[str]) -> list[str]:
    return [name.strip().lower() for name in names]


def _without_preamble(whole: _Lines) -> tuple[_Lines, list[str]]:
    """Skip a declaration of the separator, and comments before the header."""
    notes: list[str] = []
    first = _next_full(whole.lines, 0)
    declared = DECLARED.fullmatch(whole.lines[first].rstrip("\r\n")) if first < len(whole.lines) else None
    if declared:
        first = _next_full(whole.lines, first + 1)
        whole = replace(whole, given=replace(whole.given, separator=whole.given.separator or declared[1]))
    last = first
    while last < len(whole.lines) and whole.lines[last].startswith("#"):
        last = _next_full(whole.lines, last + 1)
    if last > first and last < len(whole.lines) and _are_comments(whole, first, last):
        notes.append(f"left out {listed_rows(range(first + 1, last + 1), 'line')} of comments above the header")
        first = last
    if first >= len(whole.lines):
        raise DataError(f"{whole.source}: the file has only blank lines; add a header row and data rows")
    return replace(whole, first=first), notes


def _next_full(lines: Sequence[str], first: int) -> int:
    while first < len(lines) and not lines[first].strip():
        first += 1
    return first


def _are_comments(whole: _Lines, first: int, last: int) -> bool:
    """Whether lines that begin with # are comments: the line below is the header, or they are no records."""
    if not whole.given.header:
        below = re.split(r"[,;\t|]", whole.lines[last].lower().replace('"', ""))
        return not whole.given.expected.isdisjoint(name.strip() for name in below)
    columns = len(whole.given.header)
    return all(
        len(line.split(separator)) != columns
        for line in whole.lines[first:last]
        for separator in whole.given.separator or SEPARATORS[whole.form]
    )


def _separator(whole: _Lines) -> str:
    """The separator: that of a header with known names, or the one that gives all columns of a file without a header.

    Raises:
        DataError: several separators give as many columns as there are names.
    """
    choices = SEPARATORS[whole.form]
    if whole.given.header:
        return _separator_of_rows(whole, choices)
    ranks: dict[str, tuple[int, bool]] = {}
    for separator in choices:
        fields = _folded(_first_fields(whole, separator))
        ranks[separator] = len(whole.given.expected & set(fields)), len(fields) > 1
    return max(choices, key=lambda separator: ranks[separator])


def _first_fields(whole: _Lines, separator: str) -> list[str]:
    """The fields of the first record; those of its line if its quotes do not fit."""
    reading = read_in(whole.lines, Dialect(separator, spaced=True), whole.first, 1)
    return reading.records[0] if reading.records else whole.lines[whole.first].rstrip("\r\n").split(separator)


def _separator_of_rows(whole: _Lines, choices: str) -> str:
    columns = len(whole.given.header)
    if columns == 1:
        return whole.usual
    fitting: list[str] = []
    for separator in choices:
        reading, *_ = _best(whole, separator, columns)
        if reading is not None:
            fitting.append(separator)
    if len(fitting) > 1:
        raise DataError(
            f"{whole.source}: {' and '.join(NAMES[one] for one in fitting)} both separate {columns} columns in every "
            "row; set --separator"
        )
    alike = (one for one in choices if len(_first_fields(whole, one)) == columns)
    return fitting[0] if fitting else next(alike, whole.usual)


def _names(whole: _Lines, separator: str) -> list[str]:
    """The column names: given, or the first record."""
    return list(whole.given.header) or _first_fields(whole, separator)


def _require_no_rare_separator(whole: _Lines, names: Sequence[str]) -> None:
    """Check that a header of one name is not one of several names with another separator.

    Raises:
        DataError: parts of it are usual names.
    """
    if len(names) > 1 or whole.given.header or whole.given.separator or _folded(names)[0] in whole.given.expected:
        return
    for mark in RARE:
        parts = _folded(names[0].split(mark))
        if len(parts) > 1 and whole.given.expected & set(parts):
            shown = mark if mark.isprintable() else f"$'{ascii(mark)[1:-1]}'"
            raise DataError(
                f"{whole.source}, line {whole.first + 1}: the header {names[0]!r} seems to have the separator "
                f"{mark!r}; set --separator {shown}"
            )


def _read(whole: _Lines, separator: str, columns: int) -> tuple[Reading, list[str]]:
    """The records in the dialect that fits, and what to say about them.

    Raises:
        DataError: no dialect fits, or rows seem to be swallowed by stray quotes.
    """
    reading, dialect, notes = _best(whole, separator, columns)
    if reading is None:
        raise _refusal(whole, dialect, columns)
    spanning = list(reading.spans())
    if spanning:
        places = listed_rows([reading.lines[i] for i in spanning], "line")
        more = len(spanning) > 1
        notes.append(f"{len(spanning)} quoted record{'s span' if more else ' spans'} several lines, from {places} on")
    return reading, notes


def _best(whole: _Lines, separator: str, columns: int) -> tuple[Reading | None, Dialect, list[str]]:
    """The first dialect in which every record has all columns; None and the standard dialect if there is none."""
    standard = Dialect(separator)
    if whole.given.quoting == "none":
        plain = Dialect(separator, "")
        return _fitting(whole, plain, columns), plain, []
    reading = _fitting(whole, standard, columns)
    if whole.given.quoting == "standard":
        return reading, standard, []
    doubts = _doubts(whole, reading, standard, columns)
    for dialect, words in _others(whole, separator, doubts):
        other = _fitting(whole, dialect, columns)
        if other is not None and not swallowed(other, whole.lines, dialect, columns):
            return other, dialect, [words if dialect.quote else _without_quotes(whole, standard, columns)]
    return None if "rows" in doubts else reading, standard, []


def _without_quotes(whole: _Lines, standard: Dialect, columns: int) -> str:
    """Why a file is read without quoting."""
    places = [line for line, _ in faults(whole.lines, standard, columns, whole.first)]
    if not places:
        reading = read_in(whole.lines, standard, whole.first)
        places = [reading.lines[i] for i in reading.spans()]
    return f"read without quoting, because quotes do not enclose fields in {listed_rows(places, 'line')}"


def _fitting(whole: _Lines, dialect: Dialect, columns: int) -> Reading | None:
    """The records in a dialect; None if some do not follow it."""
    reading = read_in(whole.lines, dialect, whole.first)
    fits = reading.fault is None and all(len(record) == columns for record in reading.records)
    return reading if fits else None


def _doubts(whole: _Lines, reading: Reading | None, dialect: Dialect, columns: int) -> set[str]:
    """Why a reading in the standard dialect may not be what is written; all reasons if there is no reading."""
    if reading is None or swallowed(reading, whole.lines, dialect, columns):
        return {"rows", "lines", "spaces", "escapes", "apostrophes"}
    found = {"lines"} if dialect.separator == "\t" and any(True for _ in reading.spans()) else set[str]()
    if any(cell[:1].isspace() and cell.lstrip()[:1] == '"' for record in reading.records for cell in record):
        found.add("spaces")
    return found | ({"apostrophes"} if _wrapped(reading) else set())


def _wrapped(reading: Reading) -> bool:
    """Whether all cells of a column are in single quotes."""
    if len(reading.records) < 3:
        return False
    return any(
        all(len(cell) > 1 and cell[0] == cell[-1] == "'" for cell in column if cell) and any(column)
        for column in zip(*reading.records[1:], strict=True)
    )


def _others(whole: _Lines, separator: str, doubts: set[str]) -> Iterator[tuple[Dialect, str]]:
    """Other dialects that would resolve the doubts, with what to say about them."""
    content = "".join(whole.lines[whole.first :]) if doubts else ""
    if separator == "\t" and "lines" in doubts:
        yield Dialect(separator, ""), ""
    if "spaces" in doubts and re.search(rf'{re.escape(separator)}[ \t]+"', content):
        yield Dialect(separator, spaced=True), "spaces between separators and quotes are left out"
    if "escapes" in doubts and '\\"' in content:
        yield Dialect(separator, escaped=True), 'read with \\" as an escaped quote'
        yield Dialect(separator, spaced=True, escaped=True), 'read with \\" as an escaped quote, without spaces before'
    if "apostrophes" in doubts and "'" in content:
        yield Dialect(separator, "'", spaced=True), "read with fields in single quotes"


def _refusal(whole: _Lines, dialect: Dialect, columns: int) -> DataError:
    """All lines that do not fit, with the remedy."""
    found = faults(whole.lines, dialect, columns, whole.first)
    wanted = f"{columns} column{'s' if columns > 1 else ''}"
    count = f"{len(found):,} line{'s do' if len(found) > 1 else ' does'} not have {wanted}"
    remedy = f"Quote texts that contain {dialect.separator!r}, close every quote, and double quotes inside a text"
    plain = Dialect(dialect.separator, "")
    if dialect.quote and any("quote" in words for _, words in found) and _fitting(whole, plain, columns):
        remedy += ", or set --quoting none, which reads every line as a row"
    if any(whole.lines[line - 1].startswith("#") for line, _ in found):
        remedy += ". Lines that begin with # are comments only above the header"
    listed = [f"  - line {line}: {words}" for line, words in found[:SHOWN_ROWS]]
    listed += [f"  ... and {len(found) - SHOWN_ROWS:,} more"] if len(found) > SHOWN_ROWS else []
    names = ", ".join(_names(whole, dialect.separator))
    return DataError("\n".join([f"{whole.source}: {count} ({names[:200]}). {remedy}:", *listed]))
