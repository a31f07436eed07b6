"""The protocol of a compute backend.

A backend is chosen once per session (:mod:`loralet.backends.choice`). It loads the frozen weights of an encoder once;
a pack over them becomes a program, which computes logits, losses and gradients. Whatever a backend does not support it
refuses, with a reason: an unknown field of the encoder's table is never guessed at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from loralet.adapters.pack import Pack
from loralet.backends.batch import Batch
from loralet.models.forward import Attention, Weights
from loralet.models.table import EncoderTable

BackendName = Literal["torch", "native"]

RowLosses = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""A task's loss: ``(logits [k b c], targets) -> (losses [k b], gradient [k b c])``, each row's loss and its gradient."""

Logits = Callable[[Batch], Tensor]
"""A forward pass with fixed parameters: a batch becomes logits ``[k b c]``, fp32, on the CPU."""


@dataclass(frozen=True)
class BackendInfo:
    """What a run folder records of a backend.

    Args:
        name: ``torch`` or ``native``.
        device: ``cpu``, or the GPU's name.
        instructions: the instruction set of its kernels, in words; empty for torch.
        dtype: type of the encoder's arithmetic: ``fp32`` or ``bf16``.
        threads: CPU threads.
        reason: why it was chosen where another was preferred; empty where it was the first choice.
    """

    name: BackendName
    device: str
    instructions: str
    dtype: str
    threads: int
    reason: str = ""

    def __str__(self) -> str:
        """One line, such as ``native, AVX-512 BF16, bf16, 2 threads`` or ``torch: no C compiler found``."""
        if self.reason:
            return f"{self.name}: {self.reason}"
        threads = f"{self.threads} thread{'s' if self.threads != 1 else ''}"
        parts = [self.name, self.instructions, self.dtype, threads if self.device == "cpu" else self.device]
        return ", ".join(part for part in parts if part)


@runtime_checkable
class Program(Protocol):
    """A pack over a loaded encoder, ready to compute."""

    pack: Pack

    def logits(self, parameters: Float[Tensor, "k n"]) -> Logits:
        """The forward pass without dropout; what depends on the parameters alone is computed here, once."""
        ...

    def losses_and_gradient(
        self, parameters: Float[Tensor, "k n"], batch: Batch, row_losses: RowLosses, step: int | None = None
    ) -> tuple[Float[Tensor, "k"], Float[Tensor, "k n"]]:
        """Each adapter's mean loss over a batch, and the gradient of the sum of them.

        Args:
            parameters: the trained parameters.
            batch: with targets.
            row_losses: the task's loss.
            step: optimiser steps taken before this one, from which dropout is drawn; None: no dropout.

        Raises:
            IndexError: a token id that is not in the vocabulary, a row without tokens, or one that is too long.
            MemoryError: there is no memory for it.
        """
        ...


@runtime_checkable
class LoadedEncoder(Protocol):
    """An encoder's frozen weights as a backend computes with them, shared by all its packs."""

    weights: Weights
    table: EncoderTable

    def program(self, pack: Pack) -> Program:
        """A pack over this encoder."""
        ...


@runtime_checkable
class Backend(Protocol):
    """Where packs are computed."""

    name: BackendName
    device: torch.device

    def info(self, dtype: torch.dtype, reason: str = "") -> BackendInfo:
        """What a run folder records of it."""
        ...

    def supports(self, table: EncoderTable, dtype: torch.dtype, method: str = "lora") -> str | None:
        """Why it cannot compute this encoder, or None where it can.

        Args:
            table: the encoder's layer table; every field of it must be one that the backend knows.
            dtype: type of the arithmetic.
            method: the adapter method.
        """
        ...

    def load(self, weights: Weights, table: EncoderTable, dtype: torch.dtype) -> LoadedEncoder:
        """Take frozen weights in; they are converted to ``dtype``, which is the type of the arithmetic.

        Raises:
            ValueError: the encoder is not supported; see :meth:`supports`.
        """
        ...

    def map(self, function: Callable[[Batch], Tensor], batches: Iterable[Batch]) -> Iterator[Tensor]:
        """The function of each batch, in order; several at once where that is faster."""
        ...

    def adamw(
        self,
        parameters: Float[Tensor, "k n"],
        gradient: Float[Tensor, "k n"],
        moments: tuple[Float[Tensor, "k n"], Float[Tensor, "k n"]],
        course: AdamWStep,
        sound: Bool[Tensor, "k"],
    ) -> None:
        """One update of AdamW (Loshchilov and Hutter 2019, algorithm 2), in place, row by row.

        Args:
            parameters: the trained parameters.
            gradient: theirs.
            moments: running means of gradient and squared gradient.
            course: rates and corrections of this step.
            sound: which adapters take part; those whose gradient's norm is not finite are cleared. An adapter that does
                not take part keeps its parameters and moments.
        """
        ...

    @property
    def attention(self) -> Attention:
        """Differentiable attention, for passes that torch differentiates (full fine-tuning, distillation)."""
        ...


@dataclass(frozen=True)
class AdamWStep:
    """The numbers of one AdamW update.

    Args:
        lr: learning rate of each adapter in this step.
        lr_factors: factor of each parameter's learning rate (LoRA+); None: all 1.
        decay: weight decay of each parameter.
        clip: largest norm of one adapter's gradient; 0: not clipped.
        beta1, beta2, epsilon: see :mod:`loralet.training.optimizer`.
        correction1, correction2: ``1 - beta1^t`` and ``sqrt(1 - beta2^t)`` after t updates.
    """

    lr: Float[Tensor, "k"]
    decay: Float[Tensor, "n"]
    clip: float
    beta1: float
    beta2: float
    epsilon: float
    correction1: float
    correction2: float
    lr_factors: Float[Tensor, "k n"] | None = None
