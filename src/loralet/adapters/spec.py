"""The configuration of an adapter, as used in options, results and adapter folders.

Standard library only: the command line is built from this class before torch is imported.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from loralet.models.table import FUSED

Method = Literal["lora", "dora"]
Scaling = Literal["alpha/r", "rslora"]

METHOD_NAMES: dict[Method, str] = {"lora": "LoRA", "dora": "DoRA"}
"""Display names of the methods."""

TARGETS = ("query", "key", "value", "attention-output", "intermediate", "output")
"""The linear layers of one encoder layer, as named by ``--targets``."""
ALL_LINEAR = "all-linear"

TARGETS_HELP = {
    "help": "Linear layers to adapt: query, key, value, attention-output, intermediate, output, or all-linear."
}
"""Help of ``--targets``, of one adapter and of a grid. tyro reads it from the field's metadata."""


@dataclass(frozen=True)
class AdapterSpec:
    """One adapter configuration."""

    method: Method = "lora"
    """Adapter method: lora (Hu et al. 2021) or dora (Liu et al. 2024; torch backend)."""
    rank: int = 16
    """Rank of the adapters; 0 trains only the head (linear probe)."""
    alpha: float = 32.0
    """Numerator of the adapter's scale."""
    dropout: float = 0.0
    """Dropout rate of the adapter's input."""
    targets: tuple[str, ...] = field(default=(ALL_LINEAR,), metadata=TARGETS_HELP)
    scaling: Scaling = "alpha/r"
    """Scale of the adapter: alpha / rank, or alpha / sqrt(rank) (rslora)."""

    @property
    def scale(self) -> float:
        """alpha / rank, or alpha / sqrt(rank) for rslora (Kalajdzievski 2023); 0 for rank 0."""
        if self.rank == 0:
            return 0.0
        return self.alpha / (math.sqrt(self.rank) if self.scaling == "rslora" else self.rank)

    def problems(self) -> Iterator[str]:
        """Messages about invalid values."""
        for name, kind in (("method", Method), ("scaling", Scaling)):
            if getattr(self, name) not in get_args(kind):
                yield f"{name} is {getattr(self, name)!r}: it must be one of {', '.join(get_args(kind))}"
        yield from number_problems(self.rank, self.alpha, self.dropout)
        if self.rank or self.targets:
            yield from target_problems(self.targets)

    def on(self, available: Sequence[str]) -> AdapterSpec:
        """A copy with targets resolved to the linear layers of an encoder; see :func:`resolve_targets`."""
        return replace(self, targets=resolve_targets(self.targets, available) if self.rank else ())


HEAD_ALONE = AdapterSpec(rank=0, alpha=1.0, targets=())
"""No adapter: only the head is trained."""


def number_problems(rank: int, alpha: float, dropout: float) -> Iterator[str]:
    """Check the numbers of an adapter."""
    if rank < 0:
        yield f"rank is {rank}: it must be 0 (head only) or more"
    if not 0 < alpha < math.inf:
        yield f"alpha is {alpha}: it must be above 0 and finite"
    if not 0 <= dropout < 1:
        yield f"dropout is {dropout}: it must be at least 0 and below 1"


def target_problems(targets: Sequence[str]) -> Iterator[str]:
    """Check target names against all known names; a model may have only some of them."""
    if not targets:
        yield "targets is empty: give at least one linear layer, or set rank 0 to train only the head"
    known = (*TARGETS, FUSED, ALL_LINEAR)
    unknown = [name for name in targets if name not in known]
    if unknown:
        yield (
            f"targets has {', '.join(unknown)}: the linear layers are {', '.join(TARGETS)} "
            f"({FUSED} where a model fuses the first three), or {ALL_LINEAR} for all of them"
        )
    if ALL_LINEAR in targets and len(targets) > 1:
        yield f"targets mixes {ALL_LINEAR} with other names: {ALL_LINEAR} already includes every linear layer"


def resolve_targets(targets: Sequence[str], available: Sequence[str] = TARGETS) -> tuple[str, ...]:
    """Resolve ``all-linear`` and sort target names in the encoder's order.

    Args:
        targets: names, or ``all-linear``.
        available: linear layers of the encoder.

    Raises:
        ValueError: the encoder does not have one of the linear layers.
    """
    if ALL_LINEAR in targets:
        return tuple(available)
    missing = [name for name in targets if name not in available]
    if missing:
        raise ValueError(f"targets has {', '.join(missing)}: this model has {', '.join(available)} (or {ALL_LINEAR})")
    return tuple(name for name in available if name in targets)
