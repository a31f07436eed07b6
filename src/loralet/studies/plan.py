"""From options to runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from loralet.config import DataOptions, StudyConfig, TrainConfig, TrainingOptions
from loralet.engine.packs import Run, lora_run


@dataclass(frozen=True)
class Plan:
    """What is to be carried out.

    Args:
        kind: ``train`` or ``study``.
        source: the data set.
        runs: the runs to train.
        baselines: whether base rows stand beside them.
        training, reading: the options that all runs share.
    """

    kind: str
    source: str
    runs: tuple[Run, ...]
    baselines: bool
    training: TrainingOptions
    reading: DataOptions


def plan_train(config: TrainConfig) -> Plan:
    """One run."""
    lora = config.lora
    run = lora_run(config.model, lora.rank, lora.alpha, lora.dropout, lora.targets, lora.scaling, lora.lr, config.seed)
    return Plan("train", config.data, (run,), False, config.training, config.reading)


def plan_study(config: StudyConfig) -> Plan:
    """Every combination of the grid, and for each model and seed a linear probe and, if asked for, full fine-tuning."""
    grid = config.grid
    runs: list[Run] = []
    for model, seed in product(grid.models, grid.seeds):
        runs.append(lora_run(model, 0, 1.0, 0.0, (), grid.scaling, grid.probe_lr, seed))
        cells = product((r for r in grid.ranks if r), grid.alphas, grid.lrs)
        runs += [lora_run(model, rank, alpha, grid.dropout, grid.targets, grid.scaling, lr, seed) for rank, alpha, lr in cells]
        if grid.full:
            runs.append(Run(f"full-lr{grid.full_lr:g}-s{seed}", model, "full", 0, 1.0, 0.0, (), grid.scaling, grid.full_lr, seed))
    return Plan("study", config.data, tuple(_named(runs, grid.models)), True, config.training, config.reading)


def _named(runs: Sequence[Run], models: Sequence[str]) -> list[Run]:
    """With several models, ids begin with the model's short name."""
    if len(models) == 1:
        return list(runs)
    short = [Path(model).name for model in models]
    names = {model: name if short.count(name) == 1 else f"{name}-{i + 1}" for i, (model, name) in enumerate(zip(models, short, strict=True))}
    return [replace(run, id=f"{names[run.model]}-{run.id}") for run in runs]
