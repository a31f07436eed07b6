"""A process group for compilers that ends with this process, however it ends.

The first process of the group is a guard. It waits on a pipe that the operating system closes when this process ends,
and then ends the group and deletes the compilers' folder. Linux can signal a child when its parent ends, but not the
children of that child, such as the ``cc1`` of GCC.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAM = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: None)
os.read(0, 1)
os.killpg(0, signal.SIGTERM)
import shutil
for _ in range(20):
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    time.sleep(0.05)
    if not os.path.exists(sys.argv[1]):
        break
os.killpg(0, signal.SIGKILL)
"""
"""The guard. Compilers end on SIGTERM and can still write until then, so deleting is repeated."""


def can_guard() -> bool:
    """Whether a process can join a group: with Python 3.11 or newer on a POSIX system, and if Python can be started."""
    return (
        sys.version_info >= (3, 11)
        and os.name == "posix"
        and bool(sys.executable)
        and not getattr(sys, "frozen", False)  # the executable is then not Python
    )


@contextmanager
def guarded(folder: Path) -> Iterator[int | None]:
    """A process group for the block. When the block ends, or this process, what is left of the group ends too.

    Args:
        folder: deleted if this process ends in the block.

    Yields:
        The number of the group; None where there can be no guard (:func:`can_guard`).

    Raises:
        OSError: the guard cannot be started.
    """
    if not can_guard():
        yield None
        return
    nothing = subprocess.DEVNULL
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=nothing, stderr=nothing, process_group=0) as guard:
        try:
            yield guard.pid
        finally:
            stop_group(guard.pid)


def stop_group(group: int) -> None:
    """End all processes of a group."""
    with suppress(OSError):
        os.killpg(group, signal.SIGKILL)
