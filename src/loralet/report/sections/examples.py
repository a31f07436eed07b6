"""Selects test rows of a single-label classifier: a random sample, confident errors, and likely wrong labels.

These rows are already scored, so showing them does not increase ``test_reads``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from loralet.data.sources import Split
from loralet.errors import UserError
from loralet.report.sections.base import ShownRuns
from loralet.runs.record import Record
from loralet.runs.sources import dataset_of
from loralet.tasks.suspects import suspected_labels

SHOWN = 10
"""Number of rows of each kind."""
SAMPLE_SEED = 0


@dataclass(frozen=True)
class Guess:
    """A predicted label, its probability, and the probabilities of all labels in label order."""

    label: str
    probability: float
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Example:
    """One test row.

    Args:
        row: its number in the file if the texts are shown, else in the test split; from 1.
        text: its text; None if texts are not shown.
        label: its label.
        chance: prediction of the random head; None if there is none.
        winner: the winner's prediction.
        suspected: whether its label is likely wrong.
    """

    row: int
    text: str | None
    label: str
    chance: Guess | None
    winner: Guess
    suspected: bool = False


@dataclass(frozen=True)
class Examples:
    """Rows to show.

    Args:
        sampled: a random sample.
        wrong: the winner's errors with the highest probability.
        suspects: rows whose label is likely wrong, the clearest first.
        suspect_count: number of such rows in the whole test split.
        note: why no texts are shown; empty if they are.
        unit: what the row numbers count: ``line`` or ``row``.
    """

    sampled: tuple[Example, ...]
    wrong: tuple[Example, ...]
    suspects: tuple[Example, ...]
    suspect_count: int
    note: str
    unit: str = "row"


def read_test(record: Record) -> tuple[Split | None, str]:
    """The test rows of the data set that the runs were evaluated on, or None and the reason."""
    source = record.results.data.source
    try:
        dataset = dataset_of(source, record.config.reading, record.results.task)
    except UserError as error:
        return None, f"The texts are not shown: {source} cannot be read ({error})."
    if dataset.fingerprint != record.results.data.fingerprint or dataset.test is None:
        return None, (
            f"The texts are not shown: {source} has changed since these runs were evaluated on it "
            "(its fingerprint differs)."
        )
    return dataset.test.read(), ""


def find_examples(record: Record, shown: ShownRuns, with_texts: bool) -> Examples:
    """Select the rows.

    Args:
        record: the run folder; it has a test split.
        shown: the runs whose predictions are shown. Labels that contradict the mean probabilities of its adapter runs
            are likely wrong.
        with_texts: whether to read the texts from the data source.
    """
    assert record.targets is not None
    targets, own, names = record.targets, record.probabilities[shown.winner], record.results.data.labels
    test, note = read_test(record) if with_texts else (None, "This report was made without texts.")
    texts = None if test is None else test.texts.to_pylist()
    places = None if test is None or len(test.places.files) > 1 else test.places
    suspects = suspected_labels(np.mean([record.probabilities[run] for run in shown.adapters], axis=0), targets)
    suspected = {row for row, _ in suspects}
    sampled = np.random.default_rng(SAMPLE_SEED).choice(len(targets), min(SHOWN, len(targets)), replace=False)
    wrong = np.flatnonzero(own.argmax(1) != targets)
    wrong = wrong[np.argsort(-own[wrong].max(1), kind="stable")][:SHOWN]

    def guess(run: str, row: int) -> Guess:
        values = record.probabilities[run][row]
        return Guess(names[int(values.argmax())], float(values.max()), tuple(float(v) for v in values))

    def example(row: int) -> Example:
        return Example(
            row=row + 1 if places is None else int(places.rows[row]),
            text=texts[row] if texts is not None else None,
            label=names[int(targets[row])],
            chance=guess(shown.chance, row) if shown.chance else None,
            winner=guess(shown.winner, row),
            suspected=row in suspected,
        )

    return Examples(
        sampled=tuple(example(int(row)) for row in np.sort(sampled)),
        wrong=tuple(example(int(row)) for row in wrong),
        suspects=tuple(example(row) for row, _ in suspects[:SHOWN]),
        suspect_count=len(suspects),
        note=note,
        unit="row" if places is None else places.unit,
    )
