"""The forward pass of teacher and student: linear layers in a narrow type, everything else in fp32."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, device, dtype
from torch.nn import functional as F

from loralet.models.forward import Attention, Padded, Weights, attention, layer_states
from loralet.models.table import EncoderTable


@dataclass(frozen=True)
class Arithmetic:
    """How both encoders are computed: the device, the type of the linear layers, and the attention."""

    device: device
    dtype: dtype
    attend: Attention = attention


def narrowed(weights: Weights, to: dtype) -> Weights:
    """Convert the layers' linear weights to a type; keep embeddings and norms. Gradients flow to the originals."""
    return {name: t.to(to) if name.startswith("layers.") and "-norm." not in name else t for name, t in weights.items()}


def states(
    weights: Weights, table: EncoderTable, batch: Padded, attend: Attention = attention
) -> list[Float[Tensor, "b t d"]]:
    """The states after each layer, in fp32.

    Args:
        weights: from :func:`narrowed`.
        table: the encoder's layer table.
        batch: token ids and lengths.
        attend: the attention to use.
    """

    def linear(name: str, x: Tensor) -> Tensor:
        weight = weights[f"{name}.weight"]
        return F.linear(x.to(weight.dtype), weight, weights.get(f"{name}.bias"))

    return [x[0] for x in layer_states(weights, table, batch, linear, attend=attend)]
