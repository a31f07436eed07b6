"""One reading of delimited text: a dialect, the records that it gives, and the lines that do not follow it."""

from __future__ import annotations

import csv
import io
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

FIELD_LIMIT = 1 << 30
"""Longest field in characters. The csv module's default is shorter than long documents."""
MOST_FAULTS = 1000
"""Faults are counted up to this number."""
ESCAPED = re.compile(r'\\(["\\])')
"""An escaped quote or backslash. Other backslashes stay as they are."""

_LIMIT = threading.Lock()


@dataclass(frozen=True)
class Dialect:
    """How fields are written.

    Args:
        separator: character between fields.
        quote: character around fields that contain separators or line breaks; empty if there is none.
        spaced: whether spaces may stand between a separator and a quote; without effect if the separator is a space.
        escaped: whether a quote inside a field is written with a backslash.
    """

    separator: str
    quote: str = '"'
    spaced: bool = False
    escaped: bool = False


@dataclass(frozen=True)
class Reading:
    """The records of a text in a dialect.

    Args:
        records: fields of each record; blank lines are left out.
        lines: line on which each record begins, from 1.
        ends: line on which each record ends.
        fault: line of the record that the dialect cannot read, with the reason; the records end there. None: no fault.
    """

    records: list[list[str]]
    lines: list[int]
    ends: list[int]
    fault: tuple[int, str] | None = None

    def spans(self) -> Iterator[int]:
        """The index of each record that spans lines."""
        return (i for i, (first, last) in enumerate(zip(self.lines, self.ends, strict=True)) if last > first)


def physical_lines(text: str) -> list[str]:
    """The lines of a text with their line breaks, as the csv module counts them."""
    return list(io.StringIO(text, newline=""))


def read_in(lines: Sequence[str], dialect: Dialect, first: int = 0, most: int | None = None) -> Reading:
    """Read the lines from index ``first`` in a dialect, at most ``most`` records.

    A dialect is followed strictly: text after a closing quote and a quote that is never closed are faults.
    """
    records: list[list[str]] = []
    begins: list[int] = []
    ends: list[int] = []
    line = first + 1
    with _long_fields():
        reader: Any = _reader(lines, dialect, first)
        try:
            for record in islice(reader, most):
                last = first + reader.line_num
                if len(record) > 1 or (record and record[0].strip()) or _is_quoted(lines[line - 1], dialect, record):
                    records.append(record)
                    begins.append(line)
                    ends.append(last)
                line = last + 1
        except csv.Error as error:
            return Reading(records, begins, ends, (line, _reason(error, first + reader.line_num)))
    return Reading(records, begins, ends)


def _is_quoted(line: str, dialect: Dialect, record: list[str]) -> bool:
    """Whether a record of one empty field is written as such, which makes it a row and not a blank line."""
    return bool(record and dialect.quote and line.strip().startswith(dialect.quote))


def _reader(lines: Sequence[str], dialect: Dialect, first: int) -> Iterator[list[str]]:
    given = (lines[i] for i in range(first, len(lines)))
    if dialect.escaped:
        given = (ESCAPED.sub(lambda found: '""' if found[1] == '"' else "\\", line) for line in given)
    if not dialect.quote:
        return csv.reader(given, delimiter=dialect.separator, quoting=csv.QUOTE_NONE, quotechar=None, strict=True)
    return csv.reader(
        given,
        delimiter=dialect.separator,
        quotechar=dialect.quote,
        skipinitialspace=dialect.spaced and dialect.separator != " ",
        strict=True,
    )


def _reason(error: csv.Error, line: int) -> str:
    if "unexpected end" in str(error):
        return "a quote opens here and is never closed"
    if "expected after" in str(error):
        return f"text follows the closing quote in line {line}"
    return f"not readable ({error})"


def faults(lines: Sequence[str], dialect: Dialect, columns: int, first: int = 0) -> list[tuple[int, str]]:
    """The lines that do not follow a dialect, with the reason; reading goes on after each.

    Args:
        lines: the physical lines.
        dialect: the dialect.
        columns: number of fields of a record.
        first: index of the first line of data.
    """
    found: dict[int, str] = {}
    whole = Reading([], [], [])
    while first < len(lines) and len(found) < MOST_FAULTS:
        reading = read_in(lines, dialect, first)
        for record, line, end in zip(reading.records, reading.lines, reading.ends, strict=True):
            if len(record) != columns:
                text = "".join(lines[line - 1 : end]).rstrip()[:60]
                found[line] = f"{len(record)} column{'s' if len(record) > 1 else ''}, expected {columns}: {text!r}"
        whole.records.extend(reading.records)
        whole.lines.extend(reading.lines)
        whole.ends.extend(reading.ends)
        if reading.fault is None:
            break
        line, reason = reading.fault
        found[line] = f"{reason}: {lines[line - 1].rstrip()[:60]!r}"
        first = line
    for i in swallowed(whole, lines, dialect, columns):
        end = whole.ends[i]
        found[whole.lines[i]] = f"a quote opens here and closes in line {end}, around what look like separate rows"
    return sorted(found.items())


def swallowed(reading: Reading, lines: Sequence[str], dialect: Dialect, columns: int) -> list[int]:
    """Indices of records that span lines which look like records of their own.

    Two stray quotes make one field of the rows between them. A line inside such a record has the right number of
    fields, and one of them is a value that other records have in the same column, such as a label. Half of the lines
    are enough. The fields before the quote that opens and after the quote that closes are no evidence.
    """
    spanning = list(reading.spans())
    if not spanning or columns < 2 or not dialect.quote:
        return []
    known: list[set[str]] = [set() for _ in range(columns)]
    for record in reading.records:
        if len(record) == columns:
            for values, cell in zip(known, record, strict=True):
                values.add(cell.strip())
    found: list[int] = []
    for i in spanning:
        several = [j for j, cell in enumerate(reading.records[i]) if "\n" in cell or "\r" in cell]
        inside = lines[reading.lines[i] - 1 : reading.ends[i]]
        if several and len(reading.records[i]) == columns:
            evidence = [range(columns)] * len(inside)
            evidence[0], evidence[-1] = range(several[0] + 1, columns), range(several[-1])
            pairs = [(line, own) for line, own in zip(inside, evidence, strict=True) if own]
            alike = sum(_is_record(line.rstrip("\r\n").split(dialect.separator), known, own) for line, own in pairs)
            if pairs and 2 * alike >= len(pairs):
                found.append(i)
    return found


def _is_record(cells: Sequence[str], known: Sequence[set[str]], evidence: Sequence[int]) -> bool:
    return len(cells) == len(known) and any(cells[j].strip() and cells[j].strip() in known[j] for j in evidence)


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let the csv module read long fields. Its limit is one for the process, so it is set back."""
    with _LIMIT:
        usual = csv.field_size_limit(FIELD_LIMIT)
        try:
            yield
        finally:
            csv.field_size_limit(usual)
