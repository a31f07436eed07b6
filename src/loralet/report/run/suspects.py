"""Rows of the data whose label is likely wrong, and the errors with the highest confidence, with their row numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loralet.config import DataOptions
from loralet.data.sources import Dataset, Split
from loralet.data.splits import train_and_validation
from loralet.errors import UserError
from loralet.runs.held_out import HeldOutRows
from loralet.runs.record import Record
from loralet.runs.sources import dataset_of
from loralet.tasks.suspects import suspected_labels

SHOWN = 20
"""Number of likely wrong labels of a split that are shown."""
ERRORS = 10
"""Number of confident errors that are shown."""


@dataclass(frozen=True)
class SuspectRow:
    """A row with its label and the label that the model suggests.

    Args:
        row: its number in the file (:attr:`loralet.data.sources.Split.places`).
        file: name of the file, if the split has several; else empty.
        text: its text.
        label, suggestion: its label, and the suggested one.
        given, suggested: probabilities of both.
    """

    row: int
    file: str
    text: str
    label: str
    suggestion: str
    given: float
    suggested: float


@dataclass(frozen=True)
class Suspects:
    """The rows of one split.

    Args:
        split: ``test``, ``out-of-fold`` or ``validation``.
        source: where the rows come from, such as the file.
        unit: what the row numbers count: ``line`` or ``row``.
        run: the run whose probabilities are used.
        total: number of rows of the split.
        count: number of rows whose label is likely wrong.
        rows: the clearest of them.
        errors: the wrong predictions with the highest probability that are not among ``rows``.
    """

    split: str
    source: str
    unit: str
    run: str
    total: int
    count: int
    rows: tuple[SuspectRow, ...]
    errors: tuple[SuspectRow, ...]


def read_data(record: Record) -> tuple[Dataset | None, str]:
    """The data set of a run, or None and why it cannot be shown."""
    data = record.results.data
    try:
        dataset = dataset_of(data.source, record.config.reading, record.results.task)
    except UserError as error:
        return None, f"Rows are not shown: {data.source} cannot be read ({error})."
    if dataset.fingerprint != data.fingerprint:
        return None, f"Rows are not shown: {data.source} has changed since the training (its fingerprint differs)."
    return dataset, ""


def find_suspects(
    record: Record, splits: Sequence[HeldOutRows], judges: Sequence[str], with_texts: bool
) -> tuple[tuple[Suspects, ...], str]:
    """The likely wrong labels of every split with recorded predictions, and why none are shown, if so.

    Args:
        record: the run folder.
        splits: the splits.
        judges: runs whose probabilities are used: of each split, the first that has some.
        with_texts: whether texts may be read from the data source.
    """
    if not any(rows.probabilities for rows in splits):
        advice = f"loralet check {record.results.data.source} finds them by cross-validation"
        return (), f"Probabilities of held-out rows are not recorded, so wrong labels cannot be found; {advice}."
    if not with_texts:
        return (), "This report was made without texts."
    dataset, note = read_data(record)
    if dataset is None:
        return (), note
    found: list[Suspects] = []
    for rows in splits:
        judge = next((run for run in judges if run in rows.probabilities), None)
        if judge is None:
            continue
        split = _split_of(dataset, rows.split, record.config.reading)
        if len(rows.targets) and np.array_equal(split.targets, rows.targets):
            found.append(_of_split(rows, judge, split, record.results.data.labels))
    return tuple(found), "" if found else "No probabilities of held-out rows are recorded."


def _split_of(dataset: Dataset, name: str, reading: DataOptions) -> Split:
    """The rows of a split of :class:`loralet.runs.held_out.HeldOutRows`, as training read them."""
    if name == "test" and dataset.test:
        return dataset.test.read()
    if name == "validation":
        return train_and_validation(dataset, reading.validation_fraction, reading.split_seed)[1]
    return dataset.train


def _of_split(rows: HeldOutRows, judge: str, split: Split, labels: Sequence[str]) -> Suspects:
    probabilities, places = rows.probabilities[judge], split.places
    pairs = suspected_labels(probabilities, rows.targets)
    several = len(places.files) > 1

    def row(i: int, suggestion: int) -> SuspectRow:
        given = int(rows.targets[i])
        return SuspectRow(
            int(places.rows[i]),
            Path(places.files[places.file[i]]).name if several else "",
            split.texts[i].as_py(),
            labels[given],
            labels[suggestion],
            float(probabilities[i, given]),
            float(probabilities[i, suggestion]),
        )

    predicted, taken = probabilities.argmax(1), {i for i, _ in pairs[:SHOWN]}
    wrong = np.flatnonzero(predicted != rows.targets)
    wrong = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")]
    errors = [int(i) for i in wrong if int(i) not in taken][:ERRORS]
    return Suspects(
        split=rows.split,
        source=split.source,
        unit=places.unit,
        run=judge,
        total=len(rows.targets),
        count=len(pairs),
        rows=tuple(row(i, best) for i, best in pairs[:SHOWN]),
        errors=tuple(row(i, int(predicted[i])) for i in errors),
    )
