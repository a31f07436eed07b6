"""DoRA: ``W' = m * (W + scale * B A) / ||W + scale * B A||``, row by row (Liu et al. 2024, equation 5).

As in section 4.3 of the paper and in PEFT, the backward pass treats the norm as a constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from loralet.adapters.base import Format, Shapes, Stack
from loralet.adapters.lora import Lora, delta, low_rank
from loralet.adapters.spec import Method
from loralet.models.table import LinearLayer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LORA = Lora()
LEAST_NORM = float(np.finfo(np.float32).tiny)
"""Lower bound of norms, so that a row of zeros stays zero instead of becoming NaN."""


def shapes(linear: LinearLayer, rank: int) -> Shapes:
    """LoRA's tensors and the magnitudes ``[o]`` on a linear layer."""
    return {**LORA.format.shapes(linear, rank), "magnitude": (linear.d_out,)}


class Dora:
    """Weight-decomposed low-rank adaptation. Tensors: those of LoRA, and ``magnitude`` ``[o]``, one norm per row.

    See :class:`loralet.adapters.base.AdapterMethod`. As in LoRA, padded ranks add nothing to a norm and get no
    gradient. The magnitudes of an adapter that does not cover a layer are padding too and are not used.
    """

    name: Method = "dora"
    format: Format = Format(
        shapes, {**LORA.format.peft_names, "magnitude": "lora_magnitude_vector"}, {"use_dora": True}
    )

    def start(self, tensors: Mapping[str, Tensor], weight: Float[Tensor, "o d"], generator: torch.Generator) -> None:
        """Initialise A and B as in LoRA, and the magnitudes to the row norms of the frozen weight."""
        LORA.start(tensors, weight, generator)
        self.neutral(tensors, weight)

    def neutral(self, tensors: Mapping[str, Tensor], weight: Float[Tensor, "o d"]) -> None:
        tensors["magnitude"].copy_(vector_norms(weight.float()))

    def effective(self, weight: Float[Tensor, "o d"], stack: Stack) -> Float[Tensor, "k o d"]:
        updated = weight.float() + delta(stack)
        return (updated * factors(updated, stack)[..., None]).to(weight.dtype)

    def branch(
        self,
        x: Float[Tensor, "j b t d"],
        dropped: Float[Tensor, "k b t d"],
        weight: Float[Tensor, "o d"],
        bias: Float[Tensor, "o"] | None,
        stack: Stack,
    ) -> Float[Tensor, "k b t o"]:
        """As in PEFT: the frozen output of x, plus the change by magnitude and adapter, computed from ``dropped``."""
        from torch.nn import functional as F

        factor = factors(weight.float() + delta(stack), stack)[:, None, None]
        change = (factor - 1).to(x.dtype) * F.linear(dropped, weight) + factor.to(x.dtype) * low_rank(dropped, stack)
        return F.linear(x, weight, bias) + change

    def rank(self, tensors: Mapping[str, Tensor]) -> int:
        return LORA.rank(tensors)

    def scaled(self, tensors: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
        return LORA.scaled(tensors, factor)

    def mean(self, members: Sequence[Mapping[str, Tensor]], scales: Sequence[float]) -> dict[str, Tensor] | None:
        """None: a mean of normalised weights is not a single DoRA adapter."""
        return None

    def merge(self, weight: Float[Tensor, "o d"], tensors: Mapping[str, Tensor], scale: float) -> Float[Tensor, "o d"]:
        updated = LORA.merge(weight, tensors, scale)
        return updated * (tensors["magnitude"] / row_norms(updated))[:, None]


def factors(updated: Float[Tensor, "k o d"], stack: Stack) -> Float[Tensor, "k o"]:
    """``magnitude / norm`` of each row; 1, without a gradient, for an adapter that does not cover this layer."""
    import torch

    return torch.where(stack.scale[:, None] > 0, stack["magnitude"] / row_norms(updated.detach()), 1.0)


def row_norms(weight: Float[Tensor, "*k o d"]) -> Float[Tensor, "*k o"]:
    """Euclidean norm of each row, at least :data:`LEAST_NORM`."""
    return vector_norms(weight).clamp_min(LEAST_NORM)


def vector_norms(weight: Float[Tensor, "*k o d"]) -> Float[Tensor, "*k o"]:
    """Euclidean norm of each row."""
    import torch

    norms: Tensor = torch.linalg.vector_norm(weight, dim=-1)
    return norms
