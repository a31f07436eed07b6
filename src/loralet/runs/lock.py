"""An exclusive lock on a run folder, which the operating system releases when its owner ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loralet.errors import RunError

UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)
"""Errors of a file system without locks. The folder is then used without one."""


@contextmanager
def locked(path: Path, folder: Path) -> Iterator[None]:
    """Hold a lock file inside the block.

    Args:
        path: the lock file, in an existing folder; created if it does not exist. Its owner may delete it.
        folder: the run folder, for messages.

    Raises:
        RunError: another process holds it. Nothing was written.
    """
    handle = _locked_handle(path, folder)
    try:
        yield
    finally:
        os.close(handle)


def _locked_handle(path: Path, folder: Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise RunError(
                f"{folder}: another process is training into this folder; wait until it ends, or give another folder "
                "with --out"
            ) from error
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                os.close(handle)
                raise
        if _is_current(handle, path):
            return handle
        os.close(handle)  # the last owner deleted the file after this process had opened it


def _is_current(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
