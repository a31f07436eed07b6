"""Savings of early exits, and possible cost of successive halving."""

from __future__ import annotations

from dataclasses import dataclass

from loralet.report.statistics import check_error
from loralet.runs.record import Record
from loralet.runs.run import TRAINED


@dataclass(frozen=True)
class HalvingCost:
    """Possible cost of successive halving, in scores on the validation sample.

    Args:
        gaps: for each halved run, its distance to the worst run that continued at its rung.
        errors: for each gap, half the 95 % interval of that run's score. A smaller gap may be due to chance.
        gains: for each run that continued at a rung, its best later check minus its score at the rung.
        rows: rows of the validation sample.
    """

    gaps: tuple[float, ...]
    errors: tuple[float, ...]
    gains: tuple[float, ...]
    rows: int


@dataclass(frozen=True)
class Savings:
    """Savings of early exits.

    Args:
        runs: number of trained runs.
        stopped, halved, diverged: number of runs that left their pack early, by reason.
        steps_saved, steps_planned: optimiser steps saved and planned.
        seconds: estimated time saved.
        cost: possible cost of successive halving; None if no run was halved.
    """

    runs: int
    stopped: int
    halved: int
    diverged: int
    steps_saved: int
    steps_planned: int
    seconds: float
    cost: HalvingCost | None


def savings(record: Record) -> Savings:
    """Steps saved because runs left early. The time saved is estimated from each run's seconds per step."""
    runs = {run.id: run for run in record.results.runs if run.role in TRAINED and run.steps}
    steps = {id: run.steps or 0 for id, run in runs.items()}
    planned = {id: record.planned.get(id, steps[id]) for id in runs}
    left = {id: planned[id] - steps[id] for id in runs}
    seconds = sum(left[id] * (run.train_seconds or 0.0) / steps[id] for id, run in runs.items())
    early = [run.status for id, run in runs.items() if left[id] > 0]
    return Savings(
        runs=len(runs),
        stopped=early.count("early-stopped"),
        halved=early.count("halved"),
        diverged=early.count("diverged"),
        steps_saved=sum(left.values()),
        steps_planned=sum(planned.values()),
        seconds=seconds,
        cost=_halving_cost(record),
    )


def _halving_cost(record: Record) -> HalvingCost | None:
    rows = min(record.config.training.validation_sample, record.results.data.validation_rows)
    gaps: list[float] = []
    errors: list[float] = []
    gains: list[float] = []
    for rung in record.rungs:
        last = rung.scores[rung.kept - 1]
        gaps += [last - score for score in rung.scores[rung.kept :]]
        errors += [check_error(last, rows)] * (len(rung.runs) - rung.kept)
        for run, score in zip(rung.runs[: rung.kept], rung.scores, strict=False):
            later = [check.score for check in record.checks.get(run, ()) if check.step > rung.step]
            gains += [max(later) - score] * bool(later)
    return HalvingCost(tuple(gaps), tuple(errors), tuple(gains), rows) if gaps else None
