"""A run: one configuration on one backbone."""

from __future__ import annotations

from dataclasses import dataclass

from loralet.adapters.adapter import Adapter
from loralet.adapters.spec import HEAD_ALONE, AdapterSpec

Role = str
"""``lora`` (any adapter method), ``linear-probe``, ``random-head``, ``full``, ``average``, ``ensemble``, ``hybrid``, or
the role of a baseline of the task."""
TRAINED = ("lora", "linear-probe", "full")
"""Roles of runs that were trained. They have an adapter folder, as have averages and hybrids."""
HYBRID = "hybrid"
"""Role of a trained run combined with a linear model on words."""


@dataclass(frozen=True)
class Run:
    """One configuration on a backbone.

    Args:
        id: unique in its study.
        model: name of the backbone; empty for a baseline without an encoder.
        role: see :data:`Role`.
        adapter: configuration of the adapter; rank 0 without an adapter.
        lr: peak learning rate.
        seed: seed of initial values, dropout and row order.
        lr_ratio: ratio of the learning rate of B to that of A (:meth:`loralet.adapters.pack.Pack.lr_factors`).
        fold: fold of a cross-validation whose rows have weight 0 in this run, from 0; None: trained on all rows.
        default: whether it has the default adapter and learning rate of ``loralet train``.
    """

    id: str
    model: str
    role: Role
    adapter: AdapterSpec = HEAD_ALONE
    lr: float = 0.0
    seed: int = 0
    lr_ratio: float = 1.0
    fold: int | None = None
    default: bool = False

    def numbers(self, layers: int) -> Adapter:
        """The numeric configuration for a pack; targets must be resolved.

        Args:
            layers: number of encoder layers.
        """
        spec = self.adapter
        linears = tuple(f"layers.{i}.{target}" for i in range(layers) for target in spec.targets)
        return Adapter(spec.rank, spec.scale, spec.dropout, linears, self.seed)
