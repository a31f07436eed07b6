"""The documentation is correct: links, make targets and commands exist, and generated pages are up to date."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
import sys
import typing

import numpy as np
import pytest
from pages import PAGES, ROOT, inline_commands, snippets

import loralet
import loralet.errors
from loralet.adapters.spec import AdapterSpec
from loralet.backends.info import BackendInfo
from loralet.cli import COMMANDS, parse
from loralet.events import Event
from loralet.runs.environment import Environment, SessionBackend
from loralet.runs.results import SCHEMA, DataFacts, Results, RunResult
from loralet.tasks.single_label import SingleLabel

RESULTS = (ROOT / "docs" / "reference" / "results.md").read_text(encoding="utf-8")
MORE = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")


@pytest.mark.parametrize("script", ["command_reference.py", "benchmark_tables.py", "model_table.py"])
def test_generated_pages_are_up_to_date(script: str) -> None:
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / script), "--check"], check=False)
    assert done.returncode == 0, f"run: python scripts/{script}"


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f"loralet {name}" in readme, name


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize("page", PAGES)
def test_every_inline_command_parses(page: str) -> None:
    for line in inline_commands(page):
        words = shlex.split(line)
        if words[0] in COMMANDS and "--help" not in words and len(words) > 1:
            parse([word for word in words if word != "..."])


def test_an_unknown_option_does_not_parse() -> None:
    with pytest.raises(SystemExit):
        parse(["study", "--no-such-flag"])


@pytest.mark.parametrize("page", [*PAGES, *MORE])
def test_link_targets_exist(page: str) -> None:
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", [*PAGES, *MORE])
def test_make_targets_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE))
    assert named <= targets, f"{page}: {sorted(named - targets)}"


def test_files_named_in_the_architecture_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:[a-z_]+/)+[a-z_]*(?:\.py|\.md|\.h|\.c)?)`", text)
    assert len(named) > 20
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "src" / "loralet" / name).exists(), name


@pytest.mark.parametrize("kind", [Results, DataFacts, RunResult, AdapterSpec, Environment, SessionBackend, BackendInfo])
def test_results_documentation_names_every_field(kind: type) -> None:
    named = set(re.findall(r"`(?:data\.)?(\w+)`", RESULTS))
    for field in dataclasses.fields(kind):
        assert field.name in named | {"data"}, field.name


def test_results_documentation_names_every_metric_and_event() -> None:
    named = set(re.findall(r"`(\w+)`", RESULTS)) | set(re.findall(r'"event": "(\w+)"', RESULTS))
    task = SingleLabel(("a", "b"))
    scores = task.score(np.eye(2, dtype=np.float32), np.array([0, 1])).to_json()
    assert scores.keys() <= named
    assert {kind.__name__ for kind in typing.get_args(Event)} <= named
    assert {kind.__name__ for kind in typing.get_args(Event)} >= {"Checked", "Planned", "Finished"}


def test_results_documentation_has_the_current_schema() -> None:
    assert RESULTS.startswith(f"# results.json, schema {SCHEMA}\n")
    assert f"| `schema` | {SCHEMA} |" in RESULTS


def test_public_names_are_documented() -> None:
    text = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    errors = {name for name in loralet.__all__ if hasattr(loralet.errors, name)}
    assert "UserError" in errors
    assert "::: loralet.errors" in text
    for name in set(loralet.__all__) - errors - {"__version__"}:
        assert f"::: loralet.{name}" in text or f".{name}" in text, name


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    report = ROOT / "docs" / "studies" / "rank-alpha" / "report.md"  # linked from its study's page
    for page in sorted(set((ROOT / "docs").rglob("*.md")) - {report}):
        assert str(page.relative_to(ROOT / "docs")) in navigation, page


def test_text_blocks_contain_no_untested_commands() -> None:
    for page in PAGES:
        for snippet in snippets(page, "text", "sh", "console"):
            lines = [line for line in snippet.code.splitlines() if re.match(r"(\$ )?(\.venv/bin/)?loralet ", line)]
            assert not lines, f"{page}: {lines}"


def test_the_sources_contain_no_notes_of_pending_work() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        assert not re.search(r"TO" + r"DO|FIX" + r"ME", path.read_text(encoding="utf-8")), path
