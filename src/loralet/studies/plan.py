"""From options to runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from loralet.config import DataOptions, GridOptions, StudyConfig, TrainConfig, TrainingOptions, sets_of_targets
from loralet.training.halving import Exits, rungs_of
from loralet.training.loop import steps_of
from loralet.training.packs import Run, lora_run, short

INITIALS = {
    "query": "q",
    "key": "k",
    "value": "v",
    "attention-output": "ao",
    "intermediate": "i",
    "output": "o",
    "all-linear": "all",
}
"""Targets as an id has them."""


@dataclass(frozen=True)
class Plan:
    """What is to be carried out.

    Args:
        kind: ``train`` or ``study``.
        source: the data set.
        runs: the runs to train.
        baselines: whether base rows stand beside them.
        training, reading: the options that all runs share.
        memory: GiB that a pack may take, None for a share of what is free.
        halving: whether the worse half of a pack's LoRA runs leaves at each rung.
        stop_at_target: whether a run leaves when it reaches the target accuracy.
        combine: whether an average and an ensemble of the runs stand beside them.
    """

    kind: str
    source: str
    runs: tuple[Run, ...]
    baselines: bool
    training: TrainingOptions
    reading: DataOptions
    memory: float | None = None
    halving: bool = False
    stop_at_target: bool = False
    combine: bool = False

    def exits(self, rows: int) -> Exits:
        """The ways out of a pack that the plan opens, on this many training rows."""
        rungs = rungs_of(steps_of(self.training, rows)) if self.halving else ()
        return Exits(rungs, self.training.target_accuracy if self.stop_at_target else None)


def plan_train(config: TrainConfig) -> Plan:
    """One run."""
    lora = config.lora
    run = lora_run(config.model, lora.rank, lora.alpha, lora.dropout, lora.targets, lora.scaling, lora.lr, config.seed)
    return Plan(
        "train", config.data, (run,), False, config.training, config.reading, stop_at_target=config.stop_at_target
    )


def plan_study(config: StudyConfig) -> Plan:
    """Every combination of the grid, and for each model and seed a linear probe and, if asked for, full fine-tuning."""
    grid = config.grid
    runs: list[Run] = []
    sets = sets_of_targets(grid.target_sets, grid.targets)
    for model, seed in product(grid.models, grid.seeds):
        runs.append(lora_run(model, 0, 1.0, 0.0, (), "alpha/r", grid.probe_lr, seed))
        cells = product((r for r in grid.ranks if r), grid.alphas, grid.lrs, grid.dropouts, grid.scalings, sets)
        for rank, alpha, lr, dropout, scaling, targets in cells:
            runs.append(
                lora_run(
                    model, rank, alpha, dropout, targets, scaling, lr, seed, _marks(grid, dropout, scaling, targets)
                )
            )
        if grid.full:
            runs.append(
                Run(
                    f"full-lr{short(grid.full_lr)}-s{seed}",
                    model,
                    "full",
                    0,
                    1.0,
                    0.0,
                    (),
                    "alpha/r",
                    grid.full_lr,
                    seed,
                )
            )
    return Plan(
        "study",
        config.data,
        tuple(_named(runs, grid.models)),
        True,
        config.training,
        config.reading,
        config.memory,
        config.halving,
        config.stop_at_target,
        config.combine,
    )


def _marks(grid: GridOptions, dropout: float, scaling: str, targets: tuple[str, ...]) -> str:
    """What tells a run's id from others of its rank, alpha, learning rate and seed: only what the grid varies."""
    marks = [f"d{short(dropout)}"] * (len(grid.dropouts) > 1)
    marks += [scaling.replace("/", "")] * (len(grid.scalings) > 1)
    marks += ["+".join(INITIALS[name] for name in targets)] * (len(grid.target_sets) > 1)
    return "".join(f"-{mark}" for mark in marks)


def _named(runs: Sequence[Run], models: Sequence[str]) -> list[Run]:
    """With several models, ids begin with the model's short name."""
    if len(models) == 1:
        return list(runs)
    bare = [Path(model).name for model in models]
    names = {
        model: name if bare.count(name) == 1 else f"{name}-{i + 1}"
        for i, (model, name) in enumerate(zip(models, bare, strict=True))
    }
    return [replace(run, id=f"{names[run.model]}-{run.id}") for run in runs]
