"""The OpenMP runtime that the kernels and torch share."""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

IN_TORCH = re.compile(r"lib(gomp|iomp5|omp)(-[0-9a-f]+)?(\.so(\.\d+)*|\.dylib)")
"""File names of runtimes: GNU, Intel and LLVM. auditwheel adds a hash."""
OF_SYSTEM = ("libgomp.so.1", "libomp.so.5", "libiomp5.so")
"""Runtimes of the system, in the order in which they are tried. The latter two also serve code compiled by GCC."""
UNLINKED = sys.platform == "linux"
"""Whether kernels are linked without a runtime. They then use the one that is loaded, whatever its name is."""


def torch_runtimes() -> Iterator[Path]:
    """The runtimes in torch's package: in its ``lib`` folder, or in the folder ``torch.libs`` beside it."""
    torch = find_spec("torch")
    for place in (torch and torch.submodule_search_locations) or ():
        for folder in (Path(place) / "lib", Path(place).with_name("torch.libs")):
            if folder.is_dir():
                yield from sorted(path for path in folder.iterdir() if IN_TORCH.fullmatch(path.name))


@cache
def load_openmp() -> str:
    """Load the runtime of torch, without importing torch, or else one of the system.

    The kernels, and torch later, then use it. Two runtimes in a process would each have their own threads.

    Returns:
        The runtime; empty if there is none, which only kernels compiled without OpenMP do not need.
    """
    candidates = [str(path) for path in torch_runtimes()]
    if UNLINKED:
        candidates += OF_SYSTEM
    for runtime in candidates:
        with suppress(OSError):
            # Global symbols, as torch loads it too: the kernels look theirs up there.
            ctypes.CDLL(runtime, mode=getattr(os, "RTLD_GLOBAL", ctypes.DEFAULT_MODE))
            return runtime
    return ""


def missing_runtime(error: OSError, runtime: str) -> str:
    """Advice if a library was not loaded because its OpenMP functions are missing; else empty.

    Args:
        error: the error.
        runtime: what :func:`load_openmp` found.
    """
    if not re.search(r"undefined symbol: (GOMP|omp|__kmpc)_", str(error)):
        return ""
    if not runtime:
        return "; no OpenMP runtime was found; install libgomp (Debian: apt-get install libgomp1)"
    return f"; they were compiled for another OpenMP runtime than {runtime}; install GCC"
