"""The native backend: C kernels compiled for an instruction set of this CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from loralet.adapters.pack import Pack
from loralet.backends.base import AdamWStep
from loralet.backends.batch import Batch
from loralet.backends.info import BackendInfo, BackendName
from loralet.backends.native.attention import NativeAttention
from loralet.backends.native.bindings import Structure, load_kernels
from loralet.backends.native.build import NativeUnavailable
from loralet.backends.native.encoder import PackedEncoder
from loralet.backends.native.program import FullProgram, NativeProgram
from loralet.backends.native.support import METHOD, bf16_is_faster, unsupported
from loralet.backends.native.torch_arrays import ARRAY_TYPES, array_of
from loralet.backends.torch import DTYPES, TorchBackend, TorchProgram
from loralet.models.forward import Attention, Weights
from loralet.models.table import EncoderTable
from loralet.runtime import thread_count

__all__ = ["NativeBackend", "NativeEncoder", "NativeUnavailable"]


class NativeBackend:
    """See :class:`loralet.backends.base.Backend`.

    Args:
        instructions: one of :func:`loralet.backends.native.build.available_instructions`; None: the value of
            ``LORALET_ISA``, else the best of this machine.

    Raises:
        NativeUnavailable: there are no kernels; the message gives the reason.
    """

    name: BackendName = "native"

    def __init__(self, instructions: str | None = None) -> None:
        self.device = torch.device("cpu")
        self.kernels = load_kernels(instructions)
        self._torch = TorchBackend(self.device)
        self._attention = NativeAttention(self.kernels)

    @property
    def attention(self) -> Attention:
        return self._attention

    @property
    def fastest_dtype(self) -> torch.dtype:
        """See :func:`loralet.backends.native.support.bf16_is_faster`."""
        return torch.bfloat16 if bf16_is_faster(self.kernels.instructions) else torch.float32

    def info(self, dtype: torch.dtype, reason: str = "") -> BackendInfo:
        return BackendInfo(self.name, "cpu", self.kernels.words, DTYPES[dtype], thread_count(), reason)

    def supports(self, table: EncoderTable, dtype: torch.dtype, method: str = METHOD) -> str | None:
        if dtype not in ARRAY_TYPES:
            return f"it computes in fp32 or bf16, not in {dtype}"
        return unsupported(table, method)

    def load(self, weights: Weights, table: EncoderTable, dtype: torch.dtype) -> NativeEncoder:
        reason = self.supports(table, dtype)
        if reason:
            raise ValueError(f"the native backend cannot compute this encoder: {reason}")
        return NativeEncoder(self, {name: t.to(self.device, dtype) for name, t in weights.items()}, table)

    def map(self, function: Callable[[Batch], Tensor], batches: Iterable[Batch]) -> Iterator[Tensor]:
        return self._torch.map(function, batches)

    @torch.no_grad()
    def adamw(
        self,
        parameters: Float[Tensor, "k n"],
        gradient: Float[Tensor, "k n"],
        moments: tuple[Float[Tensor, "k n"], Float[Tensor, "k n"]],
        course: AdamWStep,
        finite: Bool[Tensor, "k"],
    ) -> None:
        """See :meth:`loralet.backends.base.Backend.adamw`.

        Raises:
            ValueError: parameters, moments or ``finite`` are not contiguous, or a tensor has the wrong type.
        """
        step = Structure("AdamW")
        adapters, size = parameters.shape
        numbers = {name: getattr(course, name) for name in ("clip", "beta1", "beta2", "epsilon")}
        step.set(adapters=adapters, size=size, threads=thread_count(), **numbers)
        step.set(correction1=course.correction1, correction2=course.correction2)
        step.point(parameters=array_of(parameters), finite=array_of(finite))
        step.point(first=array_of(moments[0]), second=array_of(moments[1]))
        step.point(gradient=array_of(gradient.contiguous()), lr=array_of(course.lr.contiguous()))
        step.point(decay=array_of(course.decay.contiguous()))
        if course.lr_factors is not None:
            step.point(lr_factors=array_of(course.lr_factors.contiguous()))
        self.kernels.adamw(step)


class NativeEncoder:
    """See :class:`loralet.backends.base.LoadedEncoder`.

    Args:
        backend: the native backend.
        weights: the frozen tensors, in the arithmetic type.
        table: the encoder's layer table.
    """

    def __init__(self, backend: NativeBackend, weights: Weights, table: EncoderTable) -> None:
        self.backend, self.weights, self.table = backend, weights, table
        self.dtype = weights["embeddings.word"].dtype
        self.packed = PackedEncoder(backend.kernels, {name: array_of(t) for name, t in weights.items()}, table)

    def program(self, pack: Pack) -> NativeProgram | FullProgram:
        """The program of a pack on this encoder.

        Raises:
            ValueError: the adapter method is not supported.
        """
        reason = self.backend.supports(self.table, self.dtype, pack.method.name)
        if reason:
            raise ValueError(f"the native backend cannot compute this pack: {reason}")
        if not pack.shape.full:
            return NativeProgram(pack, self.packed)
        parts = self.backend._torch.parts
        return FullProgram(TorchProgram(pack, self.weights, parts, self.backend.attention), self.packed)
