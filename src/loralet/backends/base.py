"""The protocol of a compute backend.

A backend is chosen once per session (:mod:`loralet.backends.choice`). It loads the frozen weights of an encoder once.
A pack of adapters for this encoder becomes a program, which computes logits, losses and gradients. A backend rejects
what it does not support, with a reason. It also rejects unknown fields of the encoder's layer table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from loralet.adapters.pack import Pack
from loralet.backends.batch import Batch
from loralet.backends.info import BackendInfo, BackendName
from loralet.errors import is_out_of_memory
from loralet.models.forward import Attention, Weights
from loralet.models.table import EncoderTable

RowLosses = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""A task's loss per row and its gradient: ``(logits [k b c], targets) -> (losses [k b], gradient [k b c])``."""

Logits = Callable[[Batch], Tensor]
"""A forward pass with fixed parameters, from a batch to logits ``[k b c]``, fp32, on the CPU."""


@runtime_checkable
class Program(Protocol):
    """A pack of adapters on a loaded encoder."""

    pack: Pack

    def logits(self, parameters: Float[Tensor, "k n"]) -> Logits:
        """The forward pass without dropout. Values that depend only on the parameters are computed here, once."""
        ...

    def losses_and_gradient(
        self, parameters: Float[Tensor, "k n"], batch: Batch, row_losses: RowLosses, step: int | None = None
    ) -> tuple[Float[Tensor, "k"], Float[Tensor, "k n"]]:
        """Each adapter's mean loss over a batch, and the gradient of their sum.

        Args:
            parameters: the trained parameters.
            batch: the rows, with targets.
            row_losses: the task's loss.
            step: number of optimiser steps taken before this one, which seeds dropout; None: no dropout.

        Raises:
            IndexError: a token id is not in the vocabulary, or a row has no tokens or too many.
            MemoryError: not enough memory.
        """
        ...


@runtime_checkable
class LoadedEncoder(Protocol):
    """An encoder's frozen weights in the form that a backend needs, shared by all packs."""

    weights: Weights
    table: EncoderTable

    def program(self, pack: Pack) -> Program:
        """The program of a pack on this encoder."""
        ...


@runtime_checkable
class Backend(Protocol):
    """A compute backend."""

    name: BackendName
    device: torch.device

    @property
    def fastest_dtype(self) -> torch.dtype:
        """The type of ``--precision auto``: bf16 where it is the faster arithmetic, else fp32."""
        ...

    def info(self, dtype: torch.dtype, reason: str = "") -> BackendInfo:
        """The backend's entry in a run folder."""
        ...

    def supports(self, table: EncoderTable, dtype: torch.dtype, method: str = "lora") -> str | None:
        """The reason why the backend does not support this encoder, or None if it does.

        Args:
            table: the encoder's layer table; the backend must know all its fields.
            dtype: arithmetic type.
            method: the adapter method.
        """
        ...

    def load(self, weights: Weights, table: EncoderTable, dtype: torch.dtype) -> LoadedEncoder:
        """Load frozen weights and convert them to ``dtype``, the arithmetic type.

        Raises:
            ValueError: the encoder is not supported; see :meth:`supports`.
        """
        ...

    def map(self, function: Callable[[Batch], Tensor], batches: Iterable[Batch]) -> Iterator[Tensor]:
        """Apply a function to each batch, in order; in parallel if that is faster."""
        ...

    def adamw(
        self,
        parameters: Float[Tensor, "k n"],
        gradient: Float[Tensor, "k n"],
        moments: tuple[Float[Tensor, "k n"], Float[Tensor, "k n"]],
        course: AdamWStep,
        finite: Bool[Tensor, "k"],
    ) -> None:
        """One AdamW update (Loshchilov and Hutter 2019, algorithm 2), in place, row by row.

        Args:
            parameters: the trained parameters.
            gradient: the gradient of the parameters.
            moments: running means of gradient and squared gradient.
            course: learning rates and bias corrections of this step.
            finite: the adapters to update; cleared where the norm of the gradient is not finite. The other adapters
                keep their parameters and moments.
        """
        ...

    @property
    def attention(self) -> Attention:
        """Differentiable attention, for passes with autograd (full fine-tuning, distillation)."""
        ...


@dataclass(frozen=True)
class AdamWStep:
    """The hyperparameters of one AdamW update.

    Args:
        lr: learning rate of each adapter in this step.
        lr_factors: factor of each parameter's learning rate (LoRA+); None: all 1.
        decay: weight decay of each parameter.
        clip: largest gradient norm per adapter; 0: no clipping.
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


@contextmanager
def memory_errors() -> Iterator[None]:
    """Convert torch's out-of-memory errors, of the CPU or a GPU, to MemoryError."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise
