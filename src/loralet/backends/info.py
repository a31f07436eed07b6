"""The choice of a backend as the user makes it, and as a run folder records it; without torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, get_args

from loralet.errors import ConfigError

BackendName = Literal["torch", "native", "onnxruntime"]
BackendChoice = Literal["auto", "native", "torch"]
"""Every value of ``--backend``."""
VARIABLE = "LORALET_BACKEND"
"""Environment variable that replaces ``--backend`` if that is ``auto``."""


@dataclass(frozen=True)
class BackendInfo:
    """The backend's entry in a run folder.

    Args:
        name: ``torch``, ``native``, or ``onnxruntime`` for a classifier that is an ONNX graph.
        device: ``cpu``, or the GPU's name.
        instructions: display name of the kernels' instruction set; empty for torch.
        dtype: type of the encoder's arithmetic: ``fp32`` or ``bf16``.
        threads: number of CPU threads.
        reason: why the preferred backend was not used; empty if it was.
    """

    name: BackendName
    device: str
    instructions: str
    dtype: str
    threads: int
    reason: str = ""

    def __str__(self) -> str:
        """One line, for example ``native, AVX-512 BF16, bf16, 2 threads`` or ``torch: no C compiler found``."""
        if self.reason:
            return f"{self.name}: {self.reason}"
        threads = f"{self.threads} thread{'s' if self.threads != 1 else ''}"
        parts = [self.name, self.instructions, self.dtype, threads if self.device == "cpu" else self.device]
        return ", ".join(part for part in parts if part)


def wanted_backend(wanted: str) -> tuple[str, str]:
    """The backend that the user wants, and how a message names a request for the native backend.

    Args:
        wanted: value of ``--backend``; the environment variable ``LORALET_BACKEND`` counts if it is ``auto``.

    Raises:
        ConfigError: the variable is not the name of a backend.
    """
    if wanted != "auto":
        return wanted, "--backend native"
    given = os.environ.get(VARIABLE) or "auto"
    if given not in get_args(BackendChoice):
        raise ConfigError(f"{VARIABLE} is {given!r}: it must be one of {', '.join(get_args(BackendChoice))}")
    return given, f"{VARIABLE}=native"
