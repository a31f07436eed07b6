"""Conversion of option classes to TOML and back."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from loralet.errors import ConfigError
from loralet.records import plain, read_record, typed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class OptionClass(Protocol):
    """A dataclass of options that can check itself."""

    def problems(self) -> Iterator[str]: ...


Options = TypeVar("Options", bound=OptionClass)


def options_text(options: OptionClass) -> str:
    """Convert options to TOML; nested classes become tables. None is omitted, because TOML has no null."""
    import tomli_w  # not needed to read options, and absent where only predictions are made

    return tomli_w.dumps(_without_none(plain(options)))


def _without_none(values: dict[str, object]) -> dict[str, object]:
    return {
        name: _without_none(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None
    }


def read_options(path: Path, kind: type[Options]) -> Options:
    """Read options of a class from TOML; missing options keep their defaults.

    Raises:
        ConfigError: no such file, not TOML, unknown keys, wrong types or invalid values; one message lists all
            problems.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"--config {path}: no such file") from error
    except OSError as error:
        raise ConfigError(
            f"--config {path}: cannot be read ({error.strerror}); give a TOML file, such as a run's config.toml"
        ) from error
    except ValueError as error:
        raise ConfigError(f"--config {path}: not valid TOML ({error})") from error
    return parse_options(text, kind, str(path), f"--config {path}")


def parse_options(text: str, kind: type[Options], path: str, where: str = "") -> Options:
    """Convert TOML to options of a class.

    Args:
        text: the content of a file.
        kind: the class.
        path: name of the file, for messages.
        where: how the user gave the file, for the message about its syntax; ``path`` if empty.

    Raises:
        ConfigError: as for :func:`read_options`.
    """
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # syntax, digits of a number, nesting depth
        raise ConfigError(f"{where or path}: not valid TOML ({error})") from error
    problems: list[str] = []
    raw = _current(raw)
    options = read_record(kind, raw, problems)
    readable = options or read_record(kind, _readable(raw, kind), [])
    problems += readable.problems() if readable is not None else []
    if problems or options is None:
        raise ConfigError.listing(problems, path)
    return options


def _readable(raw: Mapping[str, object], kind: type) -> dict[str, object]:
    """The known options of a table that have the right type."""
    found: dict[str, object] = {}
    for name, option in typing.get_type_hints(kind).items():
        value = raw.get(name)
        if isinstance(value, dict) and dataclasses.is_dataclass(option):
            found[name] = _readable(value, typing.cast("type", option))
        elif name in raw:
            with suppress(TypeError):
                found[name] = typed(option, value)
    return found


def _current(raw: dict[str, object]) -> dict[str, object]:
    """Convert options from files written before the groups ``adapter``, ``compute`` and ``columns``."""
    raw = {name: dict(value) if isinstance(value, dict) else value for name, value in raw.items()}
    lora, training, reading = (raw.get(name) for name in ("lora", "training", "reading"))
    if isinstance(lora, dict) and "adapter" not in raw:
        del raw["lora"]
        raw |= {"lr": lora.pop("lr")} if "lr" in lora else {}
        raw["adapter"] = lora
    for owner in (training, raw):  # training, or distillation
        if isinstance(owner, dict) and "compute" not in raw:
            moved = {name: owner.pop(name) for name in ("precision", "threads") if name in owner}
            raw |= {"compute": moved} if moved else {}
    if "teacher" in raw:
        raw.pop("resume", None)  # of older versions: a distillation is now continued without it
    if isinstance(training, dict) and "target_accuracy" in training:
        training["target_score"] = training.pop("target_accuracy")
    if isinstance(reading, dict) and not isinstance(reading.get("columns"), dict):
        columns = {n: reading.pop(n) for n in ("text_column", "label_column", "columns") if n in reading}
        reading |= {"columns": columns} if columns else {}
    return raw
