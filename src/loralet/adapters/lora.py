"""LoRA: ``y = x W^T + b + scale * dropout(x) A^T B^T`` (Hu et al. 2021, section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float

from loralet.adapters.base import Format, Shapes, Stack, batched_linear
from loralet.adapters.spec import Method
from loralet.models.table import LinearLayer

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def shapes(linear: LinearLayer, rank: int) -> Shapes:
    """A ``[r d]`` and B ``[o r]`` on a linear layer."""
    return {"A": (rank, linear.d_in), "B": (linear.d_out, rank)}


class Lora:
    """Low-rank adaptation. Tensors: ``A`` ``[r d]`` and ``B`` ``[o r]``.

    See :class:`loralet.adapters.base.AdapterMethod`. A padded row of A and its column of B get no gradient, so they
    stay zero.
    """

    name: Method = "lora"
    format: Format = Format(shapes, {"A": "lora_A.weight", "B": "lora_B.weight"})

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
        from torch.nn import functional as F

        return F.linear(x, weight, bias) + low_rank(dropped, stack)

    def rank(self, tensors: Mapping[str, Tensor]) -> int:
        return tensors["A"].shape[0]

    def scaled(self, tensors: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
        return {**tensors, "B": tensors["B"] * factor}

    def mean(self, members: Sequence[Mapping[str, Tensor]], scales: Sequence[float]) -> dict[str, Tensor] | None:
        """Stack the rows of A and concatenate the columns of B, each B times its scale over the first scale."""
        import torch

        scaled = [own["B"] * (scale / scales[0]) for own, scale in zip(members, scales, strict=True)]
        return {"A": torch.cat([own["A"] for own in members]), "B": torch.cat(scaled, dim=1)}

    def merge(self, weight: Float[Tensor, "o d"], tensors: Mapping[str, Tensor], scale: float) -> Float[Tensor, "o d"]:
        return weight.float() + (tensors["B"] * scale) @ tensors["A"]


def delta(stack: Stack) -> Float[Tensor, "k o d"]:
    """``scale * B A`` of each adapter, in the type of A and B."""
    return (stack["B"] * stack.scale[:, None, None]).bmm(stack["A"])


def low_rank(x: Float[Tensor, "k b t d"], stack: Stack) -> Float[Tensor, "k b t o"]:
    """``scale * x A^T B^T`` of each adapter, in the type of x."""
    low = batched_linear(x, stack["A"].to(x.dtype), None)
    return batched_linear(low, (stack["B"] * stack.scale[:, None, None]).to(x.dtype), None)


def expected_parameters(rank: int, stored: Mapping[str, tuple[int, ...]]) -> int:
    """``rank x (d_in + d_out)`` of every adapted linear layer (Hu et al. 2021, section 4.2), plus all other tensors.

    Args:
        rank: the adapter's rank.
        stored: shapes of the tensors in an adapter file, by their names in PEFT.
    """
    inputs = sum(shape[1] for name, shape in stored.items() if "lora_A" in name)
    outputs = sum(shape[0] for name, shape in stored.items() if "lora_B" in name)
    rest = sum(math.prod(shape) for name, shape in stored.items() if "lora_A" not in name and "lora_B" not in name)
    return rank * (inputs + outputs) + rest
