"""The OpenMP runtime that the kernels and torch share."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

RUNTIME = "libgomp.so.1"
"""Name of the runtime that the kernels are linked with on Linux."""


@cache
def load_openmp() -> None:
    """Load the runtime in torch's folder, without importing torch. The kernels, and torch later, then use it.

    Without this, kernels that are loaded before torch would use the runtime of the system. A machine without a compiler
    often has none.
    """
    torch = find_spec("torch")
    for folder in (torch and torch.submodule_search_locations) or ():
        with suppress(OSError):
            ctypes.CDLL(str(Path(folder) / "lib" / RUNTIME))
