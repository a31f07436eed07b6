"""The backends of this machine, over which the tests of arithmetic are parametrised. torch on the CPU is the oracle."""

from __future__ import annotations

import pytest
import torch

from loralet.backends.base import Backend
from loralet.backends.native.backend import NativeBackend, NativeUnavailable
from loralet.backends.native.build import wanted_instructions
from loralet.backends.torch import TorchBackend


def _native() -> list[NativeBackend]:
    """One backend for each instruction set, or the one that ``LORALET_ISA`` names; none without a compiler."""
    try:
        return [NativeBackend(name) for name in wanted_instructions()]
    except NativeUnavailable:
        return []


def backend_id(backend: Backend) -> str:
    """A backend in a test's name."""
    return backend.kernels.instructions if isinstance(backend, NativeBackend) else f"torch-{backend.device.type}"


ORACLE = TorchBackend(torch.device("cpu"))
NATIVE = _native()
BACKENDS: list[Backend] = [ORACLE, *NATIVE, *([TorchBackend()] if torch.cuda.is_available() else [])]

each_native = pytest.mark.parametrize("backend", NATIVE, ids=backend_id)
"""A test for every instruction set of this machine; skipped where there is no compiler."""
each_backend = pytest.mark.parametrize("backend", BACKENDS, ids=backend_id)
"""A test for every backend of this machine."""
