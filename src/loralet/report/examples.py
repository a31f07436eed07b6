"""Test rows worth showing: a sample, the most confident mistakes, and rows whose label is likely wrong.

Showing rows that were scored long ago is no scoring: ``test_reads`` stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loralet.data.sources import load_dataset
from loralet.errors import UserError
from loralet.report.record import Record
from loralet.report.statistics import suspected_labels
from loralet.training.corpus import columns_of

SHOWN = 10
SAMPLE_SEED = 0


@dataclass(frozen=True)
class Guess:
    """A predicted label and all probabilities, in label order."""

    label: str
    probability: float
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Example:
    """One test row: its number, counted from 1, its text (None where texts are left out), its label, and what two models say of it."""

    row: int
    text: str | None
    label: str
    base: Guess | None
    winner: Guess
    suspected: bool = False


@dataclass(frozen=True)
class Examples:
    """Rows to show. ``suspect_count``: rows whose label is likely wrong; ``note``: why there are no texts, where there are none."""

    sampled: tuple[Example, ...]
    wrong: tuple[Example, ...]
    suspects: tuple[Example, ...]
    suspect_count: int
    note: str


def read_texts(record: Record) -> tuple[Sequence[str] | None, str]:
    """The test texts of the data set that the run was measured on, or None and the reason."""
    source, reading = record.results["data"]["source"], record.config.reading
    try:
        dataset = load_dataset(source, columns_of(reading), reading.label_names, reading.drop_overlap)
    except UserError as error:
        return None, f"The texts are not shown: {source} cannot be read here ({error})."
    if dataset.fingerprint != record.results["data"]["fingerprint"] or dataset.test is None:
        return (
            None,
            f"The texts are not shown: {source} is no longer the data that these runs were measured on (its fingerprint differs).",
        )
    return dataset.test.read().texts.to_pylist(), ""


def find_examples(record: Record, winner: str, base: str | None, lora: Sequence[str], with_texts: bool) -> Examples:
    """Choose the rows.

    Args:
        record: the run folder.
        winner: id of the run whose predictions are shown.
        base: id of the random head beside it.
        lora: ids of the runs whose mean probabilities say which labels are suspect.
        with_texts: whether to read the data source again.
    """
    assert record.labels is not None
    labels, own = record.labels, record.probabilities[winner]
    texts, note = read_texts(record) if with_texts else (None, "The texts of the rows are left out of this report.")
    suspects = suspected_labels(np.mean([record.probabilities[run] for run in lora], axis=0), labels)
    suspected = {row for row, _ in suspects}
    sampled = np.sort(np.random.default_rng(SAMPLE_SEED).choice(len(labels), min(SHOWN, len(labels)), replace=False))
    wrong = np.flatnonzero(own.argmax(1) != labels)
    wrong = wrong[np.argsort(-own[wrong].max(1), kind="stable")][:SHOWN]
    names = record.results["data"]["labels"]

    def guess(run: str, row: int) -> Guess:
        values = record.probabilities[run][row]
        return Guess(names[int(values.argmax())], float(values.max()), tuple(float(v) for v in values))

    def example(row: int) -> Example:
        text = texts[row] if texts is not None else None
        return Example(
            row + 1,
            text,
            names[int(labels[row])],
            guess(base, row) if base else None,
            guess(winner, row),
            row in suspected,
        )

    return Examples(
        tuple(example(int(row)) for row in sampled),
        tuple(example(int(row)) for row in wrong),
        tuple(example(row) for row, _ in suspects[:SHOWN]),
        len(suspects),
        note,
    )
