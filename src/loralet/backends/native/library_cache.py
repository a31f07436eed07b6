"""The cache of compiled kernels: whom it trusts, how it finds damage, and what it remembers of a compiler.

A library is code that runs in this process. It is loaded only if nobody but this user and root can have written it: the
file, its folder and the folders above. Its name ends with a hash of its content, so a truncated or damaged file is
never loaded; it is removed and compiled again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from loralet.atomic import TEMPORARY
from loralet.cache import say_unusable
from loralet.leftovers import remove_leftovers, temporary

LOGGER = logging.getLogger("loralet")
ROOT = 0
"""User id of root, whose libraries all users load."""
HASH = 16
"""Digits of the hash of the content."""
REMEMBERED = 3600
"""Seconds for which a compiler that does not finish is not tried again."""
OTHERS = stat.S_IWGRP | stat.S_IWOTH


def is_private(path: Path) -> bool:
    """Whether only this user or root can have written a file, or can add files to a folder and replace them."""
    try:
        status = path.stat()
    except OSError:
        return False
    if os.name != "posix":
        return True
    mode = status.st_mode
    # In a folder with the sticky bit, such as /tmp, others can only add files of their own.
    open_to_others = mode & OTHERS and not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX)
    return status.st_uid in (ROOT, os.getuid()) and not (open_to_others and not _own_group_only(status, path))


def _own_group_only(status: os.stat_result, path: Path) -> bool:
    """Whether a folder's only other writers are a group of this user alone, as with a umask of 002 on many systems."""
    if status.st_mode & stat.S_IWOTH or not path.is_dir() or os.getuid() == ROOT:
        return False
    import grp
    import pwd

    with suppress(KeyError):
        return grp.getgrgid(status.st_gid).gr_name == pwd.getpwuid(os.getuid()).pw_name
    return False


def is_trusted(folder: Path) -> bool:
    """Whether only this user or root can have written the files of a folder, or replaced one of the folders above."""
    return folder.exists() and writers_of(folder) is None


def writers_of(folder: Path) -> Path | None:
    """The first of a folder and those above it that others can write; None if there is none."""
    place = folder.resolve()
    if place.exists() and not is_private(place):
        return place
    return next((one for one in place.parents if one.exists() and not (is_private(one) or _is_unmapped(one))), None)


def _is_unmapped(folder: Path) -> bool:
    """Whether a folder belongs to a user outside this user namespace, as the root folder of many containers does."""
    status = folder.stat()
    try:
        unmapped = int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return False
    return status.st_uid == unmapped and not status.st_mode & OTHERS


def libraries(folder: Path, pattern: str) -> Iterator[Path]:
    """The intact libraries of a trusted folder, newest first. Damaged ones of this user are removed."""
    if not folder.is_dir() or not is_trusted(folder):
        return
    found = [path for path in folder.glob(f"{pattern}-{'[0-9a-f]' * HASH}.so") if is_private(path)]
    for path in sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        if content_hash(path) == path.stem.rpartition("-")[2]:
            yield path
        else:
            with suppress(OSError):
                path.unlink()


def content_hash(path: Path) -> str:
    """The hash of a file that its name in the cache ends with; empty if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:HASH]
    except OSError:
        return ""


def store(library: Path, folder: Path, name: str) -> Path | None:
    """Copy a compiled library into the cache.

    Args:
        library: the library.
        folder: the folder of the cache.
        name: name in the cache, without hash and suffix.

    Returns:
        The path in the cache; None if the cache cannot be written or trusted, which is announced.
    """
    try:
        _make(folder)
        if other := writers_of(folder):
            reason = f"other users can write {other}; run chmod go-w on it"
            LOGGER.warning("the compiled kernels are not kept in the cache %s (%s)", folder, reason)
            return None
        path = folder / f"{name}-{content_hash(library)}.so"
        remove_leftovers(folder, TEMPORARY)
        with temporary(path, partial(Path.touch, mode=0o600, exist_ok=False)) as copy:
            shutil.copyfile(library, copy)
            copy.chmod(0o755)  # any umask: other users must not be able to write it
            copy.replace(path)
        return path
    except OSError as error:
        say_unusable(folder, error)
        return None


def _make(folder: Path) -> None:
    """Create a folder and those above it, writable by this user alone."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        with suppress(OSError):
            one.chmod(one.stat().st_mode & ~OTHERS)


def remember_hanging(folder: Path, compiler: str) -> None:
    """Remember that a compiler did not finish; does nothing if the cache cannot be written."""
    with suppress(OSError):
        _make(folder)
        _marker(folder, compiler).touch()


def hanging(folder: Path, compiler: str) -> Path | None:
    """The file that says that a compiler did not finish a short time ago; None if there is none.

    Args:
        folder: the folder of the cache.
        compiler: key of the compiler.
    """
    path = _marker(folder, compiler)
    with suppress(OSError):
        if 0 <= time.time() - path.stat().st_mtime < REMEMBERED:
            return path
    return None


def _marker(folder: Path, compiler: str) -> Path:
    return folder / f"unfinished-{compiler}"
