"""The head in torch, on states of the native encoder, for poolers that the kernels do not support."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from loralet.adapters.dropout import Dropout
from loralet.adapters.pack import Pack
from loralet.backends.batch import Batch
from loralet.models.heads import classify, pool


class TorchHead:
    """The head in torch with autograd.

    Args:
        pack: the parameter layout.
        tensors: the trained tensors, views of one matrix ``[k n]``.
        frozen: ``pooler.*`` in fp32, for a frozen pooler.
        batch: the rows.
        step: number of optimiser steps taken before this one, for dropout; None: no dropout.
    """

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
