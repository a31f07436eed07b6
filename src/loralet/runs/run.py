"""What a run is: one configuration on one backbone."""

from __future__ import annotations

from dataclasses import dataclass

from loralet.adapters.base import Adapter
from loralet.adapters.spec import HEAD_ALONE, AdapterSpec

Role = str
"""``lora`` (an adapter of any method), ``linear-probe``, ``random-head``, ``full``, ``average``, ``ensemble``, or the role
of one of the task's baselines."""
TRAINED = ("lora", "linear-probe", "full")
"""Roles that leave an adapter folder."""


@dataclass(frozen=True)
class Run:
    """One configuration on a backbone.

    Args:
        id: unique in its study.
        model: the backbone's name; empty for a baseline without an encoder.
        role: see :data:`Role`.
        adapter: the adapter's configuration; of rank 0 where nothing is adapted.
        lr: peak learning rate.
        seed: of the initial values, of dropout and of the order of the rows.
        lr_ratio: learning rate of B over that of A (:meth:`loralet.adapters.pack.Pack.lr_factors`).
    """

    id: str
    model: str
    role: Role
    adapter: AdapterSpec = HEAD_ALONE
    lr: float = 0.0
    seed: int = 0
    lr_ratio: float = 1.0

    def numbers(self, layers: int) -> Adapter:
        """The run as the numbers that a pack takes; its targets are resolved already.

        Args:
            layers: of the encoder.
        """
        spec = self.adapter
        linears = tuple(f"layers.{i}.{target}" for i in range(layers) for target in spec.targets)
        return Adapter(spec.rank, spec.scale, spec.dropout, linears, self.seed)
