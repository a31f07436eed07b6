"""Paired tests of the runs of one folder against the chosen run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from loralet.errors import RunError
from loralet.report.configurations import ALPHA_LEVEL
from loralet.report.statistics import holm, paired
from loralet.runs.folder import HELD_OUT, PREDICTIONS, read_predictions
from loralet.runs.out_of_fold import NAME as OUT_OF_FOLD
from loralet.runs.out_of_fold import read_out_of_fold
from loralet.runs.results import Results
from loralet.runs.selection import chosen_run
from loralet.tasks.registry import TASKS


def tied_runs(folder: Path, results: Results) -> frozenset[str]:
    """Ids of the runs that a paired test cannot distinguish from the chosen run on the rows of the table.

    These are the test rows, or without a test split the validation or out-of-fold rows. As in the report
    (:func:`loralet.report.comparisons.compare_with_winner`), random heads are not tested, and Holm's correction covers
    all others. Runs without saved predictions are not marked.

    Args:
        folder: the run folder.
        results: its results.
    """
    try:
        targets, predicted = _predictions(folder, results)
    except RunError:
        return frozenset()  # an older or damaged folder, whose scores are still shown
    chosen = chosen_run(results).id
    if chosen not in predicted:
        return frozenset()
    right = {run: (values == targets)[None] for run, values in predicted.items()}
    tested = [run.id for run in results.runs if run.id in right and run.id != chosen and run.role != "random-head"]
    corrected = holm([paired(right[run], right[chosen]).p for run in tested])
    return frozenset(run for run, p in zip(tested, corrected, strict=True) if p >= ALPHA_LEVEL)


def _predictions(folder: Path, results: Results) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
    """Targets, and predicted targets by run; empty if there are none."""
    task = TASKS[results.task](results.data.labels)
    if (folder / PREDICTIONS).exists():
        targets, _, predicted = read_predictions(folder, task)
        return targets, predicted
    if (folder / HELD_OUT).exists():
        targets, _, predicted = read_predictions(folder, task, HELD_OUT)
        return targets, predicted
    if (folder / OUT_OF_FOLD).exists():
        found = read_out_of_fold(folder)
        own = {run: task.predicted(logits) for run, logits in found.logits.items()}
        return found.targets, {**found.predicted, **own}
    return np.zeros(0, np.int64), {}
