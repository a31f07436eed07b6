"""The wall clock may jump in either direction: durations and intervals are measured with clocks that do not."""

from __future__ import annotations

import ast
import inspect
import os
import random
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path

import pytest
from command_line import command

import loralet
from loralet.backends.native.library_cache import REMEMBERED, hanging, remember_hanging
from loralet.distil.checkpoint import DistilSaver
from loralet.errors import RunError
from loralet.runs import lock as lock_module
from loralet.runs import resume
from loralet.runs.lock import locked
from loralet.runs.results import read_results
from loralet.runs.resume import claim
from loralet.studies.saving import StudySaver

SOURCES = Path(loralet.__file__).parent
WALL = {
    "time.time",
    "time.time_ns",
    "time.localtime",
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
}
ALLOWED = {
    ("leftovers.py", "time.time"),  # the age of a temporary file where there are no locks
    ("backends/native/library_cache.py", "time.time"),  # the age of a marker: see below
    ("commands/compare.py", "datetime.now"),  # the name of a page
    ("runs/environment.py", "datetime.now"),  # the start time that a run records
    ("runs/folder.py", "datetime.now"),  # the name of a folder
    ("runs/resume.py", "datetime.now"),  # the name of a folder
}


def wall_clocks(source: str) -> Iterator[str]:
    """The calls and other uses of the wall clock in a source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and (name := ast.unparse(node)) in WALL:
            yield name
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (f"time.{alias.name}" for alias in node.names if f"time.{alias.name}" in WALL)


def test_the_wall_clock_is_read_only_for_names_and_ages() -> None:
    sources = {path.relative_to(SOURCES).as_posix(): path for path in SOURCES.rglob("*.py")}
    found = {(name, use) for name, path in sources.items() for use in wall_clocks(path.read_text(encoding="utf-8"))}
    assert found == ALLOWED


def test_checkpoints_are_written_by_a_clock_that_does_not_jump() -> None:
    for saver in (StudySaver, DistilSaver):
        assert inspect.signature(saver).parameters["clock"].default is time.monotonic


def test_a_training_survives_a_clock_that_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: draw.uniform(-1e9, 4e9))
    options = (
        "--steps",
        "4",
        "--eval-every",
        "2",
        "--folds",
        "0",
        "--hybrid",
        "off",
        "--checkpoint-every",
        "0",
        "--backend",
        "torch",
    )
    done = command(tmp_path, "train", "news-mini", *options, "--out", "run", "--quiet")
    assert done.returncode == 0, done.stderr
    seconds = [run.train_seconds for run in read_results(tmp_path / "run").runs if run.train_seconds is not None]
    assert seconds
    assert all(0 <= value < 600 for value in seconds)
    assert not list((tmp_path / "run").rglob(".*"))


@pytest.mark.parametrize(("age", "hangs"), [(1, True), (-3 * REMEMBERED, False), (3 * REMEMBERED, False)])
def test_a_compiler_is_tried_again_if_its_marker_is_old_or_of_the_future(
    tmp_path: Path, age: float, hangs: bool
) -> None:
    remember_hanging(tmp_path, "key")
    assert hanging(tmp_path, "key") == tmp_path / "unfinished-key"
    os.utime(tmp_path / "unfinished-key", (time.time() - age,) * 2)
    assert (hanging(tmp_path, "key") is not None) == hangs


def test_runs_of_the_same_second_get_a_folder_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the clock stands still or went back to a second that was used."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime(2026, 3, 29, 2, 30)

    monkeypatch.setattr(resume, "datetime", Clock)
    monkeypatch.chdir(tmp_path)
    with claim("", "train") as one, claim("", "train") as two, claim("", "study") as three:
        found = [claimed.folder.name for claimed in (one, two, three)]
    assert found == ["train-20260329-023000", "train-20260329-023000-2", "study-20260329-023000"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [*lock_module.UNSUPPORTED, 5])
def test_a_file_system_without_locks_is_used_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    tries = count(1)

    def refuse(*_: object) -> None:
        next(tries)
        raise OSError(error, os.strerror(error))

    with locked(tmp_path / "lock", tmp_path):
        with pytest.raises(RunError, match="another process is training"), locked(tmp_path / "lock", tmp_path):
            pass
        monkeypatch.setattr("fcntl.flock", refuse)
        if error in lock_module.UNSUPPORTED:
            with locked(tmp_path / "lock", tmp_path):
                pass
        else:
            with pytest.raises(OSError, match=r"Input/output"), locked(tmp_path / "lock", tmp_path):
                pass
        monkeypatch.undo()
    assert next(tries) == 2
