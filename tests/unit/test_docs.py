"""The README says what is so: its tables come from the benchmarks' JSON, its commands exist, every command is told of."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from loralet.cli import COMMANDS, parse

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_tables_are_made_from_the_json_beside_the_benchmarks() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "readme_tables.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run: python scripts/readme_tables.py"


def test_every_command_is_told_of() -> None:
    for name in COMMANDS:
        assert f"loralet {name}" in README, name


def test_every_command_line_of_the_readme_is_understood() -> None:
    lines = re.findall(r"`loralet ([^`]+)`", README) + re.findall(
        r"^\.venv/bin/loralet (.+?)(?:  +#.*| > .*)?$", README, re.MULTILINE
    )
    commands = [line for line in lines if line.split()[0] in COMMANDS and "--help" not in line]
    assert len(commands) >= 10
    for line in commands:
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line)]
        parse(words)
    with pytest.raises(SystemExit):
        parse(["study", "--no-such-flag"])


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_results_documentation_names_every_field() -> None:
    from loralet.runs.results import Row, base_run

    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for field in Row(base_run("majority", "majority")).to_json():
        assert f"`{field}`" in text, field


def test_the_project_speaks_of_itself_alone() -> None:
    assert not re.search(
        r"TODO|FIXME", "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    )
