"""The backends of this machine, for parametrised tests. torch on the CPU is the reference."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
import torch
from filelock import FileLock

from loralet.backends.base import Backend
from loralet.backends.native.backend import NativeBackend, NativeUnavailable
from loralet.backends.native.build import FORCED, wanted_instructions
from loralet.backends.torch import DTYPES, TorchBackend
from loralet.cache import writable_cache_folder

EMULATED = "amx-emulated"
"""The kernels for AMX with tiles emulated in C. In fp32 they use no tiles and equal those of ``portable``."""


def instructions_under_test() -> list[str]:
    """The instruction sets of this machine and the emulated one, or only the one set by ``LORALET_ISA``."""
    return wanted_instructions() + ([] if os.environ.get(FORCED) else [EMULATED])


def _native() -> list[NativeBackend]:
    """One backend per instruction set; empty without a compiler. One test worker compiles, and the others wait."""
    try:
        with FileLock(writable_cache_folder() / "tests.lock"):
            return [NativeBackend(name) for name in instructions_under_test()]
    except NativeUnavailable:
        return []


def backend_id(backend: Backend) -> str:
    """The id of a backend in test names."""
    return backend.kernels.instructions if isinstance(backend, NativeBackend) else f"torch-{backend.device.type}"


ORACLE = TorchBackend(torch.device("cpu"))
NATIVE = _native()
GPU = [TorchBackend()] if torch.cuda.is_available() else []
BACKENDS: list[Backend] = [ORACLE, *NATIVE, *GPU]
FEW: list[Backend] = [ORACLE, *NATIVE[:1], *GPU]
"""torch and the best instruction set of this machine, for slow tests."""


def measured_once(backend: Backend) -> tuple[pytest.MarkDecorator, ...]:
    """The marks of a test with a backend: instruction sets execute the same Python, which coverage measures once."""
    return (pytest.mark.no_cover,) if backend in NATIVE[1:] else ()


def cases(backends: Sequence[Backend]) -> list[object]:
    """The backends as parameters of a test."""
    return [pytest.param(one, id=backend_id(one), marks=measured_once(one)) for one in backends]


each_native = pytest.mark.parametrize("backend", cases(NATIVE))
"""Run a test for each instruction set of this machine. Skipped without a compiler."""
each_native_and_type = pytest.mark.parametrize(
    ("dtype", "backend"),
    [
        pytest.param(dtype, backend, id=f"{name}-{backend_id(backend)}", marks=measured_once(backend))
        for dtype, name in DTYPES.items()
        for backend in NATIVE
        if dtype == torch.bfloat16 or backend.kernels.instructions != EMULATED
    ],
)
"""The same for each arithmetic type, but for fp32 with emulated tiles, which is not different from ``portable``."""
each_backend = pytest.mark.parametrize("backend", cases(BACKENDS))
"""Run a test for each backend of this machine."""
each_of_few = pytest.mark.parametrize("backend", cases(FEW))
"""Run a slow test with torch and the best instruction set of this machine only."""
