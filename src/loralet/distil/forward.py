"""Teacher and student at work: linear maps in a narrow type, everything between them in fp32."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, dtype
from torch.nn import functional as F

from loralet.models.encoder import EncoderShape, Weights, layer_states


def narrowed(weights: Weights, to: dtype) -> Weights:
    """The layers' linear maps in a type; embeddings and norms as they are. Gradients flow back to the originals."""
    return {name: t.to(to) if name.startswith("layers.") and "-norm." not in name else t for name, t in weights.items()}


def states(
    weights: Weights, shape: EncoderShape, ids: Int[Tensor, "b t"], lengths: Int[Tensor, "b"]
) -> list[Float[Tensor, "b t d"]]:
    """The states after each layer, in fp32.

    Args:
        weights: from :func:`narrowed`.
        shape: sizes of the encoder.
        ids: token ids, padded on the right.
        lengths: tokens of each row that count.
    """

    def linear(name: str, x: Tensor) -> Tensor:
        weight = weights[f"{name}.weight"]
        return F.linear(x.to(weight.dtype), weight, weights[f"{name}.bias"])

    return [x[0] for x in layer_states(weights, shape, ids, lengths, linear)]
