"""Atomic and durable writes of files and folders: a temporary path in the same folder, fsync, then rename.

After a crash or a power failure, a path has its old or its new content, never a part of it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF)
"""Errors of fsync on a folder where the file system has none."""

RANDOM = 8
"""Length of the random suffix of :mod:`tempfile`."""
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

    Raises:
        OSError: the file cannot be written; ``filename`` is ``path``.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            temporary.chmod(0o644)
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder next to ``path``. It replaces ``path`` when the block ends, and is deleted if it raises.

    Raises:
        OSError: the folder cannot be written; ``filename`` is ``path``.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            temporary.chmod(0o755)
            yield temporary
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


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` atomically as indented JSON. NaN and infinity raise a ValueError, because JSON has neither."""
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


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
            if path.name.startswith(".") and len(path.name.rpartition(".")[2]) == RANDOM:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an error of the operating system the file's name. Libraries report a full disk with classes of their own.

    Raises:
        OSError: with ``filename``, so that a message can name the file.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename and f".{path.name}." not in str(error.filename)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    except Exception as error:
        code = next((number for words, number in DISK.items() if words in str(error)), None)
        if code is None or type(error).__module__.startswith("loralet."):
            raise
        raise OSError(code, os.strerror(code), str(path)) from error
