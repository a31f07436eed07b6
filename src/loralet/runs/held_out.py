"""Predictions of rows that the runs of a folder were not trained on: test rows, and validation or out-of-fold rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from loralet.artifacts.artifact import OUT_OF_FOLD
from loralet.errors import RunError
from loralet.runs.folder import HELD_OUT, read_predictions
from loralet.runs.out_of_fold import NAME, read_out_of_fold
from loralet.runs.record import Record
from loralet.tasks.registry import TASKS


@dataclass(frozen=True)
class HeldOutRows:
    """The rows of a split with the predictions of the runs.

    Args:
        split: ``test``, ``out-of-fold`` or ``validation``.
        targets: their targets, in the order of the split.
        probabilities: calibrated probabilities ``[rows, classes]``, by run.
        predicted: predicted targets by run, also of the runs with probabilities.
    """

    split: str
    targets: np.ndarray
    probabilities: Mapping[str, np.ndarray]
    predicted: Mapping[str, np.ndarray]


def held_out_rows(record: Record) -> tuple[HeldOutRows, ...]:
    """The splits with recorded predictions: first the test rows, then the training rows of a run with folds, or the
    validation rows. Older folders have no probabilities of validation rows.

    Raises:
        RunError: the predictions are damaged, or of other rows than the results.
    """
    found: list[HeldOutRows] = []
    if record.targets is not None:
        found.append(HeldOutRows("test", record.targets, record.probabilities, record.predicted))
    if record.results.data.folds and (record.folder / NAME).exists():
        found.append(_out_of_fold(record))
    elif (record.folder / HELD_OUT).exists():
        found.append(_validation(record))
    return tuple(found)


def _validation(record: Record) -> HeldOutRows:
    results = record.results
    found = read_predictions(record.folder, TASKS[results.task](results.data.labels), HELD_OUT)
    if len(found[0]) != results.data.validation_rows:
        path = record.folder / HELD_OUT
        rows = f"{len(found[0]):,} rows, but {results.data.validation_rows:,} in the results"
        raise RunError(f"{path}: cannot be read as predictions ({rows})")
    return HeldOutRows("validation", *found)


def _out_of_fold(record: Record) -> HeldOutRows:
    results, path = record.results, record.folder / NAME
    task, saved = TASKS[results.task](results.data.labels), read_out_of_fold(record.folder)
    scaled = {run.id: run.calibration.temperature for run in results.runs if run.calibration}
    finite = {run: logits for run, logits in saved.logits.items() if np.isfinite(logits).all()}
    probabilities = {run: task.probabilities(logits / scaled.get(run, 1.0)) for run, logits in finite.items()}
    problems = list(task.prediction_problems(saved.targets, probabilities, saved.predicted))
    if len(saved.targets) != results.data.train_rows:
        problems.append(f"{len(saved.targets):,} rows, but {results.data.train_rows:,} in the results")
    if problems:
        raise RunError(f"{path}: cannot be read as predictions ({'; '.join(problems[:5])})")
    predicted = {run: task.predicted(values) for run, values in probabilities.items()}
    return HeldOutRows(OUT_OF_FOLD, saved.targets, probabilities, {**saved.predicted, **predicted})
