"""Compiles kernels.c, once for each source, compiler and processor, and loads it."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

from loralet.cache import cache_folder

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.c")
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-std=gnu11", "-shared", "-fPIC")
THREADS = "-fopenmp"
SECONDS = 60
"""A compilation takes about two; one that takes longer than this is given up."""

POINTER, INTEGER = ctypes.c_void_p, ctypes.c_int64
SIGNATURES = {
    "attention_forward": (*(POINTER, INTEGER) * 3, POINTER, POINTER, POINTER, *(INTEGER,) * 6, ctypes.c_int),
    "attention_backward": (*(POINTER, INTEGER) * 3, *(POINTER,) * 6, *(INTEGER,) * 6, ctypes.c_int),
}


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None: no compiler, a failed compilation, or LORALET_NATIVE=0.

    torch is loaded before the library, so both use one OpenMP runtime and one pool of threads.
    """
    if os.environ.get("LORALET_NATIVE") == "0":
        return None
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        logger.info("no C compiler (%s): using torch's own kernels, which are slower", ", ".join(COMPILERS))
        return None
    try:
        loaded = ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, subprocess.SubprocessError) as error:
        logger.info("the C kernels cannot be used (%s): using torch's own, which are slower", error)
        return None
    for name, arguments in SIGNATURES.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, None
    return loaded


def _compiled(compiler: str) -> Path:
    processor = sorted(torch.cpu.get_capabilities().items())
    key = hashlib.sha256(repr((SOURCE.read_bytes(), compiler, FLAGS, processor)).encode()).hexdigest()[:16]
    path = cache_folder() / "native" / f"kernels-{key}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        for flags in ((*FLAGS, THREADS), FLAGS):
            done = subprocess.run(
                [compiler, *flags, str(SOURCE), "-o", str(made), "-lm"], capture_output=True, text=True, timeout=SECONDS, check=False
            )
            if done.returncode == 0:
                return made.replace(path)
    raise OSError(f"{compiler}: {done.stderr.strip()[:300]}")
