"""The state of a pack and its results, as JSON values and tensors of a checkpoint, and back.

Everything else that training depends on is a function of the number of steps: the batches, the dropout masks and the
learning rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loralet.errors import RunError
from loralet.records import plain, read_record
from loralet.runs.checkpoints import Saved
from loralet.runs.run import Run
from loralet.tasks.base import Scores
from loralet.tasks.calibration import TemperatureScaling
from loralet.tasks.classes import ClassScores
from loralet.training.loop import RunState, TrainingState
from loralet.training.row import Row

MATRICES = ("parameters", "exp_avg", "exp_avg_sq")
STATES = ("best", "last")
RUN_FIELDS = ("stale", "steps", "converged_step", "seconds", "status")
ROW_FIELDS = ("trainable", "total", "steps", "converged_step", "seconds", "memory", "status")
HELD_OUT = "held-out"
"""Prefix of the predictions of a row on the held-out rows."""


def save_state(state: TrainingState) -> Saved:
    """The state of a pack between two steps.

    While runs are active, the tensors include the parameter matrix and the optimiser's moments ``[k n]``.
    """
    tensors: dict[str, np.ndarray] = {}
    if state.active:
        moments = state.optimiser.exp_avg, state.optimiser.exp_avg_sq
        tensors |= {name: _array(t) for name, t in zip(MATRICES, (state.parameters, *moments), strict=True)}
    for s in (*state.active, *state.ended):
        for kind, own in zip(STATES, (s.best, s.last), strict=True):
            tensors |= {f"{kind}/{s.run.id}/{name}": _array(t) for name, t in own.items()}
    values = {
        "step": state.step,
        "updates": state.optimiser.step,
        "active": [_run_values(s) for s in state.active],
        "ended": [_run_values(s) for s in state.ended],
    }
    return Saved(values, tensors)


def _run_values(s: RunState) -> dict[str, object]:
    rank = None if s.best_rank is None else list(s.best_rank)
    return {"run": s.run.id, "best_rank": rank} | {name: getattr(s, name) for name in RUN_FIELDS}


def restore_state(state: TrainingState, saved: Saved) -> None:
    """Change a pack's state before its first step to a saved one of the same runs.

    Raises:
        RunError: the saved state is of other runs or sizes.
    """
    values, runs = saved.values, {s.run.id: s.run for s in state.active}
    active, ended = ([_run_state(own, runs, saved) for own in values[group]] for group in ("active", "ended"))
    if sorted(s.run.id for s in (*active, *ended)) != sorted(runs):
        raise RunError("the checkpoint is of other runs")
    places = {s.run.id: i for i, s in enumerate(state.active)}
    state.remove({places[s.run.id]: "finished" for s in ended})  # the pack of the active runs, as during training
    if active and [s.run.id for s in active] != [s.run.id for s in state.active]:
        raise RunError("the checkpoint has its runs in another order")
    state.active, state.ended, state.step = active, ended, values["step"]
    state.optimiser.step = values["updates"]
    if active:
        current = state.parameters, state.optimiser.exp_avg, state.optimiser.exp_avg_sq
        for name, into in zip(MATRICES, current, strict=True):
            if saved.tensors[name].shape != tuple(into.shape):
                raise RunError(f"{name} has another shape in the checkpoint")
            into.copy_(torch.from_numpy(saved.tensors[name]))


def _run_state(values: Mapping[str, Any], runs: Mapping[str, Run], saved: Saved) -> RunState:
    run = runs.get(values["run"])
    if run is None:
        raise RunError(f"the checkpoint has the run {values['run']}, which is not in this pack")
    state = RunState(run, **{name: values[name] for name in RUN_FIELDS})
    state.best, state.last = (_own_tensors(saved, f"{kind}/{run.id}/") for kind in STATES)
    rank = values["best_rank"]
    state.best_rank = None if rank is None else (rank[0], rank[1], rank[2])
    return state


def save_rows(rows: Sequence[Row]) -> Saved:
    """The rows of the results that a finished pack gave, with their tensors."""
    tensors = {f"{row.run.id}/{name}": _array(t) for row in rows for name, t in row.tensors.items()}
    tensors |= {f"{HELD_OUT}/{row.run.id}": row.held_out for row in rows if row.held_out is not None}
    return Saved({"rows": [_row_values(row) for row in rows]}, tensors)


def _row_values(row: Row) -> dict[str, object]:
    return {name: getattr(row, name) for name in ROW_FIELDS} | {
        "run": plain(row.run),
        "validation": None if row.validation is None else row.validation.to_json(),
        "calibration": None if row.calibration is None else plain(row.calibration),
        "classes": {split: [plain(scores) for scores in found] for split, found in row.classes.items()},
    }


def restore_rows(saved: Saved) -> list[Row]:
    """The inverse of :func:`save_rows`.

    Raises:
        RunError: the record cannot be read.
    """
    return [_row(values, saved) for values in saved.values["rows"]]


def _row(values: Mapping[str, Any], saved: Saved) -> Row:
    problems: list[str] = []
    run = read_record(Run, values["run"], problems)
    scaling, validation = values["calibration"], values["validation"]
    calibration = None if scaling is None else read_record(TemperatureScaling, scaling, problems)
    classes = {
        split: tuple(x for own in found if (x := read_record(ClassScores, own, problems)) is not None)
        for split, found in values["classes"].items()
    }
    if run is None or problems:
        raise RunError(f"the checkpoint of a finished pack cannot be read: {'; '.join(problems)}")
    row = Row(run, **{name: values[name] for name in ROW_FIELDS}, calibration=calibration, classes=classes)
    row.validation = None if validation is None else Scores.from_json(validation)
    row.tensors = _own_tensors(saved, f"{run.id}/")
    row.held_out = saved.tensors.get(f"{HELD_OUT}/{run.id}")
    return row


def _own_tensors(saved: Saved, prefix: str) -> dict[str, Tensor]:
    found = {name.removeprefix(prefix): array for name, array in saved.tensors.items() if name.startswith(prefix)}
    return {name: torch.from_numpy(array).clone() for name, array in found.items()}


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
