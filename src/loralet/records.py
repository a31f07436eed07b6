"""Dataclasses from parsed JSON or TOML. One pass collects every problem."""

from __future__ import annotations

import dataclasses
import json
import stat
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

from loralet.errors import RunError, UserError

Record = TypeVar("Record")

LONGEST_SHOWN = 500
"""Characters of a value in a message."""
MOST = 2**63
"""Whole numbers have 64 bits with a sign, as in TOML."""
EXPECTED = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def read_json(path: Path) -> object:
    """The content of a JSON file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: it is not JSON, not UTF-8, nested too deeply, or has a whole number of thousands of digits.
        OSError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path.name} is not valid JSON: {str(error)[:200]}") from error


def require_files(folder: Path, error: type[UserError] = RunError) -> None:
    """Check that a folder has no named pipes, sockets and devices, whose reading may never end.

    Args:
        folder: the folder; one that does not exist or cannot be read is not checked.
        error: the error to raise.

    Raises:
        UserError: it has.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for path in entries:
        try:
            mode = path.stat().st_mode
        except OSError:  # a link to nothing, or to itself, which reading reports
            continue
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise error(f"{path}: is a named pipe, a socket or a device instead of a file; copy the folder again")


def read_record(kind: type[Record], raw: Mapping[str, object], problems: list[str], where: str = "") -> Record | None:
    """Make a dataclass from a parsed object. Fields without a key keep their defaults.

    Args:
        kind: the dataclass. Its fields are scalars, literals, unions of these, dataclasses, optional ones, or tuples of
            one of these.
        raw: the parsed object.
        problems: receives a message for every problem: unknown keys, missing keys, wrong types.
        where: path of the object within its file, with a trailing dot; for the messages.

    Returns:
        The record, or None if there is a problem.
    """
    hints = _hints(kind)  # type: ignore[arg-type]  # a class is hashable
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # a dataclass
    values: dict[str, object] = {}
    before = len(problems)
    for key, value in raw.items():
        if key not in fields:
            problems.append(f"{where}{key} is not known; known here: {', '.join(fields)}")
        else:
            _add(values, key, hints[key], value, problems, where)
    required = (name for name, field in fields.items() if _required(field))
    problems += [f"{where}{name} is missing" for name in required if name not in raw]
    return kind(**values) if len(problems) == before else None


@cache
def _hints(kind: type[object]) -> Mapping[str, object]:
    """The types of a dataclass's fields."""
    return typing.get_type_hints(kind)


def _required(field: dataclasses.Field[object]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _add(values: dict[str, object], key: str, kind: object, value: object, problems: list[str], where: str) -> None:
    inner = next((k for k in (kind, *typing.get_args(kind)) if dataclasses.is_dataclass(k)), None)
    several = typing.get_origin(kind) is tuple
    if isinstance(inner, type) and isinstance(value, Mapping) and not several:
        values[key] = read_record(inner, value, problems, f"{where}{key}.")
        return
    if isinstance(inner, type) and isinstance(value, (list, tuple)) and several:
        problems += [
            f"{where}{key}[{i}] is not an object" for i, item in enumerate(value) if not isinstance(item, Mapping)
        ]
        items = [(f"{where}{key}[{i}].", item) for i, item in enumerate(value) if isinstance(item, Mapping)]
        values[key] = tuple(read_record(inner, item, problems, place) for place, item in items)
        return
    try:
        values[key] = typed(kind, value)
    except TypeError as error:
        problems.append(f"{where}{key} is {shown(value)}: {error} is expected")


def typed(kind: object, value: object) -> object:
    """Convert ``value`` to ``kind``.

    Raises:
        TypeError: it does not fit; the text names the expected type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _one_of([a for a in arguments if a is not type(None)], value)
    if origin is typing.Literal:
        if value not in arguments:
            raise TypeError(f"one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise TypeError("a list")
        return tuple(typed(arguments[0], item) for item in value)
    if dataclasses.is_dataclass(kind):
        raise TypeError("a table")
    if kind is float and type(value) is int and abs(value) <= sys.float_info.max:
        return float(value)
    if problem := _misfit(kind, value):
        raise TypeError(problem)
    return value


def _misfit(kind: object, value: object) -> str:
    """What is expected instead of a scalar; empty if it fits."""
    if type(value) is not kind:
        return EXPECTED[kind]  # type: ignore[index]  # covers every scalar type of the records
    return "a whole number of at most 64 bits" if isinstance(value, int) and not -MOST <= value < MOST else ""


def shown(value: object) -> str:
    """A value for a message, cut if it is long. Python does not print whole numbers of thousands of digits."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _one_of(kinds: Sequence[object], value: object) -> object:
    """Convert ``value`` to the first type that fits. Raises a TypeError like :func:`typed`."""
    expected: list[str] = []
    for kind in kinds:
        try:
            return typed(kind, value)
        except TypeError as error:
            expected.append(str(error))
    raise TypeError(" or ".join(expected))


def plain(record: object) -> dict[str, object]:
    """A dataclass as JSON values: nested dataclasses become objects, tuples become lists."""
    assert dataclasses.is_dataclass(record)
    values = ((field.name, getattr(record, field.name)) for field in dataclasses.fields(record))
    return {name: _plain(value) for name, value in values}


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value):
        return plain(value)
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value
