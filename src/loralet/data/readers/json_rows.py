"""Read JSON: one object per line, objects over several lines, or a list of objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from loralet.data.readers.content import not_utf8
from loralet.data.readers.records import Records
from loralet.errors import DataError

DEEPEST = 100
"""Largest depth of nested values."""
SPACE = re.compile(r"[ \t\r\n]*")
KINDS = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", type(None): "null"}


def read_json(source: str, text: str) -> Records:
    """Read the objects of a JSON file; keys that an object lacks are None.

    Objects are numbered by their lines, or from 1 if several of them begin on one line.

    Args:
        source: the file, for messages.
        text: its content.

    Raises:
        DataError: invalid JSON, other values than objects, repeated keys, or values that are nested too deeply. The
            message names the line.
    """
    columns: dict[str, list[Any]] = {}
    rows: list[int] = []
    for line, value in _values(source, text):
        if not isinstance(value, dict):
            kind = KINDS.get(type(value), "a number")
            raise DataError(f"{source}: line {line} is {kind}, not an object; write one object per line, or a list")
        _add(columns, value, len(rows), f"{source}: line {line}")
        rows.append(line)
    if not rows:
        raise DataError(f"{source}: the file has no rows")
    if len(rows) == 1:
        _require_records(source, columns)
    if len(set(rows)) < len(rows):
        return Records(source, tuple(columns), tuple(columns.values()), range(1, len(rows) + 1), "row", True)
    return Records(source, tuple(columns), tuple(columns.values()), rows, "line", True)


def _add(columns: dict[str, list[Any]], row: dict[str, Any], count: int, place: str) -> None:
    """Add a row to the columns, which have ``count`` rows.

    Raises:
        DataError: a key that is not UTF-8, or a value that is nested too deeply.
    """
    for key, cell in row.items():
        if key not in columns:
            if not_utf8(key):
                raise DataError(f"{place}: the key {key!a} is not valid text; rename it")
            columns[key] = [None] * count
        columns[key].append(cell)
        if isinstance(cell, (dict, list)) and _depth(cell) > DEEPEST:
            raise DataError(f"{place}: {key!r} is nested more than {DEEPEST} levels deep")
    if len(row) < len(columns):
        for cells in columns.values():
            cells.extend([None] * (count + 1 - len(cells)))


def _values(source: str, text: str) -> Iterator[tuple[int, Any]]:
    """The values of a file, or the elements of its only list, with the line on which each begins."""
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    place = _after_space(text, 0)
    listed = text.startswith("[", place)
    if listed:
        place = _after_space(text, place + 1)
    if listed and text.startswith("]", place):
        raise DataError(f"{source}: the list has no objects; write one object per row")
    line, counted, more = 1, 0, True
    while more and place < len(text):
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, place = decoder.raw_decode(text, place)
        except RecursionError as error:
            raise DataError(f"{source}: line {line} is nested too deeply") from error
        except ValueError as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise DataError(
                f"{source}: line {line} is not valid JSON ({reason}); write one object per line, or a list of objects"
            ) from error
        yield line, value
        place = _after_space(text, place)
        if listed:
            more = text.startswith(",", place)
            if not more and not text.startswith("]", place):
                raise DataError(
                    f"{source}: the list of objects is not valid JSON after line {line}; separate objects with commas, "
                    "and close the list with ]"
                )
            place = _after_space(text, place + 1)
    if listed and place < len(text):
        raise DataError(f"{source}: there is more text after the list of objects; write one list")


def _after_space(text: str, place: int) -> int:
    found = SPACE.match(text, place)
    assert found  # an empty match is a match
    return found.end()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice in an object")
    return made


def _depth(value: Any) -> int:
    """Depth of nested values, without recursion, up to one more than the largest that is allowed."""
    level, depth = [value], 0
    while level and depth <= DEEPEST:
        inner = [part.values() if isinstance(part, dict) else part for part in level]
        level = [cell for part in inner for cell in part if isinstance(cell, (dict, list))]
        depth += 1
    return depth


def _require_records(source: str, columns: dict[str, list[Any]]) -> None:
    """Reject a single object that contains the whole table."""
    cells = {key: values[0] for key, values in columns.items()}
    inner = [key for key, cell in cells.items() if isinstance(cell, list) and cell and isinstance(cell[0], dict)]
    if inner:
        raise DataError(f"{source}: the rows are in the list {inner[0]!r} of an object; write that list alone")
    if len(cells) > 1 and all(isinstance(cell, (dict, list)) for cell in cells.values()):
        raise DataError(
            f"{source}: one object of columns ({', '.join(cells)}); write one object per row, as pandas does with "
            'to_json(FILE, orient="records")'
        )
