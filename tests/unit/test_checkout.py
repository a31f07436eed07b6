"""The checkout: its commit in environment.json, never that of the user's repository, and the width of its lines."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from loralet.runs.checkout import source_commit
from loralet.runs.environment import environment

ROOT = Path(__file__).parents[2]
WIDTH = 120
GENERATED = (
    "src/loralet/backends/native/api.py",
    "docs/benchmarks.md",
    "docs/reference/commands.md",
    "docs/studies/rank-alpha/",
    "src/loralet/bundled/",
)
"""Files, and folders with a trailing slash, whose lines a program writes."""
OURS = '[project]\nname = "loralet"\n'


def git(folder: Path, *arguments: str) -> str:
    own = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *own, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def repository(folder: Path, project: str, package: str = "src/loralet") -> Path:
    """A repository with one commit, a tag and a package. Returns the package's folder."""
    inside = folder / package
    inside.mkdir(parents=True)
    (inside / "__init__.py").write_text("")
    (folder / "pyproject.toml").write_text(project)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "all")
    git(folder, "tag", "-a", "-m", "one", "v1")
    return inside


def test_a_checkout_has_a_commit_and_reports_changed_files(tmp_path: Path) -> None:
    package = repository(tmp_path / "ours", OURS)
    head = git(tmp_path / "ours", "rev-parse", "HEAD")
    assert source_commit(package) == head
    (package / "new.py").write_text("not tracked")
    assert source_commit(package) == head
    (package / "__init__.py").write_text("changed = True\n")
    assert source_commit(package) == f"{head}-dirty"


def test_the_repository_of_the_user_is_not_that_of_loralet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = repository(tmp_path / "theirs", '[project]\nname = "theirs"\n')
    assert source_commit(theirs) is None  # a copy of loralet in the user's source
    assert source_commit(repository(tmp_path / "installed", OURS, ".venv/lib/python3.12/site-packages/loralet")) is None
    assert source_commit(repository(tmp_path / "built", OURS, "build/lib/loralet")) is None
    assert source_commit(repository(tmp_path / "vendored", OURS, "vendor/loralet")) is None
    (tmp_path / "archive" / "src" / "loralet").mkdir(parents=True)
    (tmp_path / "archive" / "pyproject.toml").write_text(OURS)
    assert source_commit(tmp_path / "archive" / "src" / "loralet") is None
    ours = repository(tmp_path / "ours", OURS)
    monkeypatch.chdir(tmp_path / "theirs")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "theirs" / ".git"))
    assert source_commit(ours) == git(
        tmp_path / "ours", "--git-dir", str(tmp_path / "ours" / ".git"), "rev-parse", "HEAD"
    )


@pytest.mark.parametrize(
    "project", ["", "[project", '[project]\nname = "loralet-fork"\n', '[tool]\nname = "loralet"\n']
)
def test_an_unrelated_project_file_is_not_a_checkout(tmp_path: Path, project: str) -> None:
    assert source_commit(repository(tmp_path / "odd", project)) is None


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = repository(tmp_path / "ours", OURS)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert source_commit(package) is None


def test_the_environment_of_a_run_contains_the_commit() -> None:
    assert environment().commit == source_commit()


def prose(lines: list[str]) -> Iterator[tuple[int, str]]:
    """The lines of a Markdown file outside tables and code blocks, with their numbers."""
    inside = False
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("```"):
            inside = not inside
        elif not inside and not line.lstrip().startswith("|"):
            yield number, line


def too_wide(name: str, text: str) -> list[str]:
    """The places of the lines that are too wide. A line with a single word, such as a link, cannot be wrapped."""
    lines = text.split("\n")
    chosen = prose(lines) if name.endswith(".md") else enumerate(lines, 1)
    return [f"{name}:{number}" for number, line in chosen if len(line) > WIDTH and re.search(r"\S\s+\S", line)]


def test_wide_lines_are_found() -> None:
    wide = "word " * 30
    assert too_wide("a.py", f"short\n{wide}\n") == ["a.py:2"]
    assert too_wide("a.md", f"{wide}\n| {wide} |\n```\n{wide}\n```\n{wide}") == ["a.md:1", "a.md:6"]


def test_lines_have_at_most_120_columns() -> None:
    if source_commit() is None:
        pytest.skip("not a checkout")
    names = git(ROOT, "ls-files", "*.py", "*.h", "*.c", "*.toml", "*.md").splitlines()
    assert "README.md" in names
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in names if not name.startswith(GENERATED)}
    assert [place for name, text in texts.items() for place in too_wide(name, text)] == []
