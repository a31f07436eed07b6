"""The head on the encoder's states: in C if the kernels support it, else in torch with autograd."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from loralet.adapters.dropout import Dropout, head_index
from loralet.adapters.pack import Pack
from loralet.backends.batch import Batch
from loralet.backends.native.bindings import Kernels, Place, Structure
from loralet.backends.native.branches import head_masks
from loralet.models.heads import classify, pool


def kernel_has(pack: Pack) -> bool:
    """Whether the kernels support the pack's head: the mean over tokens, or a BERT pooler."""
    pooling = pack.shape.pooling
    return pack.shape.head == "mean" or (pooling.activation == "tanh" and pooling.bias and not pooling.norm)


class NativeHead:
    """Head and classifier of one batch in C.

    Args:
        kernels: the compiled kernels.
        pack: the parameter layout; the kernels must support its head.
        tensors: the trained tensors, views of one matrix ``[k n]``.
        frozen: ``pooler.*`` in fp32, for a frozen pooler.
        batch: the rows.
        step: number of optimiser steps taken before this one, for dropout; None: no dropout.
    """

    def __init__(
        self,
        kernels: Kernels,
        pack: Pack,
        tensors: Mapping[str, Tensor],
        frozen: Mapping[str, Tensor],
        batch: Batch,
        step: int | None = None,
    ) -> None:
        self.kernels, self.pack, self.tensors, self.rows = kernels, pack, tensors, len(batch)
        adapters, outputs, width = tensors["classifier.weight"].shape
        self.adapters = adapters
        self.structure = Structure("Head")
        self.structure.set(
            adapters=adapters,
            rows=self.rows,
            width=width,
            outputs=outputs,
            threads=torch.get_num_threads(),
            parameter_stride=tensors["classifier.weight"].stride(0),
        )
        self.structure.point(**_places("classifier", tensors, strided=True))
        if pack.shape.head == "mean":
            self.structure.point(offsets=batch.offsets.contiguous())
        else:
            self._point_to_pooler(tensors if "pooler.weight" in tensors else frozen)
        masks = head_masks(pack.adapters, pack.shape.head_dropout, step)
        if masks is not None:
            self.structure.set(dropout_index=head_index(pack.shape.table))
            numbers = None if batch.row_numbers is None else batch.row_numbers.contiguous()
            self.structure.point(dropout=masks, row_numbers=numbers)

    def _point_to_pooler(self, pooler: Mapping[str, Tensor]) -> None:
        trained = pooler is self.tensors
        self.structure.set(pooler_stride=pooler["pooler.weight"].stride(0) if trained else 0)
        self.structure.point(**_places("pooler", pooler, strided=trained))

    def forward(self, states: Float[Tensor, "j n d"]) -> Float[Tensor, "k b c"]:
        """Logits.

        Args:
            states: one per row, or, for the mean, one per token, concatenated; j is 1 if all adapters share them.
        """
        values = states.float().contiguous()
        per_adapter, self.state_type = len(values) == self.adapters, states.dtype
        features = torch.empty(self.adapters, self.rows, values.shape[-1])
        logits = torch.empty(self.adapters, self.rows, self.tensors["classifier.weight"].shape[1])
        self.structure.set(state_stride=values.stride(0) if per_adapter else 0)
        self.structure.point(states=values, features=features, logits=logits)
        self.values = values
        self.kernels.head_forward(self.structure)
        return logits

    def backward(
        self, grad: Float[Tensor, "k b c"], gradients: Mapping[str, Tensor], wanted: bool
    ) -> Float[Tensor, "k n d"] | None:
        """The gradient of the states, in their type, or None.

        Args:
            grad: gradient of the logits.
            gradients: gradients of the trained tensors, views of one matrix ``[k n]``; the head's are written.
            wanted: whether to compute the gradient of the states, which are then per-adapter.
        """
        grad_states = torch.empty_like(self.values) if wanted else None
        self.structure.point(grad_logits=grad.float().contiguous(), grad_states=grad_states)
        for part in ("classifier", "pooler"):
            if f"{part}.weight" in gradients:
                self.structure.point(**_places(part, gradients, strided=True, prefix="grad_"))
        self.kernels.head_backward(self.structure)
        return None if grad_states is None else grad_states.to(self.state_type)


def _places(part: str, tensors: Mapping[str, Tensor], strided: bool, prefix: str = "") -> dict[str, Place]:
    """Weight and bias of a linear layer, by their field names in ``Head``."""
    return {f"{prefix}{part}_{kind}": Place(tensors[f"{part}.{kind}"], 0, strided) for kind in ("weight", "bias")}


class TorchHead:
    """The head in torch, for poolers that the kernels do not support. Arguments as for :class:`NativeHead`."""

    def __init__(
        self,
        pack: Pack,
        tensors: Mapping[str, Tensor],
        frozen: Mapping[str, Tensor],
        batch: Batch,
        step: int | None = None,
    ) -> None:
        shape = pack.shape
        names = [name for name in tensors if name.startswith(("classifier.", "pooler."))]
        self.pooling, self.rows = shape.pooling, len(batch)
        self.trained = {name: tensors[name].detach().requires_grad_() for name in names}
        self.frozen = {name: tensor[None] for name, tensor in frozen.items()}
        dropout = None if step is None else Dropout(shape.table, pack.adapters, step, shape.head_dropout)
        self.factors = None if dropout is None else dropout.head_factors(batch.numbers(), shape.table.width)

    def forward(self, states: Float[Tensor, "j b d"]) -> Float[Tensor, "k b c"]:
        self.states = states.detach().requires_grad_()
        with torch.enable_grad():
            features = pool(self.states, self.frozen | self.trained, self.pooling)
            features = features if self.factors is None else features * self.factors
            logits = classify(features, self.trained["classifier.weight"], self.trained["classifier.bias"])
        self.logits = logits
        return logits.detach()

    def backward(
        self, grad: Float[Tensor, "k b c"], gradients: Mapping[str, Tensor], wanted: bool
    ) -> Float[Tensor, "k b d"] | None:
        found = torch.autograd.grad(self.logits, [self.states, *self.trained.values()], grad)
        for name, gradient in zip(self.trained, found[1:], strict=True):
            gradients[name].copy_(gradient)
        return found[0] if wanted else None
