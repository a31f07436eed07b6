"""Loss and accuracy curves of each trained run, reduced to the points that a figure can show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loralet.report.configurations import Configuration
from loralet.report.statistics import smoothed, thinned
from loralet.runs.record import Record
from loralet.runs.run import TRAINED, Role

POINTS = 300
"""Maximum number of points of a curve."""
HALF_LIVES = 50
"""Length of a loss curve in half-lives of the smoothing (assumed: smooth, but spikes stay visible)."""

Points = Callable[[Record, str], tuple[np.ndarray, np.ndarray]]
"""Steps and values of a run."""


@dataclass(frozen=True)
class Curve:
    """The curve of one run.

    Args:
        run: its id.
        configuration: name of its configuration.
        role, model, rank, alpha: its settings.
        steps: optimiser steps.
        y: the value after each step; None if it is not finite.
        best: whether it is the run whose predictions the report shows.
    """

    run: str
    configuration: str
    role: Role
    model: str
    rank: int | None
    alpha: float | None
    steps: tuple[int, ...]
    y: tuple[float | None, ...]
    best: bool


def loss_curves(record: Record, rows: Sequence[Configuration], shown: str) -> tuple[Curve, ...]:
    """Smoothed batch losses of every trained run.

    Args:
        record: the run folder.
        rows: its configurations.
        shown: id of the run whose predictions the report shows.
    """
    return _curves(record, rows, shown, _losses)


def accuracy_curves(record: Record, rows: Sequence[Configuration], shown: str) -> tuple[Curve, ...]:
    """Scores of every trained run on the validation sample; arguments as for :func:`loss_curves`."""
    return _curves(record, rows, shown, _scores)


def _losses(record: Record, run: str) -> tuple[np.ndarray, np.ndarray]:
    losses = record.losses.get(run, np.zeros(0))
    kept = thinned(len(losses), POINTS)
    return kept + 1, smoothed(losses, max(1.0, len(losses) / HALF_LIVES))[kept]


def _scores(record: Record, run: str) -> tuple[np.ndarray, np.ndarray]:
    checks = record.checks.get(run, ())
    kept = thinned(len(checks), POINTS)
    return np.array([checks[i].step for i in kept]), np.array([checks[i].score for i in kept])


def _curves(record: Record, rows: Sequence[Configuration], shown: str, points: Points) -> tuple[Curve, ...]:
    curves: list[Curve] = []
    for row in rows:
        for run in row.runs if row.role in TRAINED else ():
            steps, values = points(record, run)
            if len(steps):
                y = tuple(float(v) if np.isfinite(v) else None for v in values)
                x = tuple(int(step) for step in steps)
                curves.append(Curve(run, row.name, row.role, row.model or "", row.rank, row.alpha, x, y, run == shown))
    return tuple(curves)
