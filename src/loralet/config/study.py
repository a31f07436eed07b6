"""A grid of runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import arg

from loralet.adapters.spec import TARGETS_HELP, Method, Scaling, number_problems, target_problems
from loralet.config.compute import ComputeOptions
from loralet.config.data import DataOptions
from loralet.config.limits import (
    MOST_GIB,
    interval_problems,
    rate_problems,
    seed_problems,
    sets_of_targets,
    twice,
)
from loralet.config.shared import CheckpointEvery, TrainingData
from loralet.config.training import TrainingOptions


@dataclass(frozen=True)
class GridOptions:
    """The grid of a study: every combination is a run."""

    models: tuple[str, ...] = ("tiny-en",)
    """Backbones: short names (see loralet models), hub ids or folders."""
    ranks: tuple[int, ...] = (4, 16, 32)
    """Ranks of the grid."""
    alphas: tuple[float, ...] = (64.0, 256.0, 512.0)
    """Alphas of the grid."""
    lrs: tuple[float, ...] = (1e-3,)
    """Peak learning rates of the grid."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the grid: initial values, dropout and order of the rows."""
    methods: Annotated[tuple[Method, ...], arg(aliases=("--method",))] = ("lora",)
    """Adapter methods of the grid; each method is trained in separate packs."""
    lr_ratios: Annotated[tuple[float, ...], arg(aliases=("--lr-ratio",))] = (1.0,)
    """Ratios of the learning rate of B and all vectors to that of A (LoRA+)."""
    dropouts: Annotated[tuple[float, ...], arg(aliases=("--dropout",))] = (0.0,)
    """Dropout rates of the grid, for the adapters' input."""
    targets: tuple[str, ...] = field(default=("query", "value"), metadata=TARGETS_HELP)
    target_sets: tuple[str, ...] = ()
    """Sets of targets, names joined by +, such as query+value all-linear; replaces targets."""
    scalings: Annotated[tuple[Scaling, ...], arg(aliases=("--scaling",))] = ("alpha/r",)
    """Scales of the adapters: alpha / rank, or alpha / sqrt(rank) (rslora)."""
    default: bool = True
    """Also train the default adapter and learning rate of loralet train."""
    full: bool = False
    """Also fine-tune the whole model, for comparison."""
    full_lr: float = 3e-4
    """Peak learning rate of full fine-tuning."""
    probe_lr: float = 1e-2
    """Peak learning rate of the linear probe."""

    def problems(self) -> Iterator[str]:
        for name in ("models", "methods", "ranks", "alphas", "lrs", "lr_ratios", "seeds", "dropouts", "scalings"):
            values = getattr(self, name)
            if not values:
                yield f"{name} is empty: give at least one value"
            if repeated := twice(values):
                yield f"{name} contains duplicates: {repeated}"
        yield from seed_problems("seeds", min(self.seeds, default=0))
        cells = [(rank, 1.0, 0.0) for rank in self.ranks] + [(1, alpha, 0.0) for alpha in self.alphas]
        for cell in cells + [(1, 1.0, dropout) for dropout in self.dropouts]:
            yield from number_problems(*cell)
        rates = {"lrs": self.lrs, "lr_ratios": self.lr_ratios, "full_lr": (self.full_lr,), "probe_lr": (self.probe_lr,)}
        for name, given in rates.items():
            for rate in given:
                yield from rate_problems(name, rate)
        sets = sets_of_targets(self.target_sets, self.targets)
        for targets in sets:
            yield from target_problems(targets)
        if len({frozenset(targets) for targets in sets}) != len(sets):
            yield f"target_sets contains a set twice: {' '.join(self.target_sets)}"


@dataclass(frozen=True)
class StudyConfig:
    """Options of ``loralet study``."""

    data: TrainingData = "news-mini"
    out: str = ""
    """Folder for the study; named by date under runs/ if empty."""
    grid: GridOptions = field(default_factory=GridOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    reading: DataOptions = field(default_factory=DataOptions)
    compute: ComputeOptions = field(default_factory=ComputeOptions)
    memory: float | None = None
    """Memory limit of a pack in GiB; larger packs are split. If not set, 70 % of the free memory."""
    halving: bool = False
    """Successive halving: stop the worse half of a pack's LoRA runs at 1/8, 1/4 and 1/2 of the steps."""
    stop_at_target: bool = False
    """Stop each run when it reaches the target score."""
    combine: bool = False
    """Also evaluate the average of one configuration's seeds and an ensemble of runs."""

    checkpoint_every: CheckpointEvery = 30.0

    def problems(self) -> Iterator[str]:
        if self.memory is not None and not 0 < self.memory <= MOST_GIB:
            yield f"memory is {self.memory} GiB: it must be above 0 and at most {MOST_GIB:g}"
        yield from interval_problems(self.checkpoint_every)
        for part in (self.grid, self.training, self.reading, self.compute):
            yield from part.problems()
