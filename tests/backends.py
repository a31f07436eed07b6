"""The backends of this machine, for parametrised tests. torch on the CPU is the reference."""

from __future__ import annotations

import pytest
import torch

from loralet.backends.base import Backend
from loralet.backends.native.backend import NativeBackend, NativeUnavailable
from loralet.backends.native.build import wanted_instructions
from loralet.backends.torch import TorchBackend


def _native() -> list[NativeBackend]:
    """One backend per instruction set, or the one set by ``LORALET_ISA``; empty without a compiler."""
    try:
        return [NativeBackend(name) for name in wanted_instructions()]
    except NativeUnavailable:
        return []


def backend_id(backend: Backend) -> str:
    """The id of a backend in test names."""
    return backend.kernels.instructions if isinstance(backend, NativeBackend) else f"torch-{backend.device.type}"


ORACLE = TorchBackend(torch.device("cpu"))
NATIVE = _native()
BACKENDS: list[Backend] = [ORACLE, *NATIVE, *([TorchBackend()] if torch.cuda.is_available() else [])]

each_native = pytest.mark.parametrize("backend", NATIVE, ids=backend_id)
"""Run a test for each instruction set of this machine. Skipped without a compiler."""
each_backend = pytest.mark.parametrize("backend", BACKENDS, ids=backend_id)
"""Run a test for each backend of this machine."""
