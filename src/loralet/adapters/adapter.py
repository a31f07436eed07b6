"""The numeric configuration of one adapter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Adapter:
    """Numeric configuration of one adapter.

    Args:
        rank: 0 for a head without adapters.
        scale: factor of the adapter's output (:attr:`loralet.adapters.spec.AdapterSpec.scale`).
        dropout: probability of zeroing an input feature of the adapter in training.
        linears: full names of the adapted linear layers, such as ``layers.0.query``.
        seed: seed of initial values and dropout.
    """

    rank: int
    scale: float
    dropout: float
    linears: tuple[str, ...]
    seed: int
