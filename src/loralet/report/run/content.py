"""All values and sentences of the page of a single run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loralet.report.configurations import Model
from loralet.report.coverage import CoverageCurve, coverage_of
from loralet.report.run import sentences
from loralet.report.run.models import Measured, ModelRow, measured_rows, model_rows
from loralet.report.run.suspects import Suspects, find_suspects
from loralet.report.run.usage import Use, uses
from loralet.report.statistics import Calibration, reliability
from loralet.runs.held_out import HeldOutRows, held_out_rows
from loralet.runs.record import Record
from loralet.runs.results import RunResult
from loralet.tasks.calibration import TemperatureScaling
from loralet.tasks.classes import ClassScores, Confusion, confusion_counts, largest_confusions
from loralet.tasks.registry import TASKS

CONFUSIONS = 5
"""Number of confusions listed."""


@dataclass(frozen=True)
class RunPage:
    """The page of a single run. Accuracies are fractions.

    Args:
        shipped: id of the classifier that predict, evaluate and export use.
        title, answer, limitations: sentences.
        measured: the rows that the figures are measured on.
        models: the classifier and what it is compared with.
        classes: scores of each class of the classifier; empty if they are not recorded.
        confusion: measured rows by label (down) and prediction (across); None without predictions.
        confusions: the largest confusions.
        calibration: calibration of the classifier; None without its probabilities.
        coverage: accuracy above a confidence; None likewise.
        scaling: its temperature; None if it is not recorded.
        suspects: likely wrong labels and confident errors of each split.
        note: why no rows are shown; empty if they are.
        uses: how to use the classifier.
    """

    shipped: str
    title: str
    answer: tuple[str, ...]
    limitations: tuple[str, ...]
    measured: Measured
    models: tuple[ModelRow, ...]
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...] | None
    confusions: tuple[Confusion, ...]
    calibration: Calibration | None
    coverage: CoverageCurve | None
    scaling: TemperatureScaling | None
    suspects: tuple[Suspects, ...]
    note: str
    uses: tuple[Use, ...]

    @property
    def classifier(self) -> ModelRow:
        """The row of the classifier."""
        return next(row for row in self.models if row.shipped)


def run_page(record: Record, shipped: RunResult, models: tuple[Model, ...], with_texts: bool) -> RunPage:
    """The page of a run folder of ``loralet train`` or ``loralet teach``.

    Args:
        record: the run folder.
        shipped: the chosen run, or its hybrid.
        models: the backbones.
        with_texts: whether to read rows of the data source again.

    Raises:
        RunError: the out-of-fold predictions are damaged, or the classifier has no scores.
    """
    splits, measured = held_out_rows(record), measured_rows(record, shipped)
    rows = next((found for found in splits if found.split == measured.split), None)
    table = model_rows(record, shipped, measured, rows)
    own = rows if rows is not None and shipped.id in rows.predicted else None
    probabilities = own.probabilities.get(shipped.id) if own else None
    counts = _counts(record, shipped.id, own)
    classes, confusions = _classes(record, shipped.id, measured, own), _largest(record, counts)
    facts = sentences.Facts(record, shipped, models, measured, tuple(table), classes, confusions)
    judges = (shipped.id, *(shipped.members or ()))
    suspects, note = find_suspects(record, splits, judges, with_texts)
    return RunPage(
        shipped=shipped.id,
        title=sentences.title(facts),
        answer=sentences.answer(facts),
        limitations=sentences.limitations(facts),
        measured=measured,
        models=tuple(table),
        classes=classes,
        confusion=counts,
        confusions=confusions,
        calibration=None if own is None or probabilities is None else reliability(probabilities, own.targets),
        coverage=None if own is None or probabilities is None else coverage_of(probabilities, own.targets),
        scaling=shipped.calibration,
        suspects=suspects,
        note=note,
        uses=uses(_folder(record.folder), record.results.data, shipped.role),
    )


def _folder(folder: Path) -> str:
    """The path of the run folder as given; the whole path if it has no name, as ``.`` has none."""
    return str(folder if folder.name else folder.resolve())


def _counts(record: Record, run: str, rows: HeldOutRows | None) -> tuple[tuple[int, ...], ...] | None:
    if rows is None:
        return None
    counts = confusion_counts(len(record.results.data.labels), rows.predicted[run], rows.targets)
    return tuple(tuple(int(count) for count in line) for line in counts)


def _largest(record: Record, counts: tuple[tuple[int, ...], ...] | None) -> tuple[Confusion, ...]:
    if counts is None:
        return ()
    return largest_confusions(record.results.data.labels, np.array(counts), CONFUSIONS)


def _classes(record: Record, run: str, measured: Measured, rows: HeldOutRows | None) -> tuple[ClassScores, ...]:
    """The scores of each class, from the predictions or as recorded."""
    results = record.results
    if rows is not None:
        return TASKS[results.task](results.data.labels).classes(rows.predicted[run], rows.targets)
    recorded = (found for found in results.classes if (found.run, found.split) == (run, measured.split))
    return next((found.scores for found in recorded), ())
