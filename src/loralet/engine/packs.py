"""What a run is, and which runs share a pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from loralet.config import resolve_targets
from loralet.nn.encoder import EncoderShape, Weights
from loralet.nn.lora import Adapter, scale_of
from loralet.nn.pack import Pack, PackShape

Role = Literal["lora", "linear-probe", "random-head", "full", "majority", "tfidf-svm"]


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
        """The run as the numbers that :mod:`loralet.nn` takes."""
        linears = tuple(f"layers.{i}.{target}" for i in range(layers) for target in self.targets)
        return Adapter(self.rank, scale_of(self.rank, self.alpha, self.scaling), self.dropout, linears, self.seed)


def lora_run(model: str, rank: int, alpha: float, dropout: float, targets: tuple[str, ...], scaling: str, lr: float, seed: int) -> Run:
    """A LoRA run, or a linear probe for rank 0, with an id that says what it is."""
    if rank == 0:
        return Run(f"probe-s{seed}", model, "linear-probe", 0, alpha, 0.0, (), scaling, lr, seed)
    name = f"lora-r{rank}-a{alpha:g}-lr{lr:g}-s{seed}"
    return Run(name, model, "lora", rank, alpha, dropout, resolve_targets(targets), scaling, lr, seed)


def group(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs that see the same batches, and so share a pack: the same model and seed; full fine-tuning always goes alone."""
    packs: dict[tuple[str, int, str], list[Run]] = {}
    for run in runs:
        packs.setdefault((run.model, run.seed, run.id if run.role == "full" else ""), []).append(run)
    return list(packs.values())


def build_pack(runs: Sequence[Run], weights: Weights, encoder: EncoderShape, classes: int, head: str, head_dropout: float) -> Pack:
    """The pack of these runs over these weights (whose type is the type of the arithmetic)."""
    full = any(run.role == "full" for run in runs)
    shape = PackShape(encoder, classes, head, head_dropout, full)
    return Pack(weights, shape, [run.adapter(encoder.layers) for run in runs])
