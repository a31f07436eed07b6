"""Programs of the native backend."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from loralet.adapters.pack import Pack
from loralet.backends.base import Logits, RowLosses, memory_errors
from loralet.backends.batch import Batch
from loralet.backends.native.adapted import AdaptedEncoder, EncoderPass, low_rank_of
from loralet.backends.native.encoder import PackedEncoder
from loralet.backends.native.head import NativeHead, kernel_has
from loralet.backends.native.torch_arrays import array_of, rows_of, tensor_of
from loralet.backends.native.torch_head import TorchHead
from loralet.backends.torch import TorchProgram


class NativeProgram:
    """See :class:`loralet.backends.base.Program`.

    Args:
        pack: the parameter layout.
        encoder: the frozen weights.
    """

    def __init__(self, pack: Pack, encoder: PackedEncoder) -> None:
        self.pack, self.encoder = pack, encoder
        self._training: Training | None = None

    @torch.no_grad()
    def logits(self, parameters: Float[Tensor, "k n"]) -> Logits:
        with memory_errors():
            tensors = self.pack.split(parameters.detach().clone())
            arrays = {name: array_of(tensor) for name, tensor in tensors.items()}
            matrices = low_rank_of(self.pack, arrays)
            adapted = AdaptedEncoder(self.encoder, self.pack.adapters, matrices, self.pack.shape.read)
            adapted.pack()
            head = _native_head(self.pack, self.encoder, arrays)

        @torch.no_grad()
        def forward(batch: Batch) -> Float[Tensor, "k b c"]:
            with memory_errors():
                rows = rows_of(batch)
                states = EncoderPass(adapted, rows).forward()
                if head is not None:
                    return tensor_of(head.on(rows, self.pack.shape.table).forward(states))
                frozen = {name: tensor_of(array) for name, array in self.encoder.pooler.items()}
                return TorchHead(self.pack, tensors, frozen, batch, None).forward(tensor_of(states))

        return forward

    def losses_and_gradient(
        self, parameters: Float[Tensor, "k n"], batch: Batch, row_losses: RowLosses, step: int | None = None
    ) -> tuple[Float[Tensor, "k"], Float[Tensor, "k n"]]:
        with memory_errors(), torch.no_grad():
            training = self._training
            if training is None or not training.reads(parameters, step):
                self._training = training = None  # free its memory first
                self._training = training = Training(self.pack, self.encoder, parameters, step)
            return training.losses_and_gradient(batch, row_losses, step)


class Training:
    """Steps on one matrix of parameters, which an optimiser changes in place. Structures and memory are kept.

    Args:
        pack: the parameter layout.
        encoder: the frozen weights.
        parameters: the trained parameters.
        step: a step with dropout; None: without dropout.
    """

    def __init__(self, pack: Pack, encoder: PackedEncoder, parameters: Float[Tensor, "k n"], step: int | None) -> None:
        self.pack, self.encoder, self.dropout = pack, encoder, step is not None
        self.parameters = parameters.detach().contiguous()
        self.gradient = torch.empty_like(self.parameters)
        self.tensors, self.gradients = pack.split(self.parameters), pack.split(self.gradient)
        self.arrays = {name: array_of(tensor) for name, tensor in self.tensors.items()}
        self.gradient_arrays = {name: array_of(tensor) for name, tensor in self.gradients.items()}
        matrices = low_rank_of(pack, self.arrays)
        self.adapted = AdaptedEncoder(encoder, pack.adapters, matrices, pack.shape.read, self.dropout, backward=True)
        self.into = self.adapted.gradients(
            {name: (self.gradient_arrays[f"{name}.A"], self.gradient_arrays[f"{name}.B"]) for name in matrices}
        )
        self.head = _native_head(pack, encoder, self.arrays)

    def reads(self, parameters: Float[Tensor, "k n"], step: int | None) -> bool:
        """Whether this object computes steps on these parameters."""
        same = parameters.data_ptr() == self.parameters.data_ptr() and parameters.shape == self.parameters.shape
        return same and parameters.is_contiguous() and self.dropout == (step is not None)

    def losses_and_gradient(
        self, batch: Batch, row_losses: RowLosses, step: int | None
    ) -> tuple[Float[Tensor, "k"], Float[Tensor, "k n"]]:
        """See :meth:`loralet.backends.base.Program.losses_and_gradient`."""
        assert batch.targets is not None
        shape, rows = self.pack.shape, rows_of(batch)
        self.adapted.pack(step)
        passed = EncoderPass(self.adapted, rows)
        states, shares = passed.forward(), batch.shares
        if self.head is not None:
            head = self.head.on(rows, shape.table, self.pack.adapters, shape.head_dropout, step)
            losses, grad = row_losses(tensor_of(head.forward(states)), batch.targets)
            wanted = array_of((grad * shares[..., None]).float())
            grad_states = head.backward(wanted, self.gradient_arrays, self.adapted.backward)
        else:
            losses, grad_states = self._in_torch(batch, states, row_losses, step)
        if grad_states is not None:
            passed.backward(grad_states, self.into)
        return (losses * shares).sum(-1), self.gradient.clone()

    def _in_torch(
        self, batch: Batch, states: np.ndarray, row_losses: RowLosses, step: int | None
    ) -> tuple[Tensor, np.ndarray | None]:
        """Losses, and the gradient of the states, with the head in torch."""
        assert batch.targets is not None
        frozen = {name: tensor_of(array) for name, array in self.encoder.pooler.items()}
        head = TorchHead(self.pack, self.tensors, frozen, batch, step)
        losses, grad = row_losses(head.forward(tensor_of(states)), batch.targets)
        found = head.backward(grad * batch.shares[..., None], self.gradients, wanted=self.adapted.backward)
        return losses, None if found is None else array_of(found)


def _native_head(pack: Pack, encoder: PackedEncoder, arrays: Mapping[str, np.ndarray]) -> NativeHead | None:
    """The head in C; None if the kernels do not support it."""
    if not kernel_has(pack.shape.head, pack.shape.pooling):
        return None
    return NativeHead(encoder.kernels, pack.shape.head, arrays, encoder.pooler)


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
            tensors, dtype = self.pack.split(parameters.detach()), self.torch_program.weights["embeddings.word"].dtype
            weights = self.encoder.weights
            trained = {name: array_of(t[0].to(dtype)) for name, t in tensors.items() if name in weights}
            encoder = PackedEncoder(self.encoder.kernels, {**weights, **trained}, self.encoder.table)
        return NativeProgram(self.pack, encoder).logits(parameters)

    def losses_and_gradient(
        self, parameters: Float[Tensor, "k n"], batch: Batch, row_losses: RowLosses, step: int | None = None
    ) -> tuple[Float[Tensor, "k"], Float[Tensor, "k n"]]:
        return self.torch_program.losses_and_gradient(parameters, batch, row_losses, step)
