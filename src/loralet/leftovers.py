"""Temporary files and folders, locked while their process lives, so that others can delete those of killed processes.

The operating system releases the lock when its process ends, however it ends. The age of a file says less: the clock
can jump, and a process can write for days. Only where the file system has no locks, as on Windows for folders, does the
age decide.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

if sys.platform != "win32":
    import fcntl

OLD = 24 * 3600
"""Age in seconds at which a temporary file belongs to no running process, where there are no locks."""
LONGEST = 100
"""Largest number of characters of a path's name in the names of its temporary files."""
PRIVATE = partial(Path.mkdir, mode=0o700)
"""Makes a folder that only this user can read."""


def new_name(path: Path) -> Path:
    """A name for a temporary file next to a path that no other process uses."""
    return path.with_name(f".{path.name[:LONGEST]}.{secrets.token_hex(8)}")


def names_of(path: Path) -> re.Pattern[str]:
    """The names that :func:`new_name` gives."""
    return re.compile(rf"\.{re.escape(path.name[:LONGEST])}\.[0-9a-f]{{16}}")


@contextmanager
def temporary(path: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """A new temporary file or folder next to ``path``, deleted when the block ends, if it still has its name.

    Those for the same path that killed processes left are deleted first.

    Args:
        path: a path in an existing folder.
        make: makes the file or folder, and fails if it exists.

    Raises:
        OSError: it cannot be made.
    """
    remove_leftovers(path.parent, names_of(path))
    with ExitStack() as locks:
        made = _made(path, make, locks)
        try:
            yield made
        finally:
            _remove(made)


def temporary_folder() -> AbstractContextManager[Path]:
    """A new folder in the system's folder for temporary files, that only this user can read; see :func:`temporary`."""
    return temporary(Path(tempfile.gettempdir(), "loralet"), PRIVATE)


def _made(path: Path, make: Callable[[Path], object], locks: ExitStack) -> Path:
    while True:
        made = new_name(path)
        make(made)
        with suppress(FileNotFoundError):  # another process deleted it before it was locked
            if locks.enter_context(_locked(made)) is not False and made.exists():
                return made


def remove_leftovers(folder: Path, names: re.Pattern[str]) -> None:
    """Delete temporary files and folders whose process has ended. Errors are ignored.

    Args:
        folder: the folder that contains them.
        names: their names.
    """
    with suppress(OSError):
        for path in list(folder.iterdir()):
            if names.fullmatch(path.name):
                with suppress(OSError):
                    _remove_if_left(path)


def _remove_if_left(path: Path) -> None:
    status = path.lstat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        return
    with _locked(path) as locked:
        if locked or (locked is None and time.time() - status.st_mtime > OLD):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[bool | None]:
    """Lock a file or folder. Yields whether that was possible, False if another process uses it; None: no locks here.

    Raises:
        FileNotFoundError: it does not exist any more.
    """
    if sys.platform == "win32":
        yield None
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        yield _lock(handle)
    finally:
        os.close(handle)


def _lock(handle: int) -> bool | None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
