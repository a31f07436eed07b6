"""Backend, precision and CPU threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from loralet.backends.info import BackendChoice
from loralet.config.limits import choice_problems
from loralet.runtime import thread_problems

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class ComputeOptions:
    """Backend, precision and CPU threads."""

    backend: BackendChoice = "auto"
    """Compute backend: native (C kernels), torch, or auto: the fastest that supports the model."""
    precision: Precision = "auto"
    """Precision of the encoder; auto uses bf16 where it is the faster arithmetic."""
    threads: int | None = None
    """Number of CPU threads; one per core if not set."""

    def problems(self) -> Iterator[str]:
        choices = {"backend": BackendChoice, "precision": Precision}
        yield from choice_problems({name: (getattr(self, name), get_args(kind)) for name, kind in choices.items()})
        yield from thread_problems(self.threads)
