"""The models of a single run: the classifier, what it is made of, and the baselines, on the same held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from loralet.adapters.spec import METHOD_NAMES
from loralet.errors import RunError
from loralet.report.configurations import ALPHA_LEVEL, NAMES, Comparison
from loralet.report.statistics import holm, paired
from loralet.report.text import LINEAR
from loralet.runs.held_out import HeldOutRows
from loralet.runs.record import Record
from loralet.runs.results import RunResult
from loralet.runs.run import Role

F1 = "macro_f1"
ORDER: tuple[Role, ...] = ("majority", *LINEAR)
"""Roles above the trained runs in the table, in this order."""


@dataclass(frozen=True)
class Measured:
    """The rows that the models of a page are compared on.

    Args:
        split: ``test``, ``out-of-fold`` or ``validation``.
        rows: their number.
        folds: number of folds; None without a cross-validation.
    """

    split: str
    rows: int
    folds: int | None

    @property
    def text(self) -> str:
        """``1,500 out-of-fold rows``."""
        return f"{self.rows:,} {self.split} row{'' if self.rows == 1 else 's'}"


@dataclass(frozen=True)
class ModelRow:
    """One model of the table. Accuracies are fractions.

    Args:
        id, role: its run.
        name: its name on the page.
        accuracy, low, high: on the measured rows, with its 95 % interval; the interval is None in older folders.
        macro_f1: macro F1 on these rows; None if it is not recorded.
        versus: the classifier's accuracy minus that of this model; None for the classifier, and without predictions.
        parameters, seconds: trained parameters, and training time; None if it is not recorded.
        bytes: size of its weights on disk; None if they are not saved.
        shipped: whether it is the classifier that predict, evaluate and export use.
    """

    id: str
    role: Role
    name: str
    accuracy: float
    low: float | None
    high: float | None
    macro_f1: float | None
    versus: Comparison | None
    parameters: int
    seconds: float | None
    bytes: int | None
    shipped: bool

    @property
    def tied(self) -> bool:
        """Whether the paired test shows no difference from the classifier."""
        return self.versus is not None and not self.versus.distinguishable


def measured_rows(record: Record, shipped: RunResult) -> Measured:
    """The rows with the most reliable scores of the classifier: test, out-of-fold or validation rows.

    Raises:
        RunError: the classifier has no scores.
    """
    data = record.results.data
    if not (shipped.test or shipped.validation):
        raise RunError(f"{record.folder}: {shipped.id} has no scores in results.json; copy the run folder again")
    if shipped.test:
        return Measured("test", data.test_rows, data.folds)
    return Measured(data.held_out, data.held_out_rows, data.folds)


def model_rows(record: Record, shipped: RunResult, measured: Measured, rows: HeldOutRows | None) -> list[ModelRow]:
    """The models with scores on the measured rows: baselines, then the run, then its hybrid.

    Args:
        record: the run folder.
        shipped: the classifier.
        measured: the rows.
        rows: their predictions; None if they are not recorded.
    """
    found = [
        _model(record, run, run.id == shipped.id, measured)
        for run in record.results.runs
        if (run.test if measured.split == "test" else run.validation)
    ]
    return sorted(_compared(found, shipped.id, rows), key=_place)


def _place(row: ModelRow) -> int:
    return ORDER.index(row.role) if row.role in ORDER else len(ORDER) + row.shipped


def _model(record: Record, run: RunResult, shipped: bool, measured: Measured) -> ModelRow:
    scores = run.test if measured.split == "test" else run.validation
    assert scores is not None
    metric, files = record.results.metric, record.adapters.get(run.id)
    low, high = scores.intervals.get(metric, (None, None))
    return ModelRow(
        id=run.id,
        role=run.role,
        name=model_name(record, run),
        accuracy=scores[metric],
        low=low,
        high=high,
        macro_f1=scores.values.get(F1),
        versus=None,
        parameters=run.trainable_parameters,
        seconds=run.train_seconds,
        bytes=files.bytes if files else None,
        shipped=shipped,
    )


def model_name(record: Record, run: RunResult) -> str:
    """The name of a model, such as ``LoRA on tiny-en`` or ``hybrid: LoRA + TF-IDF + logistic regression``."""
    if not run.members:
        return _own_name(run)
    members = [_own_name(other) for id in run.members for other in record.results.runs if other.id == id]
    return f"{_own_name(run)}: {' and '.join(members)}"


def _own_name(run: RunResult) -> str:
    if run.role == "lora" and run.adapter:
        return METHOD_NAMES[run.adapter.method]
    return NAMES.get(run.role, run.role)


def _compared(models: Sequence[ModelRow], shipped: str, rows: HeldOutRows | None) -> list[ModelRow]:
    """The models with the comparison of the classifier with each other one: paired tests, Holm-corrected."""
    if rows is None or shipped not in rows.predicted:
        return list(models)
    right = {run: np.asarray(predicted == rows.targets)[None] for run, predicted in rows.predicted.items()}
    others = [model.id for model in models if model.id != shipped and model.id in right]
    tests = [paired(right[other], right[shipped]) for other in others]
    corrected = holm([test.p for test in tests])
    versus = {
        other: Comparison(test.difference, test.low, test.high, test.p, p_holm, test.method)
        for other, test, p_holm in zip(others, tests, corrected, strict=True)
    }
    return [replace(model, versus=versus.get(model.id)) for model in models]


def strongest_linear(models: Sequence[ModelRow]) -> ModelRow | None:
    """The linear model on words with the highest accuracy; None if none was fitted."""
    return max((row for row in models if row.role in LINEAR), key=lambda row: row.accuracy, default=None)


def level_text() -> str:
    """``5 %``."""
    return f"{100 * ALPHA_LEVEL:g} %"
