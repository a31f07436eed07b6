"""Atomic and durable writes of files and folders: a temporary path in the same folder, fsync, then rename.

After a crash or a power failure, a path has its old or its new content, never a part of it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF)
"""Errors of fsync on a folder where the file system has none."""
TEMPORARY = re.compile(r"\..*\.([0-9a-f]{16}|[a-z0-9_]{8})")
"""Names of temporary files and folders: of :func:`_unused`, and of :mod:`tempfile`."""
DISK = {
    "No space left": errno.ENOSPC,
    "Read-only file system": errno.EROFS,
    "File too large": errno.EFBIG,
    "quota exceeded": errno.EDQUOT,
    "Input/output error": errno.EIO,
    "Permission denied": errno.EACCES,
}
"""Errors of the operating system in messages of libraries, which have exception types of their own."""
LEFTOVER = 24 * 3600
"""Age in seconds at which a temporary folder belongs to no running process."""


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary path next to ``path``. It is renamed to ``path`` when the block ends, and deleted if it raises.

    Its permissions are those of any new file, whatever writes it.

    Raises:
        OSError: it cannot be written; the error names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _unused(path)
    with naming(path):
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = temporary.stat().st_mode & 0o777
        try:
            yield temporary
            temporary.chmod(mode)
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder next to ``path``. It replaces ``path`` when the block ends, and is deleted if it raises.

    Raises:
        OSError: it cannot be written; the error names ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = _unused(path)
    with naming(path):
        temporary.mkdir()
        try:
            yield temporary
            _set_modes(temporary)
            for file in (*temporary.rglob("*"), temporary):
                sync(file)
            if path.exists():
                older = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
                path.replace(older)
                temporary.replace(path)
                shutil.rmtree(older)
            else:
                temporary.replace(path)
            sync(path.parent)
        finally:
            if temporary.exists():
                shutil.rmtree(temporary)


def _unused(path: Path) -> Path:
    """A name next to a path that no other process uses; files of :mod:`tempfile` are readable by their user only."""
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}")


def _remove_leftovers(path: Path) -> None:
    """Remove temporary folders of this path that killed processes left a day ago or earlier."""
    for folder in path.parent.iterdir():
        if re.fullmatch(rf"\.{re.escape(path.name[:100])}\.[0-9a-f]{{16}}", folder.name) and folder.is_dir():
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime > LEFTOVER:
                    shutil.rmtree(folder)


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
    handle = os.open(path, os.O_RDONLY)
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
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        with suppress(FileExistsError, NotADirectoryError):
            _move(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
    away = path.with_name(f".{path.name}.{os.getpid()}.removed")
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
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
