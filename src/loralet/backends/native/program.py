"""Programs of the native backend."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from loralet.adapters.base import Stack
from loralet.adapters.pack import Pack
from loralet.backends.base import Logits, RowLosses, memory_errors
from loralet.backends.batch import Batch
from loralet.backends.native.adapted import AdaptedEncoder, EncoderPass
from loralet.backends.native.encoder import PackedEncoder
from loralet.backends.native.head import NativeHead, TorchHead, kernel_has
from loralet.backends.torch import TorchProgram


class NativeProgram:
    """See :class:`loralet.backends.base.Program`.

    Args:
        pack: the parameter layout.
        encoder: the frozen weights.
    """

    def __init__(self, pack: Pack, encoder: PackedEncoder) -> None:
        self.pack, self.encoder = pack, encoder
        self.scales = {
            name: torch.tensor([a.scale if name in a.linears else 0.0 for a in pack.adapters]) for name in pack.adapted
        }

    @torch.no_grad()
    def logits(self, parameters: Float[Tensor, "k n"]) -> Logits:
        with memory_errors():
            tensors = self.pack.split(parameters.detach().clone())
            read, stacks = self.pack.shape.read, self._stacks(tensors)
            adapted = AdaptedEncoder(self.encoder, self.pack.adapters, stacks, read)

        @torch.no_grad()
        def forward(batch: Batch) -> Float[Tensor, "k b c"]:
            with memory_errors():
                head = self._head(tensors, batch, None)
                return head.forward(EncoderPass(adapted, batch).forward())

        return forward

    @torch.no_grad()
    def losses_and_gradient(
        self, parameters: Float[Tensor, "k n"], batch: Batch, row_losses: RowLosses, step: int | None = None
    ) -> tuple[Float[Tensor, "k"], Float[Tensor, "k n"]]:
        assert batch.targets is not None
        with memory_errors():
            parameters = parameters.detach().contiguous()
            gradient = torch.empty_like(parameters)
            tensors, gradients = self.pack.split(parameters), self.pack.split(gradient)
            read, stacks = self.pack.shape.read, self._stacks(tensors)
            adapted = AdaptedEncoder(self.encoder, self.pack.adapters, stacks, read, step, backward=True)
            states = EncoderPass(adapted, batch)
            head = self._head(tensors, batch, step)
            losses, grad = row_losses(head.forward(states.forward()), batch.targets)
            shares = batch.shares
            grad_states = head.backward(grad * shares[..., None], gradients, wanted=adapted.backward)
            if grad_states is not None:
                names = self.pack.adapted
                states.backward(grad_states, {n: (gradients[f"{n}.A"], gradients[f"{n}.B"]) for n in names})
        return (losses * shares).sum(-1), gradient

    def _stacks(self, tensors: Mapping[str, Tensor]) -> dict[str, Stack]:
        return {
            name: Stack({part: tensors[f"{name}.{part}"] for part in "AB"}, scale)
            for name, scale in self.scales.items()
        }

    def _head(self, tensors: Mapping[str, Tensor], batch: Batch, step: int | None) -> NativeHead | TorchHead:
        if kernel_has(self.pack):
            return NativeHead(self.encoder.kernels, self.pack, tensors, self.encoder.pooler, batch, step)
        return TorchHead(self.pack, tensors, self.encoder.pooler, batch, step)


class FullProgram:
    """Full fine-tuning: gradients with torch autograd and attention in C; evaluation entirely in C.

    Args:
        torch_program: computes losses and gradients.
        encoder: the initial weights.
    """

    def __init__(self, torch_program: TorchProgram, encoder: PackedEncoder) -> None:
        self.torch_program, self.encoder, self.pack = torch_program, encoder, torch_program.pack

    @torch.no_grad()
    def logits(self, parameters: Float[Tensor, "k n"]) -> Logits:
        with memory_errors():
            tensors, weights = self.pack.split(parameters.detach()), self.encoder.weights
            trained = {name: t[0].to(self.encoder.dtype) for name, t in tensors.items() if name in weights}
            encoder = PackedEncoder(self.encoder.kernels, weights | trained, self.encoder.table)
        return NativeProgram(self.pack, encoder).logits(parameters)

    def losses_and_gradient(
        self, parameters: Float[Tensor, "k n"], batch: Batch, row_losses: RowLosses, step: int | None = None
    ) -> tuple[Float[Tensor, "k"], Float[Tensor, "k n"]]:
        return self.torch_program.losses_and_gradient(parameters, batch, row_losses, step)
