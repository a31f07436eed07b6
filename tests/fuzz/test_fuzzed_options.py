"""Generated option files and command lines: options that are written and read alike, or a message."""

from __future__ import annotations

import json
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from bounds import bounded_memory, fuzzed, outcome
from changes import changed_bytes, mostly, numbers, strings
from hypothesis import given
from hypothesis import strategies as st

from loralet.cli import parse
from loralet.config import DistillConfig, StudyConfig, TrainConfig
from loralet.config.toml import options_text, parse_options, read_options

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KINDS: dict[str, tuple[type[Any], ...]] = {"options": (TrainConfig, StudyConfig, DistillConfig)}
HEXADECIMAL = "0x" + "f" * 5000
"""A whole number that Python reads, and does not print in decimal."""
DATES = ("1979-05-27", "07:32:00", "1979-05-27T07:32:00Z")

scalars = st.booleans() | numbers | strings.filter(lambda text: "\ud800" not in text)
toml_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc-. ", max_size=4), inner, max_size=3),
)


@st.composite
def option_files(draw: st.DrawFn) -> tuple[type[Any], bytes]:
    """The defaults of a command as TOML, with changed values, or with changed bytes."""
    kind = draw(st.sampled_from(KINDS["options"]))
    options = tomllib.loads(options_text(kind()))
    places = list(_places(options))
    for _ in range(draw(st.integers(0, 2))):
        owner, name = draw(st.sampled_from(places))
        owner[name] = draw(mostly(_alike(owner[name]), toml_values, 2))
    if draw(st.integers(0, 9)) == 9:
        options[draw(st.sampled_from(["lora", "training", "reading", "compute", "adapter", "x"]))] = draw(toml_values)
    try:
        text = tomli_w.dumps(options)
    except ValueError:  # such as a whole number that is too long to print
        text = options_text(kind())
    lines = text.splitlines()
    if draw(st.integers(0, 9)) == 9:
        row = draw(st.integers(0, len(lines) - 1))
        lines[row] = f"{lines[row].partition('=')[0]}= {draw(st.sampled_from([HEXADECIMAL, '9' * 5000, *DATES]))}"
    content = "\n".join(lines).encode(errors="surrogatepass")
    return kind, draw(mostly(st.just(content), changed_bytes(content), 2))


def _alike(value: Any) -> st.SearchStrategy[Any]:
    """Values of the type of an option's default."""
    kinds = {
        bool: st.booleans(),
        int: st.integers(-1, 9),
        float: st.floats(0, 1),
        str: st.sampled_from(["", "auto", "x"]),
    }
    return kinds.get(type(value), st.just(value))


def _places(table: dict[str, Any]) -> Any:
    for name, value in list(table.items()):
        yield table, name
        if isinstance(value, dict):
            yield from _places(value)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("options")


def test_any_option_file_is_read_or_refused(place: Path) -> None:
    @fuzzed(50)
    @given(option_files())
    def case(given_file: tuple[type[Any], bytes]) -> None:
        kind, content = given_file
        path = place / "options.toml"
        path.write_bytes(content)
        options = outcome(read_options, path, kind)
        if options is not None:
            again = parse_options(options_text(options), kind, "again")
            assert repr(again) == repr(options)
            json.dumps(_numbers(options), allow_nan=True)

    with bounded_memory():
        case()


def _numbers(options: Any) -> list[Any]:
    """All values of options."""
    if is_dataclass(options):
        return [one for field in fields(options) for one in _numbers(getattr(options, field.name))]
    return [options]


WORDS = (
    *("train", "study", "predict", "evaluate", "show", "export", "average", "push", "distill", "resume", "inspect"),
    *("--lr", "--rank", "--ranks", "--seed", "--seeds", "--steps", "--threads", "--targets", "--head", "--folds"),
    *("--batch-size", "--memory", "--columns", "--separator", "--quoting", "--precision", "--backend", "--preset"),
    *("run", "news-mini", "text", "-", "--", "--help-me", "0", "-1", "1e400", "nan", "9" * 30, "9" * 5000, "sep\n"),
)


def test_any_command_line_is_parsed_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    @fuzzed(6, share=0.05)
    @given(st.lists(st.sampled_from(WORDS) | st.text(max_size=8), max_size=8))
    def case(arguments: list[str]) -> None:
        try:
            outcome(parse, arguments)
        except SystemExit as error:
            codes.add(error.code)
        capsys.readouterr()

    codes: set[object] = set()
    case()
    assert codes <= {0, 2}
