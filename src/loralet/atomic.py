"""Atomic writes of files and folders: write to a temporary path in the same folder, then rename."""

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
    with _naming(path):
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        mode = temporary.stat().st_mode & 0o777
        try:
            yield temporary
            temporary.chmod(mode)
            temporary.replace(path)
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
    with _naming(path):
        temporary.mkdir()
        try:
            yield temporary
            _set_modes(temporary)
            if path.exists():
                older = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
                path.replace(older)
                temporary.replace(path)
                shutil.rmtree(older)
            else:
                temporary.replace(path)
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
def _naming(path: Path) -> Iterator[None]:
    """Name a path in errors of writing it, also in those of libraries that raise exceptions of their own.

    Raises:
        OSError: writing failed.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))  # of Rust: safetensors and tokenizers
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


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
