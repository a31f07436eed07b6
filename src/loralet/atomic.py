"""Atomic and durable writes of files and folders: a temporary path in the same folder, fsync, then rename.

After a crash or a power failure, a path has its old or its new content, never a part of it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from loralet.leftovers import PRIVATE, names_of, new_name, remove_leftovers, temporary

UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF)
"""Errors of fsync on a folder where the file system has none."""
TEMPORARY = re.compile(r"\..*\.([0-9a-f]{16}|[a-z0-9_]{8})")
"""Names of temporary files and folders: of :func:`loralet.leftovers.new_name`, and of :mod:`tempfile`."""
DISK = {
    "No space left": errno.ENOSPC,
    "Read-only file system": errno.EROFS,
    "File too large": errno.EFBIG,
    "quota exceeded": errno.EDQUOT,
    "Input/output error": errno.EIO,
    "Permission denied": errno.EACCES,
}
"""Errors of the operating system in messages of libraries, which have exception types of their own."""


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary path next to ``path``. It is renamed to ``path`` when the block ends, and deleted if it raises.

    Its permissions are those of any new file, whatever writes it.

    Raises:
        OSError: it cannot be written; the error names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), temporary(path, _make_file) as made:
        mode = made.stat().st_mode & 0o777
        yield made
        made.chmod(mode)
        sync(made)
        made.replace(path)
        sync(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder next to ``path``. It replaces ``path`` when the block ends, and is deleted if it raises.

    Raises:
        OSError: it cannot be written; the error names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    replaced = path.with_name(f"{path.name}.old")
    if path.exists():  # else it was being replaced when its process was killed, and this is all that is left
        remove_leftovers(path.parent, names_of(replaced))
    with naming(path), temporary(path, Path.mkdir) as made:
        yield made
        _set_modes(made)
        for file in (*made.rglob("*"), made):
            sync(file)
        if path.exists():
            older = new_name(replaced)
            path.replace(older)
            made.replace(path)
            shutil.rmtree(older)
        else:
            made.replace(path)
        sync(path.parent)


def _make_file(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def _set_modes(folder: Path) -> None:
    """Give the files of a new folder the permissions of any new file; safetensors creates them for the user alone."""
    mode = folder.stat().st_mode & 0o666
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(mode)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name a path in errors of writing it, also in those of libraries that raise exceptions of their own.

    Raises:
        OSError: writing failed; ``filename`` is the path.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename and f".{path.name[:100]}." not in str(error.filename)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    except Exception as error:
        number = _disk_error(error)
        if number is None or type(error).__module__.startswith("loralet."):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _disk_error(error: Exception) -> int | None:
    """The number of an operating system's error in the message of a library, such as safetensors and tokenizers."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    if found:
        return int(found[1])
    return next((number for words, number in DISK.items() if words in str(error)), None)


def sync(path: Path) -> None:
    """Write a file, or the entries of a folder, from the operating system's cache to the disk."""
    if sys.platform == "win32" and path.is_dir():
        return  # folders cannot be opened there
    handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not path.is_dir() or error.errno not in UNSUPPORTED:
            raise
    finally:
        os.close(handle)


def remove_temporaries(folder: Path) -> None:
    """Remove what a killed process left: temporary files and folders of :func:`new_file` and :func:`new_folder`.

    The caller must be the only process that writes to the folder.
    """
    with suppress(FileNotFoundError):
        for path in list(folder.iterdir()):
            if TEMPORARY.fullmatch(path.name):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def new_entry(path: Path) -> Iterator[Path]:
    """A temporary folder next to ``path``, a folder of a cache. It becomes ``path`` when the block ends.

    If another process has written ``path`` meanwhile, that folder stays, as it may be in use, and this one is deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, TEMPORARY)
    with temporary(path, PRIVATE) as made:
        yield made
        with suppress(FileExistsError, NotADirectoryError):
            _move(made, path)


def _move(folder: Path, to: Path) -> None:
    """Rename a folder.

    Raises:
        FileExistsError: there is a folder of that name that is not empty.
    """
    try:
        folder.rename(to)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise FileExistsError(error.errno, error.strerror, str(to)) from error
        raise


def remove_entry(path: Path) -> None:
    """Remove a damaged file or folder of a cache. It first gets another name, so that no process finds half of it."""
    away = new_name(path)
    try:
        path.rename(away)
    except FileNotFoundError:
        return
    if away.is_dir() and not away.is_symlink():
        shutil.rmtree(away, ignore_errors=True)
    else:
        away.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` atomically as indented JSON. NaN and infinity raise a ValueError, because JSON has neither."""
    with new_file(path) as made:
        made.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
