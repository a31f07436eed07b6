"""What a head reads, and the form of a pooler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Read = Literal["first", "all"]
"""Tokens whose last states a head reads."""
HeadKind = Literal["pooler", "trained-pooler", "mean"]
"""Input of the classifier: frozen pooler, trained pooler, or mean over tokens."""
POOLING_NAMES = ("tanh", "relu", "gelu")
"""Activations of a pooler, see :data:`loralet.models.heads.POOLING_ACTIVATIONS`."""


@dataclass(frozen=True)
class Pooling:
    """A pooler: ``activation(W h + b)`` of the first token's state, followed by a layer norm if ``norm`` is set.

    Args:
        activation: one of :data:`loralet.models.heads.POOLING_ACTIVATIONS`.
        bias: whether the linear layer has a bias.
        norm: whether a layer norm without bias follows (ModernBERT).
        epsilon: epsilon of the norm.
    """

    activation: str = "tanh"
    bias: bool = True
    norm: bool = False
    epsilon: float = 1e-5

    def tensors(self, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the pooler's tensors, by slot name."""
        shapes: dict[str, tuple[int, ...]] = {"pooler.weight": (width, width)}
        if self.bias:
            shapes["pooler.bias"] = (width,)
        if self.norm:
            shapes["pooler.norm.weight"] = (width,)
        return shapes
