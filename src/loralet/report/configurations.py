"""Groups runs into configurations (equal settings, several seeds) and model names into models (equal tensors)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np

from loralet.adapters.spec import AdapterSpec
from loralet.ranking import LOSS, selected_value
from loralet.report.sections.base import SectionKind
from loralet.report.statistics import Convergence, accuracy_interval, converged, loss_spikes, over_seeds
from loralet.runs.record import Record
from loralet.runs.results import RunResult
from loralet.runs.run import TRAINED, Role
from loralet.runs.selection import Setting, means_of, setting_of

ALPHA_LEVEL = 0.05
"""Significance level for corrected p-values."""


@dataclass(frozen=True)
class Model:
    """A backbone.

    Args:
        label: its name in the report.
        names: its names in the study; several if their tensors are equal.
        fingerprint: hash of its tensors; None if no adapter folder records it.
    """

    label: str
    names: tuple[str, ...]
    fingerprint: str | None


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a configuration on the test split.

    Args:
        mean: over seeds.
        sd: standard deviation over seeds; None for one seed.
        low, high: 95 % interval.
    """

    mean: float
    sd: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Comparison of a configuration with the winner on the same test rows.

    Args:
        difference: the winner's accuracy minus that of the configuration.
        low, high: 95 % interval of the difference.
        p, p_holm: p-value without and with Holm's correction.
        method: name of the test.
    """

    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    method: str

    @property
    def distinguishable(self) -> bool:
        """Whether the test shows a difference."""
        return self.p_holm < ALPHA_LEVEL


@dataclass(frozen=True)
class Configuration:
    """One row of the report's tables.

    Args:
        name: short name, unique in the report.
        role: role of its runs.
        model: label of its backbone; None for a baseline without an encoder.
        adapter: the adapter's configuration; None without an adapter.
        learning_rate: peak learning rate; None if nothing was trained by gradient descent.
        lr_ratio: learning rate of B over that of A; None likewise.
        runs, seeds: ids and seeds of its runs.
        validation, validation_loss: accuracy and loss on the whole validation split, means over seeds.
        test: accuracy on the test split.
        measures: further test metrics by heading, means over seeds; see
            :attr:`loralet.report.sections.base.SectionKind.measures`.
        convergence: first check at the target score.
        rows, to_target_seconds: training rows and seconds until convergence; None if censored.
        spikes: loss spikes per run, mean over seeds.
        diverged: share of the seeds that diverged.
        trainable, total: trained parameters, and parameters of the whole model.
        bytes: size of one run's weights on disk.
        counted: whether formula, results and file agree on the number of trained parameters; None without an adapter.
        seconds: training time of one run (an equal share of the pack's time), mean over seeds.
        memory: peak memory of the process, in bytes.
        rows_per_second: training rows per second.
        steps, planned: optimiser steps taken and planned, summed over seeds.
        status: how its runs ended; empty if all finished.
        versus: comparison with the winner; None for the winner, for chance, and without predictions.
        winner: whether it is the configuration chosen on validation.
        starred: whether it is marked ★: the winner, or in its place the hybrid that commands such as predict use.
        tied: whether it cannot be distinguished from the winner on the test rows.
        front: the costs for which it is on the Pareto front (:data:`loralet.report.comparisons.COSTS`).
        selected: the validation metric that selects, mean over seeds; None if it is the accuracy or the loss.
        by_loss: whether the loss selects.
        default: whether it is the default configuration of ``loralet train``.
    """

    name: str
    role: Role
    model: str | None
    adapter: AdapterSpec | None
    learning_rate: float | None
    lr_ratio: float | None
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    validation: float | None
    validation_loss: float | None
    test: Accuracy | None
    measures: Mapping[str, float | None]
    convergence: Convergence | None
    rows: float | None
    to_target_seconds: float | None
    spikes: float | None
    diverged: float
    trainable: int
    total: int
    bytes: int | None
    counted: bool | None
    seconds: float | None
    memory: int | None
    rows_per_second: float | None
    steps: int
    planned: int
    status: str
    versus: Comparison | None = None
    winner: bool = False
    tied: bool = False
    front: tuple[str, ...] = field(default=())
    selected: float | None = None
    by_loss: bool = False
    default: bool = False
    starred: bool = False

    @property
    def rank(self) -> int | None:
        """Rank of the adapter."""
        return self.adapter.rank if self.adapter else None

    @property
    def alpha(self) -> float | None:
        """Alpha of the adapter."""
        return self.adapter.alpha if self.adapter else None

    @property
    def effective(self) -> float | None:
        """Scale times learning rate. For given A and B, the size of one step of the adapted weights."""
        if self.role != "lora" or self.adapter is None or self.learning_rate is None:
            return None
        return self.adapter.scale * self.learning_rate

    @property
    def value(self) -> float | None:
        """The value that selects (:func:`loralet.ranking.selected_value`); None without validation scores."""
        if self.validation is None or not self.by_loss:
            return self.validation if self.selected is None else self.selected
        return selected_value({}, self.validation_loss, LOSS)

    @property
    def accuracy(self) -> float:
        """Test accuracy, or validation accuracy without a test split."""
        return self.test.mean if self.test else self.validation or 0.0


def find_models(record: Record) -> dict[str, Model]:
    """The model of each backbone name in the results. Backbones with equal tensors share one model.

    A model without an adapter folder (all its runs diverged) has no recorded fingerprint and is not merged with others.
    """
    names = list(dict.fromkeys(run.model for run in record.results.runs if run.model))
    fingerprints = {adapter.backbone: adapter.fingerprint for adapter in record.adapters.values()}
    grouped: dict[str, list[str]] = {}
    for name in names:
        grouped.setdefault(fingerprints.get(name, name), []).append(name)
    short = [_short(name) for name in names]
    models: dict[str, Model] = {}
    for key, members in grouped.items():
        label = " = ".join(_short(name) if short.count(_short(name)) == 1 else name for name in members)
        models |= dict.fromkeys(members, Model(label, tuple(members), key if key in fingerprints.values() else None))
    return models


def _short(name: str) -> str:
    """A hub id unchanged, or the last part of a local path."""
    path = Path(name)
    return path.name if name.startswith((".", "/", "~")) or path.is_dir() or len(path.parts) != 2 else name


def configurations(
    record: Record, models: Mapping[str, Model], kind: SectionKind
) -> tuple[list[Configuration], list[str]]:
    """The configurations of a run folder, in run order, and the ids of duplicate runs, which are excluded.

    A duplicate has the settings and the seed of another run, on a model with equal tensors. Counting it as another seed
    would underestimate the uncertainty.

    Args:
        record: the run folder.
        models: the model of each backbone name.
        kind: the task's section, which computes task-specific metrics.
    """
    grouped: dict[tuple[str | None, Setting], dict[int | None, RunResult]] = {}
    duplicates: list[str] = []
    for run in record.results.runs:
        model = models[run.model].label if run.model else None
        members = grouped.setdefault((model, setting_of(run)), {})
        if run.seed in members:
            duplicates.append(run.id)
        else:
            members[run.seed] = run
    rows = [_configuration(record, key[0], list(members.values()), kind) for key, members in grouped.items()]
    names = _names(rows)
    return [replace(row, name=name) for row, name in zip(rows, names, strict=True)], duplicates


NAMES: dict[Role, str] = {
    "majority": "majority class",
    "tfidf-svm": "TF-IDF + linear SVM",
    "tfidf-lr": "TF-IDF + logistic regression",
    "random-head": "random head",
    "linear-probe": "linear probe",
    "full": "full fine-tuning",
    "average": "average of seeds",
    "ensemble": "ensemble",
    "hybrid": "hybrid",
}
"""Names of rows without an adapter, by role. Other baselines of a task are named by their role."""


def _names(rows: Sequence[Configuration]) -> list[str]:
    """Short names that distinguish the rows. A setting shared by all adapter runs is omitted."""
    adapted = grid_rows(rows)
    rates = len({row.learning_rate for row in adapted}) > 1
    ratios = len({row.lr_ratio for row in adapted}) > 1
    varied = varied_settings([row.adapter for row in adapted if row.adapter])
    models = len({row.model for row in rows if row.model}) > 1
    names: list[str] = []
    for row in rows:
        name = NAMES.get(row.role, row.role)
        if row.role == "lora" and row.adapter:
            parts = [f"r{row.adapter.rank}", f"α{row.adapter.alpha:g}"]
            parts += [f"lr {row.learning_rate:g}"] * rates + [f"lr ratio {row.lr_ratio:g}"] * ratios
            parts += [setting_text(row.adapter, name) for name in varied]
            name = " ".join(parts) if row in adapted else f"default r{row.adapter.rank} α{row.adapter.alpha:g}"
        names.append(f"{name} · {row.model}" if models and row.model else name)
    return names


def grid_rows(rows: Sequence[Configuration]) -> list[Configuration]:
    """The adapter rows of the grid: without the default configuration, unless it is in a grid with others."""
    adapted = [row for row in rows if row.role == "lora" and row.adapter]
    kept = [row for row in adapted if not row.default or sum(map(partial(_share_grid, row), adapted)) > 1]
    return kept or adapted


def _share_grid(one: Configuration, other: Configuration) -> bool:
    """Whether two adapter rows differ at most in rank and alpha."""
    first, second = (
        (row.model, row.learning_rate, row.lr_ratio, replace(row.adapter, rank=1, alpha=1.0) if row.adapter else None)
        for row in (one, other)
    )
    return first == second


def varied_settings(adapters: Sequence[AdapterSpec]) -> list[str]:
    """Names of the settings, other than rank and alpha, in which these adapters differ."""
    others = [f.name for f in fields(AdapterSpec) if f.name not in ("rank", "alpha")]
    return [name for name in others if len({getattr(adapter, name) for adapter in adapters}) > 1]


def setting_text(adapter: AdapterSpec, name: str) -> str:
    """One setting of an adapter, such as ``dropout 0.1``, ``rslora`` or ``query+value``."""
    value = getattr(adapter, name)
    if isinstance(value, tuple):
        return "+".join(value)
    return value if isinstance(value, str) else f"{name} {value:g}"


def _configuration(record: Record, model: str | None, runs: Sequence[RunResult], kind: SectionKind) -> Configuration:
    """One configuration, without its name."""
    first, ids, metric = runs[0], tuple(run.id for run in runs), record.results.metric
    selection = record.results.selection
    means = means_of(runs, selection)
    trained = first.role in TRAINED
    files = [record.adapters[i] for i in ids if i in record.adapters]
    steps = [run.steps or 0 for run in runs]
    taken = sum(steps)
    convergence = converged([run.converged_step for run in runs], steps) if trained else None
    seconds = _mean([run.train_seconds for run in runs])
    per_step = seconds * len(runs) / taken if seconds is not None and taken else None
    reached = convergence.step if convergence and not convergence.censored else None
    batch = record.config.training.batch_size
    counts = {first.trainable_parameters, *(f.parameters for f in files), *(f.formula for f in files)}
    ended = [run.status for run in runs if run.status != "finished"]
    return Configuration(
        name="",
        role=first.role,
        model=model,
        adapter=first.adapter,
        learning_rate=first.learning_rate,
        lr_ratio=first.lr_ratio,
        runs=ids,
        seeds=tuple(run.seed for run in runs if run.seed is not None),
        validation=_mean([run.validation[metric] for run in runs if run.validation]),
        validation_loss=means.loss,
        test=_accuracy(record, runs),
        measures=kind.measure(record, runs),
        convergence=convergence,
        rows=reached * batch if reached is not None else None,
        to_target_seconds=reached * per_step if reached is not None and per_step is not None else None,
        spikes=_mean([float(loss_spikes(record.losses[i])) for i in ids if i in record.losses]) if trained else None,
        diverged=means.diverged,
        trainable=first.trainable_parameters,
        total=first.total_parameters,
        bytes=round(fmean(f.bytes for f in files)) if files else None,
        counted=len(counts) == 1 if first.role == "lora" and files else None,
        seconds=seconds,
        memory=max((run.peak_memory_bytes for run in runs if run.peak_memory_bytes), default=None),
        rows_per_second=batch / per_step if per_step and trained else None,
        steps=taken,
        planned=sum(record.planned.get(i, 0) for i in ids),
        status=_status(ended, len(runs)),
        selected=means.selected if selection not in (metric, LOSS) else None,
        by_loss=selection == LOSS,
        default=first.default,
    )


def _status(ended: Sequence[str], runs: int) -> str:
    """``halved`` for one run, ``2 of 3 halved`` for several."""
    kinds = dict.fromkeys(ended)
    return ", ".join(f"{ended.count(kind)} of {runs} {kind}" if runs > 1 else kind for kind in kinds)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _accuracy(record: Record, runs: Sequence[RunResult]) -> Accuracy | None:
    """Accuracy with its interval: Wilson's for one seed, over seeds and rows for several.

    If predictions of several seeds are not recorded, the interval covers the variation over seeds only.
    """
    metric = record.results.metric
    tests = [run.test for run in runs if run.test]
    if not tests:
        return None
    summary = over_seeds([scores[metric] for scores in tests])
    known = [run.id for run in runs if run.id in record.predicted]
    low, high = summary.low, summary.high
    if len(tests) == 1 and metric in tests[0].intervals:
        low, high = tests[0].intervals[metric]
    elif len(known) == len(tests):
        low, high = accuracy_interval(right_rows(record, known))
    return Accuracy(
        summary.mean, summary.sd, summary.mean if low is None else low, summary.mean if high is None else high
    )


def right_rows(record: Record, runs: Sequence[str]) -> np.ndarray:
    """Whether each run classifies each test row correctly, bool ``[runs, rows]``."""
    assert record.targets is not None
    return np.stack([record.predicted[run] == record.targets for run in runs])
