"""Arrays in one cache file that several processes read and write at once, with a checksum that finds any damage."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from loralet.atomic import TEMPORARY, new_file
from loralet.cache import say_unusable
from loralet.leftovers import remove_leftovers

BLOCK = 1 << 20
DIGEST = hashlib.sha256().digest_size
"""Bytes of the checksum at the end of a file."""


def read_arrays(path: Path) -> list[np.ndarray] | None:
    """The arrays of a file, memory-mapped; None if there is no file, or a damaged one.

    Args:
        path: a file of :func:`write_arrays`.
    """
    try:
        if not _is_intact(path):
            return None
        arrays: list[np.ndarray] = []
        with path.open("rb") as file:
            end = path.stat().st_size - DIGEST
            while file.tell() < end:
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                start = file.tell()
                size = int(np.prod(shape)) * dtype.itemsize
                arrays.append(np.memmap(path, dtype, "r", start, shape) if size else np.zeros(shape, dtype))
                file.seek(start + size)
        return arrays
    except (OSError, ValueError):
        return None


def write_arrays(path: Path, arrays: Sequence[np.ndarray]) -> None:
    """Write arrays atomically. A cache that cannot be written costs only time: the failure is announced once.

    Processes that have mapped an older file of this name keep its content.
    """
    remove_leftovers(path.parent, TEMPORARY)
    try:
        with new_file(path) as temporary:
            with temporary.open("wb") as file:
                for array in arrays:
                    np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            digest = _digest(temporary, temporary.stat().st_size)
            with temporary.open("ab") as file:
                file.write(digest)
    except OSError as error:
        say_unusable(path.parent, error)


def _is_intact(path: Path) -> bool:
    size = path.stat().st_size - DIGEST
    if size < 0:
        return False
    with path.open("rb") as file:
        file.seek(size)
        recorded = file.read()
    return recorded == _digest(path, size)


def _digest(path: Path, size: int) -> bytes:
    """The checksum of the first ``size`` bytes of a file."""
    digest, left = hashlib.sha256(), size
    with path.open("rb") as file:
        while left:
            block = file.read(min(left, BLOCK))
            if not block:
                break
            digest.update(block)
            left -= len(block)
    return digest.digest()
