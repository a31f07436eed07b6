"""A run folder as all the numbers that a report needs, in one plain record: no ink, no HTML."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loralet.report import recommendations as advice
from loralet.report import text as words
from loralet.report.configurations import Configuration, Model, find_models, gather, judge
from loralet.report.examples import Examples, find_examples
from loralet.report.record import Record, read_record
from loralet.report.statistics import Calibration, check_error, reliability, smoothed, spearman, thinned
from loralet.report.text import HalvingCost, Savings, Trend
from loralet.runs.folder import TRAINED, chosen_run

POINTS = 300
"""Most points of a drawn curve."""
HALF_LIVES = 50
"""A loss curve is smoothed with a half-life of its length divided by this (assumed: calm enough to compare, quick enough to show a spike)."""


@dataclass(frozen=True)
class Curve:
    """One run's course: ``y`` after each of ``steps``; None where it was not finite."""

    run: str
    configuration: str
    role: str
    model: str
    rank: int | None
    alpha: float | None
    steps: tuple[int, ...]
    y: tuple[float | None, ...]
    best: bool


@dataclass(frozen=True)
class Cell:
    """One rank and alpha of a grid; ``text`` says the convergence, censored as ``>N``."""

    rank: int
    alpha: float
    effective: float
    accuracy: float | None
    low: float | None
    high: float | None
    converged: float | None
    censored: bool
    text: str
    winner: bool
    tied: bool


@dataclass(frozen=True)
class Grid:
    """Rank x alpha of one model, with whatever else is held fixed (in words)."""

    title: str
    model: str
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Analysis:
    """All numbers and words of a report. Accuracies are shares of 1, times seconds, sizes bytes."""

    name: str
    kind: str
    question: str
    answer: tuple[str, ...]
    data: dict[str, Any]
    training: dict[str, Any]
    environment: dict[str, Any]
    command: str
    test_reads: int
    models: tuple[Model, ...]
    configurations: tuple[Configuration, ...]
    winner: str
    shown_run: str
    target: float
    losses: tuple[Curve, ...]
    accuracies: tuple[Curve, ...]
    grids: tuple[Grid, ...]
    trends: tuple[Trend, ...]
    savings: Savings
    calibration: Calibration | None
    confusion: tuple[tuple[int, ...], ...]
    examples: Examples | None
    findings: tuple[str, ...]
    recommendations: tuple[str, ...]
    caveats: tuple[str, ...]

    @property
    def best(self) -> Configuration:
        return next(row for row in self.configurations if row.winner)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def analyse(folder: Path, with_texts: bool = True) -> Analysis:
    """Read a run folder and work out its numbers.

    Args:
        folder: as ``loralet study`` or ``loralet train`` left it.
        with_texts: whether to read the data source again, to show test rows in words.

    Raises:
        RunError: see :func:`loralet.report.record.read_record`; also a folder in which no run was trained to the end.
    """
    record = read_record(folder)
    chosen = chosen_run(record.results)["id"]
    models = find_models(record)
    gathered, doubles = gather(record, models)
    rows = judge(record, gathered)
    best = next(row for row in rows if row.winner)
    shown = _shown_run(record, best)
    grids, trends = _grids(rows), _trends(rows)
    savings = _savings(record, rows)
    facts = words.Facts(
        record, tuple(dict.fromkeys(models.values())), tuple(rows), best, shown, chosen, tuple(doubles), trends, savings
    )
    return Analysis(
        name=folder.resolve().name,
        kind=record.results["kind"],
        question=words.question(facts),
        answer=words.answer(facts),
        data=record.results["data"],
        training=dataclasses.asdict(record.config.training) | dataclasses.asdict(record.config.reading),
        environment=record.environment,
        command=words.command(record),
        test_reads=record.results["test_reads"],
        models=facts.models,
        configurations=tuple(rows),
        winner=best.name,
        shown_run=shown,
        target=record.config.training.target_accuracy,
        losses=_curves(record, rows, shown, _loss_points),
        accuracies=_curves(record, rows, shown, _accuracy_points),
        grids=grids,
        trends=trends,
        savings=savings,
        calibration=reliability(record.probabilities[shown], record.labels) if record.labels is not None else None,
        confusion=_confusion(record, shown),
        examples=_examples(record, rows, best, shown, with_texts),
        findings=words.findings(facts),
        recommendations=advice.recommendations(facts),
        caveats=advice.caveats(facts),
    )


def _shown_run(record: Record, best: Configuration) -> str:
    """The winner's seed of highest validation accuracy: the run whose rows, confusions and reliability are shown."""
    own = [run for run in record.results["runs"] if run["id"] in best.runs and run["validation"]]
    return str(max(own, key=lambda run: (run["validation"]["accuracy"], -run["validation"]["loss"]))["id"])


def _loss_points(record: Record, run: str) -> tuple[np.ndarray, np.ndarray]:
    losses = record.losses.get(run, np.zeros(0))
    kept = thinned(len(losses), POINTS)
    return kept + 1, smoothed(losses, max(1.0, len(losses) / HALF_LIVES))[kept]


def _accuracy_points(record: Record, run: str) -> tuple[np.ndarray, np.ndarray]:
    checks = record.checks.get(run, ())
    kept = thinned(len(checks), POINTS)
    return np.array([checks[i].step for i in kept]), np.array([checks[i].accuracy for i in kept])


def _curves(record: Record, rows: Sequence[Configuration], shown: str, points: Any) -> tuple[Curve, ...]:
    curves: list[Curve] = []
    for row in rows:
        for run in row.runs if row.role in TRAINED else ():
            steps, values = points(record, run)
            if len(steps):
                y = tuple(float(v) if np.isfinite(v) else None for v in values)
                x = tuple(int(s) for s in steps)
                curves.append(Curve(run, row.name, row.role, row.model or "", row.rank, row.alpha, x, y, run == shown))
    return tuple(curves)


def _families(rows: Sequence[Configuration]) -> dict[tuple[Any, ...], list[Configuration]]:
    """LoRA rows that differ in rank and alpha alone."""
    families: dict[tuple[Any, ...], list[Configuration]] = {}
    for row in rows:
        if row.role == "lora":
            families.setdefault((row.model, row.learning_rate, row.dropout, row.scaling, row.targets), []).append(row)
    return families


def _title(key: tuple[Any, ...], families: Sequence[tuple[Any, ...]]) -> str:
    """What is held fixed in one family, as far as the families differ in it."""
    model, lr, dropout, scaling, targets = key
    parts = [str(model)] + ([] if lr is None else [f"lr {lr:g}"])
    several = [len({f[i] for f in families}) > 1 for i in range(5)]
    parts += (
        [f"dropout {dropout:g}"] * several[2] + [str(scaling)] * several[3] + ["+".join(targets or ())] * several[4]
    )
    return ", ".join(parts)


def _grids(rows: Sequence[Configuration]) -> tuple[Grid, ...]:
    families = _families(rows)
    grids: list[Grid] = []
    for key, members in families.items():
        cells = tuple(_cell(row) for row in members)
        ranks, alphas = sorted({cell.rank for cell in cells}), sorted({cell.alpha for cell in cells})
        grids.append(Grid(_title(key, list(families)), str(key[0]), tuple(ranks), tuple(alphas), cells))
    return tuple(grids)


def _cell(row: Configuration) -> Cell:
    assert row.rank is not None
    assert row.alpha is not None
    assert row.effective is not None
    assert row.convergence is not None
    test, c = row.test, row.convergence
    accuracy, low, high = (test.mean, test.low, test.high) if test else (row.validation, None, None)
    reached = None if c.censored else c.step
    return Cell(
        row.rank, row.alpha, row.effective, accuracy, low, high, reached, c.censored, c.text, row.winner, row.tied
    )


def _trends(rows: Sequence[Configuration]) -> tuple[Trend, ...]:
    """Rank correlations over all cells of a model that differ in rank, alpha and learning rate alone, where there are three or more."""
    pooled: dict[tuple[Any, ...], list[Configuration]] = {}
    for (model, _, *rest), members in _families(rows).items():
        pooled.setdefault((model, None, *rest), []).extend(row for row in members if row.validation is not None)
    trends: list[Trend] = []
    for key, known in pooled.items():
        if len(known) < 3:
            continue
        values = [float(row.test.mean if row.test else row.validation or 0.0) for row in known]
        late = [float("inf") if row.convergence.censored else row.convergence.step for row in known if row.convergence]
        alpha, rank = [row.alpha or 0.0 for row in known], [float(row.rank or 0) for row in known]
        effective = [row.effective or 0.0 for row in known]
        trends.append(
            Trend(
                title=_title(key, list(pooled)),
                cells=len(known),
                accuracy_alpha=spearman(alpha, values),
                accuracy_rank=spearman(rank, values),
                accuracy_effective=spearman(effective, values),
                late_alpha=spearman(alpha, late),
                late_rank=spearman(rank, late),
                late_effective=spearman(effective, late),
                alpha_is_effective=spearman(alpha, effective),
                equal=words.equal_scales(known),
            )
        )
    return tuple(trends)


def _savings(record: Record, rows: Sequence[Configuration]) -> Savings:
    """Steps not taken because runs left early; the time they would have cost is taken at each run's own pace."""
    runs = {run["id"]: run for run in record.results["runs"] if run["role"] in TRAINED and run["steps"]}
    planned = sum(record.planned.get(i, run["steps"]) for i, run in runs.items())
    left = {i: record.planned.get(i, run["steps"]) - run["steps"] for i, run in runs.items()}
    seconds = sum(left[i] * (run["train_seconds"] or 0.0) / run["steps"] for i, run in runs.items())
    early = [run["status"] for i, run in runs.items() if left[i] > 0]
    stopped, halved, diverged = (early.count(status) for status in ("early-stopped", "halved", "diverged"))
    return Savings(len(runs), stopped, halved, diverged, sum(left.values()), planned, seconds, _halving_cost(record))


def _halving_cost(record: Record) -> HalvingCost | None:
    """What the rungs of successive halving let go, and what it might have become; None where nothing was halved."""
    rows = min(record.config.training.validation_sample, record.results["data"]["validation_rows"])
    gaps: list[float] = []
    errors: list[float] = []
    gains: list[float] = []
    for rung in record.rungs:
        last = rung.accuracies[rung.kept - 1]
        gaps += [last - accuracy for accuracy in rung.accuracies[rung.kept :]]
        errors += [check_error(last, rows)] * (len(rung.runs) - rung.kept)
        for run, accuracy in zip(rung.runs[: rung.kept], rung.accuracies, strict=False):
            later = [check.accuracy for check in record.checks.get(run, ()) if check.step > rung.step]
            gains += [max(later) - accuracy] * bool(later)
    return HalvingCost(tuple(gaps), tuple(errors), tuple(gains), rows) if gaps else None


def _confusion(record: Record, run: str) -> tuple[tuple[int, ...], ...]:
    """Rows by true class (down) and predicted class (across)."""
    if record.labels is None:
        return ()
    classes = len(record.results["data"]["labels"])
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (record.labels, record.probabilities[run].argmax(1)), 1)
    return tuple(tuple(int(n) for n in line) for line in counts)


def _examples(
    record: Record, rows: Sequence[Configuration], best: Configuration, shown: str, with_texts: bool
) -> Examples | None:
    if record.labels is None:
        return None
    seed = next(seed for seed, run in zip(best.seeds, best.runs, strict=True) if run == shown)
    heads = [row for row in rows if row.role == "random-head" and row.model == best.model]
    base = next((run for row in heads for s, run in zip(row.seeds, row.runs, strict=True) if s == seed), None)
    lora = [run for row in rows if row.role == "lora" for run in row.runs if run in record.probabilities]
    return find_examples(record, shown, base, lora or [shown], with_texts)
