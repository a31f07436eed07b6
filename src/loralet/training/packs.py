"""What a run is, and which runs share a pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from loralet.adapters.lora import Adapter, scale_of
from loralet.adapters.pack import Pack, PackShape
from loralet.config import resolve_targets
from loralet.models.encoder import EncoderShape, Weights

Role = Literal["lora", "linear-probe", "random-head", "full", "majority", "tfidf-svm", "average", "ensemble"]


@dataclass(frozen=True)
class Run:
    """One row of the results: a configuration on a backbone. ``targets`` are resolved names, empty where nothing is adapted."""

    id: str
    model: str
    role: Role
    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]
    scaling: str
    lr: float
    seed: int

    def adapter(self, layers: int) -> Adapter:
        """The run as the numbers that :mod:`loralet.adapters` takes."""
        linears = tuple(f"layers.{i}.{target}" for i in range(layers) for target in self.targets)
        return Adapter(self.rank, scale_of(self.rank, self.alpha, self.scaling), self.dropout, linears, self.seed)


def lora_run(
    model: str,
    rank: int,
    alpha: float,
    dropout: float,
    targets: tuple[str, ...],
    scaling: str,
    lr: float,
    seed: int,
    marks: str = "",
) -> Run:
    """A LoRA run, or a linear probe for rank 0, with an id that says what it is; ``marks`` tells it from others of that rank, alpha, lr and seed."""
    if rank == 0:
        return Run(f"probe-s{seed}", model, "linear-probe", 0, alpha, 0.0, (), scaling, lr, seed)
    name = f"lora-r{rank}-a{short(alpha)}-lr{short(lr)}{marks}-s{seed}"
    return Run(name, model, "lora", rank, alpha, dropout, resolve_targets(targets), scaling, lr, seed)


def short(value: float) -> str:
    """A number as an id has it: the shortest text that still is that number."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def group(runs: Iterable[Run], fits: Callable[[Sequence[Run]], bool] = lambda runs: True) -> list[list[Run]]:
    """Runs that see the same batches, and so share a pack: the same model and seed; full fine-tuning always goes alone.

    Args:
        runs: what is to be trained.
        fits: whether these runs fit into memory side by side; where they do not, they are parted by :func:`divide`.
    """
    packs: dict[tuple[str, int, str], list[Run]] = {}
    for run in runs:
        packs.setdefault((run.model, run.seed, run.id if run.role == "full" else ""), []).append(run)
    return [part for pack in packs.values() for part in divide(pack, fits)]


def divide(runs: list[Run], fits: Callable[[Sequence[Run]], bool]) -> list[list[Run]]:
    """The fewest packs that each fit, their sizes equal within one; a single run is a pack even where it does not fit.

    Runs of like targets, dropout and rank stay together: a pack pads its ranks to the largest and pays for dropout if one run has any.
    """
    if fits(runs) or len(runs) == 1:
        return [runs]
    alike = sorted(runs, key=lambda run: (len(run.targets), run.targets, run.dropout > 0, run.rank))
    for count in range(2, len(runs) + 1):
        cuts = [len(runs) * i // count for i in range(count + 1)]
        parts = [alike[a:b] for a, b in pairwise(cuts)]
        if count == len(runs) or all(fits(part) for part in parts):
            break
    return parts


def build_pack(
    runs: Sequence[Run], weights: Weights, encoder: EncoderShape, classes: int, head: str, head_dropout: float
) -> Pack:
    """The pack of these runs over these weights (whose type is the type of the arithmetic)."""
    full = any(run.role == "full" for run in runs)
    shape = PackShape(encoder, classes, head, head_dropout, full)
    return Pack(weights, shape, [run.adapter(encoder.layers) for run in runs])
