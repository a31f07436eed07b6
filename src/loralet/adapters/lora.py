"""LoRA: ``y = x W^T + b + scale * dropout(x) A^T B^T`` (Hu et al. 2021, section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from loralet.adapters.base import Stack, batched_linear
from loralet.adapters.formats import FORMATS, Format
from loralet.adapters.spec import Method


class Lora:
    """Low-rank adaptation. Tensors: ``A`` ``[r d]`` and ``B`` ``[o r]``.

    See :class:`loralet.adapters.base.AdapterMethod`. A padded row of A and its column of B get no gradient, so they
    stay zero.
    """

    name: Method = "lora"
    format: Format = FORMATS["lora"]

    def start(self, tensors: Mapping[str, Tensor], weight: Float[Tensor, "o d"], generator: torch.Generator) -> None:
        """Draw A from U(-1/sqrt(d), 1/sqrt(d)) (Kaiming-uniform with a = sqrt(5)), as in PEFT; B stays zero."""
        bound = 1 / math.sqrt(weight.shape[1])
        tensors["A"].uniform_(-bound, bound, generator=generator)

    def neutral(self, tensors: Mapping[str, Tensor], weight: Float[Tensor, "o d"]) -> None:
        """Do nothing: zeros do not change the layer."""

    def effective(self, weight: Float[Tensor, "o d"], stack: Stack) -> Float[Tensor, "k o d"]:
        return weight + delta(stack).to(weight.dtype)

    def branch(
        self,
        x: Float[Tensor, "j b t d"],
        dropped: Float[Tensor, "k b t d"],
        weight: Float[Tensor, "o d"],
        bias: Float[Tensor, "o"] | None,
        stack: Stack,
    ) -> Float[Tensor, "k b t o"]:
        return F.linear(x, weight, bias) + low_rank(dropped, stack)

    def mean(self, members: Sequence[Mapping[str, Tensor]], scales: Sequence[float]) -> dict[str, Tensor] | None:
        """Stack the rows of A and concatenate the columns of B, each B times its scale over the first scale."""
        scaled = [own["B"] * (scale / scales[0]) for own, scale in zip(members, scales, strict=True)]
        return {"A": torch.cat([own["A"] for own in members]), "B": torch.cat(scaled, dim=1)}

    def merge(self, weight: Float[Tensor, "o d"], tensors: Mapping[str, Tensor], scale: float) -> Float[Tensor, "o d"]:
        return weight.float() + (tensors["B"] * scale) @ tensors["A"]


def delta(stack: Stack) -> Float[Tensor, "k o d"]:
    """``scale * B A`` of each adapter, in the type of A and B."""
    return torch.bmm(stack["B"] * stack.scale[:, None, None], stack["A"])


def low_rank(x: Float[Tensor, "k b t d"], stack: Stack) -> Float[Tensor, "k b t o"]:
    """``scale * x A^T B^T`` of each adapter, in the type of x."""
    low = batched_linear(x, stack["A"].to(x.dtype), None)
    return batched_linear(low, (stack["B"] * stack.scale[:, None, None]).to(x.dtype), None)
