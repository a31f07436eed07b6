"""Write docs/reference/commands.md from the option classes. With --check, only check that it is up to date.

python scripts/command_reference.py [--check]
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from loralet.cli import COMMANDS, Command

TARGET = Path(__file__).parents[1] / "docs" / "reference" / "commands.md"
MISSING = dataclasses.MISSING


@dataclasses.dataclass(frozen=True)
class Option:
    """One option on the page: its flags or name, values, default and help text."""

    name: str
    values: str
    default: str
    text: str


def docstrings(kind: type[Any]) -> dict[str, str]:
    """The docstrings of the fields of a dataclass, with those that it inherits."""
    texts: dict[str, str] = {}
    for own in reversed([one for one in kind.__mro__ if dataclasses.is_dataclass(one)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(own))).body[0].body  # type: ignore[attr-defined]  # a class
        for field, below in pairwise(body):
            documented = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and documented:
                texts[field.target.id] = str(below.value.value)  # type: ignore[union-attr,attr-defined]  # a name
    return texts


def options_of(kind: type[Any], default: Any = None) -> Iterator[Option]:
    """The options of a class, including those of nested classes, in order."""
    hints, texts = get_type_hints(kind, include_extras=True), docstrings(kind)
    for field in dataclasses.fields(kind):
        value = _default(field) if default is None else getattr(default, field.name)
        inner = _plain(hints[field.name])
        if dataclasses.is_dataclass(inner):
            yield from options_of(inner, None if value is MISSING else value)  # type: ignore[arg-type]
        else:
            positional, metavar, aliases, text = _marks(hints[field.name])
            text = text or field.metadata.get("help") or texts[field.name]
            flag = f"--{field.name.replace('_', '-')}"
            flag = f"{flag} / --no{flag[1:]}" if inner is bool and value is True else flag
            name = metavar if positional else ", ".join([flag, *aliases])
            yield Option(name, _values(inner), _shown(value), text)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _marks(hint: Any) -> tuple[bool, str, tuple[str, ...], str]:
    """Whether an option is positional, its metavar, its aliases, and its help if that is a mark too."""
    positional, metavar, aliases, text = False, "", (), ""
    while get_origin(hint) is Annotated:
        hint, *marks = get_args(hint)
        for mark in marks:
            metavar = getattr(mark, "metavar", None) or metavar
            aliases = tuple(getattr(mark, "aliases", None) or aliases)
            text = getattr(mark, "help", None) or text
            positional = positional or "ositional" in str(mark)
    return positional or bool(metavar), metavar, aliases, text


def _plain(hint: Any) -> Any:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return hint


def _values(hint: Any) -> str:
    """A description of the values of an option."""
    if get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(hint) if value != "")
    if get_origin(hint) is tuple:
        inner = _values(get_args(hint)[0])
        return f"one or more of {inner}" if inner.startswith("`") else f"{inner}, one or more"
    inner = [a for a in get_args(hint) if a is not type(None)]
    kind = inner[0] if inner else hint
    return {int: "integer", float: "number", str: "text", bool: "switch"}[kind]


def _shown(value: Any) -> str:
    if value is MISSING:
        return "required"
    if value is None or value in ("", ()):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    values = value if isinstance(value, tuple) else (value,)
    return f"`{' '.join(f'{v:g}' if isinstance(v, float) else str(v) for v in values)}`"


def section(name: str, command: Command) -> list[str]:
    """The section of one command: its summary and a table of its options."""
    lines = [f"## loralet {name}", "", command.summary, "", "| option | values | default | |", "|---|---|---|---|"]
    for part in command.parts:
        for option in options_of(part):
            text = option.text.replace("``", "`").replace("|", "\\|")
            lines.append(f"| `{option.name}` | {option.values} | {option.default} | {text} |")
    return [*lines, ""]


def page() -> str:
    """The whole page."""
    head = [
        "# Commands",
        "",
        "Generated from the option classes in `src/loralet/config/`. `loralet COMMAND --help` prints the same.",
        "Every option of `study`, `train` and `distill` can also be set in a TOML file: `--config FILE`.",
        "",
    ]
    return "\n".join([*head, *(line for name, command in COMMANDS.items() for line in section(name, command))])


def main() -> int:
    """Write or check the page."""
    text = page()
    if "--check" in sys.argv:
        return int(not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
