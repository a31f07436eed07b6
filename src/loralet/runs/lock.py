"""An exclusive lock on a run folder, which the operating system releases when its owner ends, however it ends."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from loralet.errors import RunError

UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)
"""Errors of a file system without locks. The folder is then used without one."""
ON_WINDOWS = sys.platform == "win32"
"""There, the lock file can only be deleted once it is released, and not while another process has it open."""


@contextmanager
def locked(path: Path, folder: Path) -> Iterator[None]:
    """Hold a lock file inside the block.

    Args:
        path: the lock file, in an existing folder; created if it does not exist. Its owner may delete it.
        folder: the run folder, for messages.

    Raises:
        RunError: another process holds it. Nothing was written.
        OSError: the file cannot be made.
    """
    lock = FileLock(path, timeout=0, fallback_to_soft=False)  # a soft lock would outlive a killed owner
    try:
        lock.acquire()
    except Timeout as error:
        raise RunError(
            f"{folder}: another process is training into this folder; wait until it ends, or give another folder "
            "with --out"
        ) from error
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise OSError(error.errno, error.strerror, str(path)) from error  # filelock names the absolute path
    try:
        yield
    finally:
        lock.release()
