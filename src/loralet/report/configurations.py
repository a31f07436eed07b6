"""Runs gathered into configurations: the same settings under several seeds, and models that are one model under several names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from loralet.adapters.lora import scale_of
from loralet.report.record import Record
from loralet.report.statistics import (
    Convergence,
    Paired,
    accuracy_interval,
    converged,
    holm,
    loss_spikes,
    over_seeds,
    paired,
    pareto,
    reliability,
    wilson,
)
from loralet.runs.folder import TRAINED

ALPHA_LEVEL = 0.05
"""Corrected p-values below it are called a difference."""
COSTS = ("trainable", "bytes", "seconds")


@dataclass(frozen=True)
class Model:
    """A backbone: the names it went by in the study, which are several where their tensors are equal."""

    label: str
    names: tuple[str, ...]
    fingerprint: str | None


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of a configuration: its mean over seeds, their spread (None for one seed), and a 95 % interval."""

    mean: float
    sd: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A configuration against the winner: the winner's accuracy minus its own, and the p-value corrected by Holm."""

    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    method: str

    @property
    def distinguishable(self) -> bool:
        return self.p_holm < ALPHA_LEVEL


@dataclass(frozen=True)
class Configuration:
    """One row of the report's table.

    Args:
        name: short name, unique in the report.
        role, model, rank, alpha, learning_rate, dropout, scaling, targets: its settings, None where they do not apply.
        scale: alpha / rank, or alpha / sqrt(rank) for rslora.
        effective: scale x learning rate: how far a step moves the adapted weights, up to A and B themselves.
        runs, seeds: the runs gathered here.
        validation: mean accuracy on the whole validation split over its seeds that have one; ``validation_loss`` likewise.
        test: accuracy on the test split.
        f1, ece: macro F1 and expected calibration error on it, means over seeds.
        convergence: first check at the target accuracy; ``rows`` and ``to_target_seconds`` are what that took (None where censored).
        spikes: loss spikes of a run, mean over seeds; ``diverged``: share of the seeds whose loss left the finite numbers.
        trainable, total: numbers trained, and in the whole model; ``bytes``: weights on disk.
        counted: whether formula, record and file agree on the numbers trained (None where there is no adapter).
        seconds: training time of a run, its even share of its pack, mean over seeds; ``memory``: peak of the process, bytes.
        rows_per_second: training rows in that time.
        steps, planned: optimiser steps taken and planned, over all seeds.
        status: how its runs ended, where not as planned.
        versus: comparison with the winner; None for the winner and where predictions are not on record.
        winner: chosen on validation; ``tied``: not distinguishable from the winner on the test rows.
        front: the costs by which no other configuration dominates it (of :data:`COSTS`).
    """

    name: str
    role: str
    model: str | None
    rank: int | None
    alpha: float | None
    learning_rate: float | None
    dropout: float | None
    scaling: str | None
    targets: tuple[str, ...] | None
    scale: float | None
    effective: float | None
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    validation: float | None
    validation_loss: float | None
    test: Accuracy | None
    f1: float | None
    ece: float | None
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


def find_models(record: Record) -> dict[str, Model]:
    """The model of each name in the results; names whose backbones have equal tensors share one.

    A model without any adapter folder (every run diverged) has no fingerprint on record and stays by itself.
    """
    names = list(dict.fromkeys(run["model"] for run in record.results["runs"] if run["model"]))
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
    """A hub id as it is; of a local folder its own name."""
    path = Path(name)
    return path.name if name.startswith((".", "/", "~")) or path.is_dir() or len(path.parts) != 2 else name


def gather(record: Record, models: dict[str, Model]) -> tuple[list[Configuration], list[str]]:
    """The configurations of a run folder, in the order of its runs, and the ids of runs left out as doubles.

    A double is a run of equal settings and seed on a model of equal tensors: counting it as one more seed would feign certainty.
    """
    grouped: dict[tuple[Any, ...], dict[int | None, dict[str, Any]]] = {}
    doubles: list[str] = []
    for run in record.results["runs"]:
        model = models[run["model"]].label if run["model"] else None
        settings = [run[name] for name in ("role", "rank", "alpha", "dropout", "scaling", "learning_rate")]
        key = (model, *settings, tuple(run["targets"] or ()))
        members = grouped.setdefault(key, {})
        if run["seed"] in members:
            doubles.append(run["id"])
        else:
            members[run["seed"]] = run
    names = _names([next(iter(members.values())) | {"model": key[0]} for key, members in grouped.items()])
    rows = [
        _configuration(record, name, key[0], list(members.values()))
        for name, (key, members) in zip(names, grouped.items(), strict=True)
    ]
    return rows, doubles


def _names(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Short names that say what differs: of a setting that all runs share nothing is said."""
    plain = {
        "majority": "majority class",
        "tfidf-svm": "TF-IDF + linear SVM",
        "random-head": "random head",
        "linear-probe": "linear probe",
    }
    plain |= {"average": "average of seeds", "ensemble": "ensemble"}
    lora = [run for run in runs if run["role"] == "lora"]
    several = {
        name: len({str(run[name]) for run in lora}) > 1 for name in ("learning_rate", "dropout", "scaling", "targets")
    }
    models = len({run["model"] for run in runs if run["model"]}) > 1
    names: list[str] = []
    for run in runs:
        name = plain.get(run["role"], "full fine-tuning")
        if run["role"] == "lora":
            parts = [f"r{run['rank']}", f"α{run['alpha']:g}"]
            parts += [f"lr {run['learning_rate']:g}"] * several["learning_rate"] + [
                f"dropout {run['dropout']:g}"
            ] * several["dropout"]
            parts += [run["scaling"]] * several["scaling"] + ["+".join(run["targets"])] * several["targets"]
            name = " ".join(parts)
        names.append(f"{name} · {run['model']}" if models and run["model"] else name)
    return names


def _configuration(record: Record, name: str, model: str | None, runs: list[dict[str, Any]]) -> Configuration:
    first, ids = runs[0], tuple(run["id"] for run in runs)
    trained = first["role"] in TRAINED
    validated = [run["validation"] for run in runs if run["validation"]]
    files = [record.adapters[i] for i in ids if i in record.adapters]
    scale = scale_of(first["rank"], first["alpha"], first["scaling"]) if first["role"] == "lora" else None
    convergence = (
        converged([run["converged_step"] for run in runs], [run["steps"] for run in runs]) if trained else None
    )
    batch = record.config.training.batch_size
    seconds = _mean([run["train_seconds"] for run in runs])
    steps = sum(run["steps"] or 0 for run in runs)
    per_step = seconds * len(runs) / steps if seconds is not None and steps else None
    reached = convergence.step if convergence and not convergence.censored else None
    counts = {first["trainable_parameters"], *(f.numbers for f in files), *(f.formula for f in files)}
    ended = [run["status"] for run in runs if run["status"] != "finished"]
    return Configuration(
        name=name,
        role=first["role"],
        model=model,
        **{key: first[key] for key in ("rank", "alpha", "learning_rate", "dropout", "scaling")},
        targets=tuple(first["targets"]) if first["targets"] else None,
        scale=scale,
        effective=scale * first["learning_rate"] if scale is not None else None,
        runs=ids,
        seeds=tuple(run["seed"] for run in runs if run["seed"] is not None),
        validation=_mean([v["accuracy"] for v in validated]),
        validation_loss=_mean([v["loss"] for v in validated]),
        test=_accuracy(record, runs),
        f1=_mean([run["test"]["macro_f1"] for run in runs if run["test"]]),
        ece=_mean(
            [reliability(record.probabilities[i], _labels(record)).ece for i in ids if i in record.probabilities]
        ),
        convergence=convergence,
        rows=reached * batch if reached is not None else None,
        to_target_seconds=reached * per_step if reached is not None and per_step is not None else None,
        spikes=_mean([float(loss_spikes(record.losses[i])) for i in ids if i in record.losses]) if trained else None,
        diverged=ended.count("diverged") / len(runs),
        trainable=first["trainable_parameters"],
        total=first["total_parameters"],
        bytes=round(fmean(f.bytes for f in files)) if files else None,
        counted=len(counts) == 1 if first["role"] == "lora" and files else None,
        seconds=seconds,
        memory=max((run["peak_memory_bytes"] for run in runs if run["peak_memory_bytes"]), default=None),
        rows_per_second=batch / per_step if per_step and trained else None,
        steps=steps,
        planned=sum(record.planned.get(i, 0) for i in ids),
        status=", ".join(f"{ended.count(s)} of {len(runs)} {s}" if len(runs) > 1 else s for s in dict.fromkeys(ended)),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _labels(record: Record) -> np.ndarray:
    assert record.labels is not None
    return record.labels


def _accuracy(record: Record, runs: list[dict[str, Any]]) -> Accuracy | None:
    """Wilson's interval for one seed; for several, an interval over seeds and rows where predictions are on record."""
    tests = [run["test"] for run in runs if run["test"]]
    if not tests:
        return None
    summary = over_seeds([test["accuracy"] for test in tests])
    if len(tests) == 1:
        low, high = wilson(
            round(tests[0]["accuracy"] * record.results["data"]["test_rows"]), record.results["data"]["test_rows"]
        )
        return Accuracy(summary.mean, None, low, high)
    known = [run["id"] for run in runs if run["id"] in record.predicted]
    if len(known) == len(tests):
        low, high = accuracy_interval(right_rows(record, known))
        return Accuracy(summary.mean, summary.sd, low, high)
    assert summary.low is not None
    assert summary.high is not None
    return Accuracy(summary.mean, summary.sd, summary.low, summary.high)


def right_rows(record: Record, runs: Sequence[str]) -> np.ndarray:
    """Whether each run has each test row right, ``[runs, rows]``."""
    return np.stack([record.predicted[run] == _labels(record) for run in runs])


def judge(record: Record, rows: list[Configuration]) -> list[Configuration]:
    """The rows with the winner marked, each compared with it, and the Pareto fronts found."""
    best = choose([row for row in rows if row.role in TRAINED])
    if best is None:
        return rows
    tests: dict[str, Paired] = {}
    for row in rows:
        pairs = _pairs(record, best, row)
        if row is not best and row.role != "random-head" and pairs:
            tests[row.name] = paired(
                right_rows(record, [own for _, own in pairs]), right_rows(record, [winners for winners, _ in pairs])
            )
    corrected = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    versus = {
        name: Comparison(test.difference, test.low, test.high, test.p, corrected[name], test.method)
        for name, test in tests.items()
    }  # fmt: skip
    fronts = _fronts(rows)
    return [
        replace(
            row,
            winner=row is best,
            versus=versus.get(row.name),
            tied=row.name in versus and not versus[row.name].distinguishable,
            front=tuple(cost for cost in COSTS if row.name in fronts[cost]),
        )
        for row in rows
    ]


def choose(rows: Sequence[Configuration]) -> Configuration | None:
    """The row of highest validation accuracy; among equals the lower validation loss, then fewer parameters. Diverged seeds count against it."""
    able = [row for row in rows if row.validation is not None]
    return max(
        able,
        key=lambda row: (-row.diverged, row.validation, -(row.validation_loss or 0.0), -row.trainable),
        default=None,
    )


def _pairs(record: Record, best: Configuration, row: Configuration) -> list[tuple[str, str]]:
    """Runs of the winner, each with the other row's run of the same seed; a row without seeds has one run, which stands against all of them."""
    own = dict(zip(row.seeds, row.runs, strict=True)) if row.seeds else dict.fromkeys(best.seeds, row.runs[0])
    pairs = [(run, own[seed]) for seed, run in zip(best.seeds, best.runs, strict=True) if seed in own]
    return [(a, b) for a, b in pairs if a in record.predicted and b in record.predicted]


def _fronts(rows: Sequence[Configuration]) -> dict[str, set[str]]:
    fronts: dict[str, set[str]] = {}
    for cost in COSTS:
        points = [(row.name, getattr(row, cost), row.test.mean) for row in rows if row.test and getattr(row, cost)]
        kept = pareto([p[1] for p in points], [p[2] for p in points])
        fronts[cost] = {name for (name, _, _), keep in zip(points, kept, strict=True) if keep}
    return fronts
