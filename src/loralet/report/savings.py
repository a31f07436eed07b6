"""What early exits saved, and what successive halving may have cost."""

from __future__ import annotations

from dataclasses import dataclass

from loralet.report.statistics import check_error
from loralet.runs.record import Record
from loralet.runs.run import TRAINED


@dataclass(frozen=True)
class HalvingCost:
    """What successive halving may have cost, in scores on the validation sample.

    Args:
        gaps: of each halved run, how far it lay below the last run that continued at its rung.
        errors: for each gap, half the 95 % interval of that last run's score. A smaller gap may be chance.
        gains: of each run that continued at a rung, its best later check minus its score at the rung.
        rows: of the validation sample.
    """

    gaps: tuple[float, ...]
    errors: tuple[float, ...]
    gains: tuple[float, ...]
    rows: int


@dataclass(frozen=True)
class Savings:
    """What early exits saved.

    Args:
        runs: trained runs.
        stopped, halved, diverged: how many of them left their pack early, by the reason.
        steps_saved, steps_planned: optimiser steps not taken, and planned.
        seconds: estimate of the time saved.
        cost: of successive halving; None where no run was halved.
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
    """Steps not taken because runs left early. Their time is estimated from each run's own seconds per step."""
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
