"""Conversion of options to a plan of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, product
from pathlib import Path
from typing import Literal

from loralet.adapters.spec import HEAD_ALONE, AdapterSpec
from loralet.config import (
    ComputeOptions,
    DataOptions,
    GridOptions,
    StudyConfig,
    TeachConfig,
    TrainConfig,
    TrainingOptions,
)
from loralet.config.limits import sets_of_targets
from loralet.hub.models import resolve_model
from loralet.runs.run import Run
from loralet.studies.teaching import Teaching, teaching_of
from loralet.training.halving import Exits, rungs_of
from loralet.training.loop import steps_of
from loralet.training.packs import adapter_run, short

INITIALS = {
    "query": "q",
    "key": "k",
    "value": "v",
    "query-key-value": "qkv",
    "attention-output": "ao",
    "intermediate": "i",
    "output": "o",
    "all-linear": "all",
}
"""Abbreviations of targets in ids."""


USUAL_LR = 3e-3
"""Learning rate of a single run, if it is not set."""
WIDE, WIDE_LR = 256, 1e-3
"""For encoders of at least this width, the learning rate of a single run, if it is not set. Chosen on validation rows
of four data sets with an encoder of width 384; other widths were not measured (dev/LOG.md)."""
FEW_ROWS, FEW_ROWS_LR, FEW_ROWS_STEPS = 500, 5e-4, 200
"""With fewer training rows than this, the learning rate and the steps of a single run, if they are not set. Chosen on
rows of four data sets that were not trained on (dev/LOG.md)."""


@dataclass(frozen=True)
class Plan:
    """The plan of a training or study.

    Args:
        kind: ``train``, ``study``, ``teach``, or ``check``, which keeps no run.
        source: the data set.
        runs: the runs to train.
        baselines: whether to add rows of baselines.
        training, reading, compute: options shared by all runs.
        memory: memory limit of a pack in GiB; None: a share of the free memory.
        halving: whether the worse half of a pack's adapter runs leaves at each rung.
        stop_at_target: whether a run leaves when it reaches the target score.
        combine: whether to add an average and an ensemble of the runs.
        folds: number of folds (:func:`loralet.training.folds.number_of_folds`); there must be one run.
        by_rows: whether the learning rate of the only run was not set, so that it depends on the training rows, as that
            of the default configuration of a study always does.
        by_width: the same for the width of the encoder.
        teaching: the teachers of the only run; None: it is trained on its labels.
    """

    kind: Literal["train", "study", "teach", "check"]
    source: str
    runs: tuple[Run, ...]
    baselines: bool
    training: TrainingOptions
    reading: DataOptions
    compute: ComputeOptions
    memory: float | None = None
    halving: bool = False
    stop_at_target: bool = False
    combine: bool = False
    folds: int | None = 0
    by_rows: bool = False
    by_width: bool = False
    teaching: Teaching | None = None

    def settled(self, rows: int) -> Plan:
        """The plan for a number of training rows.

        With fewer than :data:`FEW_ROWS`, a learning rate that is not set is lower, and a length that is not set is
        shorter. In a study, only the learning rate of the default configuration is.
        """
        if self.kind == "study" and rows < FEW_ROWS:
            return replace(self, runs=tuple(replace(r, lr=FEW_ROWS_LR) if r.default else r for r in self.runs))
        if not self.by_rows or rows >= FEW_ROWS:
            return self
        (run,) = self.runs
        training = self.training
        if training.steps is None and training.epochs is None:
            training = replace(training, steps=FEW_ROWS_STEPS)
        made = adapter_run(run.model, run.adapter, FEW_ROWS_LR, run.seed, lr_ratio=run.lr_ratio)
        return replace(self, runs=(made,), training=training)

    def suited(self, widths: Mapping[str, int]) -> Plan:
        """The plan for encoders: a learning rate that is not set is lower for wide ones.

        Args:
            widths: width of the encoder of each model.
        """

        def own(run: Run) -> Run:
            if run.lr != USUAL_LR or not (run.default or self.by_width) or widths[run.model] < WIDE:
                return run
            if run.default:
                return replace(run, lr=WIDE_LR)
            return adapter_run(run.model, run.adapter, WIDE_LR, run.seed, lr_ratio=run.lr_ratio)

        return replace(self, runs=tuple(map(own, self.runs)))

    @property
    def notes(self) -> list[str]:
        """What :meth:`settled` changed, in one sentence for the user; empty if nothing."""
        if any(run.default and run.lr == FEW_ROWS_LR for run in self.runs):
            note = (
                f"fewer than {FEW_ROWS} training rows: the default configuration has a learning rate of {FEW_ROWS_LR:g}"
            )
            return [
                note
                if self.training.steps == FEW_ROWS_STEPS
                else f"{note}; `loralet train` takes {FEW_ROWS_STEPS} steps"
            ]
        if not self.by_rows or self.runs[0].lr != FEW_ROWS_LR:
            return []
        steps = f" and {FEW_ROWS_STEPS} steps" if self.training.steps == FEW_ROWS_STEPS else ""
        return [f"fewer than {FEW_ROWS} training rows: a learning rate of {FEW_ROWS_LR:g}{steps} (set --lr to change)"]

    def exits(self, rows: int) -> Exits:
        """The exit conditions of a pack for a number of training rows."""
        rungs = rungs_of(steps_of(self.training, rows)) if self.halving else ()
        return Exits(rungs, self.training.target_score if self.stop_at_target else None)

    def methods(self, model: str) -> list[str]:
        """Adapter methods of the runs of a model."""
        return list(dict.fromkeys(run.adapter.method for run in self.runs if run.model == model))


def plan_train(config: TrainConfig) -> Plan:
    """Plan a single run."""
    lr = USUAL_LR if config.lr is None else config.lr
    run = adapter_run(resolve_model(config.model), config.adapter, lr, config.seed, lr_ratio=config.lr_ratio)
    return Plan(
        kind="train",
        source=config.data,
        runs=(run,),
        baselines=True,
        training=config.training,
        reading=config.reading,
        compute=config.compute,
        stop_at_target=config.stop_at_target,
        folds=config.number_of_folds,
        by_rows=config.lr is None,
        by_width=config.lr is None,
    )


def plan_teach(config: TeachConfig, teachers: Sequence[Path]) -> Plan:
    """Plan a single run that is taught.

    Args:
        config: the options.
        teachers: adapter folders of the teachers.
    """
    plan = replace(plan_train(config), kind="teach", by_rows=False)
    return replace(plan, teaching=teaching_of(config, teachers))


def plan_study(config: StudyConfig) -> Plan:
    """Plan every combination of the grid, and per model and seed a linear probe and, on request, the default
    configuration and full fine-tuning.
    """
    grid = config.grid
    runs: list[Run] = []
    models = tuple(map(resolve_model, grid.models))
    for model, seed in product(models, grid.seeds):
        runs.append(adapter_run(model, HEAD_ALONE, grid.probe_lr, seed))
        for adapter, lr, ratio in product(_adapters(grid), grid.lrs, grid.lr_ratios):
            runs.append(adapter_run(model, adapter, lr, seed, _marks(grid, adapter, ratio), ratio))
        if grid.default:
            runs.append(_default_run(model, seed))
        if grid.full:
            runs.append(Run(f"full-lr{short(grid.full_lr)}-s{seed}", model, "full", lr=grid.full_lr, seed=seed))
    return Plan(
        kind="study",
        source=config.data,
        runs=tuple(_named(runs, models)),
        baselines=True,
        training=config.training,
        reading=config.reading,
        compute=config.compute,
        memory=config.memory,
        halving=config.halving,
        stop_at_target=config.stop_at_target,
        combine=config.combine,
    )


def _default_run(model: str, seed: int) -> Run:
    """The configuration that ``loralet train`` trains without options."""
    made = adapter_run(model, AdapterSpec(), USUAL_LR, seed)
    return replace(made, id=f"default-s{seed}", default=True)


def without_repeats(runs: Sequence[Run]) -> tuple[Run, ...]:
    """The runs, without the default configuration where the grid contains it; the run of the grid is then marked.

    Args:
        runs: runs with resolved targets and learning rates.
    """
    own = {_settings(run) for run in runs if run.role == "lora" and not run.default}
    given = {_settings(run) for run in runs if run.default}
    kept = (run for run in runs if not (run.default and _settings(run) in own))
    return tuple(replace(run, default=run.role == "lora" and _settings(run) in given) for run in kept)


def _settings(run: Run) -> tuple[str, AdapterSpec, float, float, int]:
    return run.model, run.adapter, run.lr, run.lr_ratio, run.seed


def _adapters(grid: GridOptions) -> list[AdapterSpec]:
    """The adapters of a grid, without rank 0 (the linear probe)."""
    sets = sets_of_targets(grid.target_sets, grid.targets)
    cells = product(grid.methods, (r for r in grid.ranks if r), grid.alphas, grid.dropouts, grid.scalings, sets)
    return [
        AdapterSpec(method, rank=rank, alpha=alpha, dropout=dropout, targets=targets, scaling=scaling)
        for method, rank, alpha, dropout, scaling, targets in cells
    ]


def _marks(grid: GridOptions, adapter: AdapterSpec, lr_ratio: float) -> str:
    """Suffix of a run's id for settings other than rank, alpha, learning rate and seed, if the grid varies them."""
    marks = [f"ratio{short(lr_ratio)}"] * (len(grid.lr_ratios) > 1)
    marks += [f"d{short(adapter.dropout)}"] * (len(grid.dropouts) > 1)
    marks += [adapter.scaling.replace("/", "")] * (len(grid.scalings) > 1)
    marks += ["+".join(INITIALS[name] for name in adapter.targets)] * (len(grid.target_sets) > 1)
    return "".join(f"-{mark}" for mark in marks)


def _named(runs: Sequence[Run], models: Sequence[str]) -> list[Run]:
    """Prefix ids with the model's short name if there are several models."""
    if len(models) == 1:
        return list(runs)
    bare = [Path(model).name for model in models]
    names = {model: name for model, name in zip(models, bare, strict=True) if bare.count(name) == 1}
    for model, name in zip(models, bare, strict=True):
        if model not in names:
            names[model] = next(x for i in count(1) if (x := f"{name}-{i}") not in names.values())
    return [replace(run, id=f"{names[run.model]}-{run.id}") for run in runs]
