"""Compiles kernels.c and what it includes, once for each source, compiler and processor, and loads it."""

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
from typing import Any

import torch

from loralet.cache import cache_folder

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("csrc") / "kernels.c"
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-strict-aliasing", "-std=gnu11", "-shared", "-fPIC")
THREADS = "-fopenmp"
SECONDS = 60
"""A compilation takes about three; one that takes longer than this is given up."""

POINTER, INTEGER = ctypes.c_void_p, ctypes.c_int64
KINDS = ("fp32", "bf16")
OPERANDS = (POINTER, INTEGER) * 3
SIGNATURES: dict[str, tuple[tuple[Any, ...], Any]] = {
    "prepare": ((POINTER, POINTER, *(INTEGER,) * 3, POINTER, POINTER, INTEGER), None),
    "prepare_dropout": ((POINTER, INTEGER, ctypes.c_float, *(INTEGER,) * 3, *(POINTER,) * 4), None),
    "attention_forward": ((*OPERANDS, POINTER, POINTER, POINTER, *(INTEGER,) * 7), None),
    "attention_backward": ((*OPERANDS, *(POINTER,) * 6, *(INTEGER,) * 7), None),
    "encoder_bytes": ((POINTER,), INTEGER),
    "encoder_forward": ((POINTER, POINTER, POINTER), None),
    "encoder_backward": ((POINTER, POINTER, POINTER, INTEGER), None),
}
"""Arguments and result of each kernel; each stands in the library once for every kind of number."""
SINGLE: dict[str, tuple[tuple[Any, ...], Any]] = {
    "low_rank_gradients": ((POINTER, POINTER, *(INTEGER,) * 4, POINTER, INTEGER, POINTER, INTEGER, INTEGER), None),
    "head_pass": ((POINTER,), None),
    "mask_factors": ((POINTER, INTEGER, INTEGER, INTEGER, POINTER), None),
    "structure_sizes": ((POINTER,), None),
    "adamw": ((POINTER,) * 7 + (INTEGER, INTEGER, POINTER, INTEGER), None),
}
"""Kernels that stand there once."""

Kernels = dict[str, Any]
"""The kernels of one kind of number, by name."""


@cache
def library() -> dict[str, Kernels] | None:
    """The compiled kernels by kind of number, or None: no compiler, a failed compilation, or LORALET_NATIVE=0.

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
    shared = {name: _function(loaded, name, *signature) for name, signature in SINGLE.items()}
    return {
        kind: shared | {name: _function(loaded, f"{name}_{kind}", *signature) for name, signature in SIGNATURES.items()}
        for kind in KINDS
    }


def _function(loaded: ctypes.CDLL, name: str, arguments: tuple[Any, ...], result: Any) -> Any:
    function = getattr(loaded, name)
    function.argtypes, function.restype = arguments, result
    return function


def _compiled(compiler: str) -> Path:
    processor = sorted(torch.cpu.get_capabilities().items())
    sources = [path.read_bytes() for path in sorted(SOURCE.parent.glob("*.[ch]"))]
    key = hashlib.sha256(repr((sources, compiler, FLAGS, processor)).encode()).hexdigest()[:16]
    path = cache_folder() / "native" / f"kernels-{key}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        for flags in ((*FLAGS, THREADS), FLAGS):
            done = subprocess.run(
                [compiler, *flags, str(SOURCE), "-o", str(made), "-lm", "-lpthread"],
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
            if done.returncode == 0:
                return made.replace(path)
    raise OSError(f"{compiler}: {done.stderr.strip()[:300]}")
