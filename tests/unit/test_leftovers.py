"""Temporary files of killed processes are deleted by the next process, and those of running processes are kept."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest

from loralet import leftovers
from loralet.atomic import TEMPORARY, new_entry, new_file, new_folder
from loralet.leftovers import OLD, PRIVATE, new_name, remove_leftovers, temporary, temporary_folder

needs_locks = pytest.mark.skipif(sys.platform == "win32", reason="folders have no locks there")
JUMPS = {"backward": -10 * OLD, "forward": 10 * OLD}
HOLD = """
import os, sys
from pathlib import Path
from loralet.atomic import new_file, new_folder
with {new}(Path(sys.argv[1])) as path:
    print(path, flush=True)
    input()
"""


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@needs_locks
@pytest.mark.parametrize("new", ["new_file", "new_folder"])
def test_a_temporary_path_is_kept_while_its_process_lives(tmp_path: Path, new: str) -> None:
    path = tmp_path / "out"
    command = [sys.executable, "-c", HOLD.format(new=new), str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    theirs = Path(process.stdout.readline().strip())
    with new_file(path) as mine:
        mine.write_text("mine")
    assert names(tmp_path) == {"out", theirs.name}
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert names(tmp_path) == {"out", theirs.name}
    with new_file(path) as mine:
        mine.write_text("mine again")
    assert names(tmp_path) == {"out"}


@needs_locks
@pytest.mark.parametrize("jump", JUMPS)
def test_the_clock_may_jump(tmp_path: Path, jump: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is a temporary path in use deleted, nor is one that is left kept."""
    path = tmp_path / "out"
    left = tmp_path / ".out.0123456789abcdef"
    left.mkdir()
    (left / "inside").touch()
    with new_folder(path) as mine:
        monkeypatch.setattr(leftovers.time, "time", partial(float, time.time() + JUMPS[jump]))
        assert not left.exists()
        left.touch()
        remove_leftovers(tmp_path, TEMPORARY)
        assert names(tmp_path) == {mine.name}


@pytest.mark.parametrize("jump", JUMPS)
def test_without_locks_the_age_decides(tmp_path: Path, jump: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "_lock", lambda handle: None)
    (tmp_path / ".out.0123456789abcdef").touch()
    (tmp_path / ".out.fedcba9876543210").touch()
    os.utime(tmp_path / ".out.fedcba9876543210", (0, 0))
    with new_file(tmp_path / "out") as mine:
        assert names(tmp_path) == {mine.name, ".out.0123456789abcdef"}
        monkeypatch.setattr(leftovers.time, "time", partial(float, time.time() + JUMPS[jump]))
        remove_leftovers(tmp_path, re.compile(re.escape(".out.0123456789abcdef")))
        assert (".out.0123456789abcdef" in names(tmp_path)) == (jump == "backward")


@needs_locks
def test_only_temporary_paths_of_this_name_and_user_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {".other.0123456789abcdef", ".out.abc", ".out.0123456789abcdef.txt", "out.0123456789abcdef"}
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / "secret").touch()
    (tmp_path / ".out.0123456789abcdef").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / ".out.1123456789abcdef")
    kept = names(tmp_path)
    (tmp_path / ".out.2123456789abcdef").touch()
    with monkeypatch.context() as other:
        other.setattr(os, "getuid", lambda: 54321)
        with new_file(tmp_path / "out"):
            pass
    assert names(tmp_path) == kept | {"out", ".out.2123456789abcdef"}
    with new_file(tmp_path / "out"):
        pass
    assert names(tmp_path) == kept | {"out"}


@needs_locks
def test_a_path_that_another_process_deletes_before_it_is_locked_is_made_again(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(path: Path) -> None:
        path.touch()
        made.append(path)
        if len(made) < 3:
            path.unlink()

    with temporary(tmp_path / "out", make) as path:
        assert path == made[2]
        assert path.exists()
    assert not names(tmp_path)


@needs_locks
def test_folders_of_killed_processes_are_deleted_from_the_systems_folder_and_from_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = new_name(tmp_path / "loralet")
    PRIVATE(left)
    with temporary_folder() as first, temporary_folder() as second:
        assert names(tmp_path) == {first.name, second.name}
        assert first.stat().st_mode & 0o777 == 0o700
    assert not names(tmp_path)
    for name in (".a.0123456789abcdef", ".b.abcd_123", "entry"):
        (tmp_path / name / "inside").mkdir(parents=True)
    with new_entry(tmp_path / "c") as entry:
        assert names(tmp_path) == {"entry", entry.name}
    assert names(tmp_path) == {"entry", "c"}


def test_a_folder_whose_replacement_was_killed_is_kept_until_there_is_a_new_one(tmp_path: Path) -> None:
    replaced = tmp_path / ".out.old.0123456789abcdef"
    replaced.mkdir()
    with new_folder(tmp_path / "out"):
        assert replaced.exists()
    with new_folder(tmp_path / "out"):
        assert not replaced.exists()
    assert names(tmp_path) == {"out"}


@needs_locks
def test_a_path_that_is_deleted_while_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, deleted = leftovers._lock, list[Path]()

    def late(handle: int) -> bool | None:
        if not deleted:
            deleted.extend(tmp_path.iterdir())
            deleted[0].unlink()
        return lock(handle)

    monkeypatch.setattr(leftovers, "_lock", late)
    with new_file(tmp_path / "out") as path:
        assert path not in deleted
        assert path.exists()
    assert names(tmp_path) == {"out"}
