"""Option classes as TOML and back."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from loralet.atomic import new_file
from loralet.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Options = TypeVar("Options")


def write_options(path: Path, options: Any) -> None:
    """The options as TOML, nested classes as tables; an option that is None is left out, as TOML has no null."""
    with new_file(path) as temporary:
        temporary.write_text(tomli_w.dumps(_plain(options)), encoding="utf-8")


def read_options(path: Path, kind: type[Options]) -> Options:
    """Options of a class from TOML; what the file does not name keeps its default.

    Raises:
        ConfigError: no such file, not TOML, unknown keys, wrong types or impossible values; all of them in one message.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"--config {path}: no such file") from error
    except OSError as error:
        raise ConfigError(
            f"--config {path}: cannot be read ({error.strerror}); name a TOML file, such as a run's config.toml"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: not valid TOML ({error})") from error
    problems: list[str] = []
    options = _build(kind, raw, "", problems)
    problems += options.problems()  # type: ignore[attr-defined]  # every option class has it
    if problems:
        raise ConfigError.listing(problems, str(path))
    return options


def _plain(options: Any) -> dict[str, Any]:
    fields = ((f.name, getattr(options, f.name)) for f in dataclasses.fields(options))
    return {
        name: _plain(value) if dataclasses.is_dataclass(value) else list(value) if isinstance(value, tuple) else value
        for name, value in fields
        if value is not None
    }


def _build(kind: type[Options], raw: dict[str, Any], where: str, problems: list[str]) -> Options:
    types_ = typing.get_type_hints(kind)
    known = {f.name: types_[f.name] for f in dataclasses.fields(kind)}  # type: ignore[arg-type]  # called with option classes alone
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in known:
            problems.append(f"{where}{key} is not an option; known here: {', '.join(known)}")
        elif dataclasses.is_dataclass(known[key]):
            if isinstance(value, dict):
                values[key] = _build(known[key], value, f"{where}{key}.", problems)
            else:
                problems.append(f"{where}{key} is {value!r}: a table is expected")
        else:
            try:
                values[key] = _typed(known[key], value)
            except TypeError as error:
                problems.append(f"{where}{key} is {value!r}: {error} is expected")
    return kind(**values)


def _typed(kind: Any, value: Any) -> Any:
    """``value`` as ``kind``; TypeError, whose text names what is expected, where it does not fit."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _typed(next(a for a in arguments if a is not type(None)), value)
    if origin is typing.Literal:
        if value not in arguments:
            raise TypeError(f"one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError("a list")
        return tuple(_typed(arguments[0], item) for item in value)
    if kind is float and type(value) in (int, float):
        return float(value)
    if type(value) is not kind:
        raise TypeError({int: "a whole number", float: "a number", str: "a string", bool: "true or false"}[kind])
    return value
