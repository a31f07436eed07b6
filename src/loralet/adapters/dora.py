"""DoRA: ``W' = m * (W + scale * B A) / ||W + scale * B A||``, row by row (Liu et al. 2024, equation 5).

As in section 4.3 of the paper and in PEFT, the backward pass treats the norm as a constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from loralet.adapters.base import Stack
from loralet.adapters.formats import FORMATS, Format
from loralet.adapters.lora import Lora, delta, low_rank
from loralet.adapters.spec import Method

LORA = Lora()
LEAST_NORM = torch.finfo(torch.float32).tiny
"""Lower bound of norms, so that a row of zeros stays zero instead of becoming NaN."""


class Dora:
    """Weight-decomposed low-rank adaptation. Tensors: those of LoRA, and ``magnitude`` ``[o]``, one norm per row.

    See :class:`loralet.adapters.base.AdapterMethod`. As in LoRA, padded ranks add nothing to a norm and get no
    gradient. The magnitudes of an adapter that does not cover a layer are padding too and are not used.
    """

    name: Method = "dora"
    format: Format = FORMATS["dora"]

    def start(self, tensors: Mapping[str, Tensor], weight: Float[Tensor, "o d"], generator: torch.Generator) -> None:
        """Initialise A and B as in LoRA, and the magnitudes to the row norms of the frozen weight."""
        LORA.start(tensors, weight, generator)
        self.neutral(tensors, weight)

    def neutral(self, tensors: Mapping[str, Tensor], weight: Float[Tensor, "o d"]) -> None:
        tensors["magnitude"].copy_(torch.linalg.vector_norm(weight.float(), dim=1))

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
        factor = factors(weight.float() + delta(stack), stack)[:, None, None]
        change = (factor - 1).to(x.dtype) * F.linear(dropped, weight) + factor.to(x.dtype) * low_rank(dropped, stack)
        return F.linear(x, weight, bias) + change

    def mean(self, members: Sequence[Mapping[str, Tensor]], scales: Sequence[float]) -> dict[str, Tensor] | None:
        """None: a mean of normalised weights is not a single DoRA adapter."""
        return None

    def merge(self, weight: Float[Tensor, "o d"], tensors: Mapping[str, Tensor], scale: float) -> Float[Tensor, "o d"]:
        updated = LORA.merge(weight, tensors, scale)
        return updated * (tensors["magnitude"] / row_norms(updated))[:, None]


def factors(updated: Float[Tensor, "k o d"], stack: Stack) -> Float[Tensor, "k o"]:
    """``magnitude / norm`` of each row; 1, without a gradient, for an adapter that does not cover this layer."""
    return torch.where(stack.scale[:, None] > 0, stack["magnitude"] / row_norms(updated.detach()), 1.0)


def row_norms(weight: Float[Tensor, "*k o d"]) -> Float[Tensor, "*k o"]:
    """Euclidean norm of each row, at least :data:`LEAST_NORM`."""
    norms: Tensor = torch.linalg.vector_norm(weight, dim=-1)
    return norms.clamp_min(LEAST_NORM)
