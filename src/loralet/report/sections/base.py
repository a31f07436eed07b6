"""The protocol of a task's section, and the tables of test rows that sections are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from loralet.report.figures.style import Drawing
from loralet.runs.record import Record
from loralet.runs.results import RunResult


@dataclass(frozen=True)
class Measure:
    """A figure on the test split that only some tasks have, as a column of the results table.

    Args:
        heading: of the column.
        meaning: one sentence for readers who point at the heading.
        form: format of its values, for :meth:`str.format`.
    """

    heading: str
    meaning: str
    form: str


@dataclass(frozen=True)
class ShownRuns:
    """The runs whose predictions a section shows.

    Args:
        name: of the winning configuration.
        winner: id of its run with the best validation scores.
        chance: id of the random head of the same model and seed; None where there is none.
        adapters: ids of all adapter runs whose probabilities are on record; the winner's where there are none.
    """

    name: str
    winner: str
    chance: str | None
    adapters: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """A model's answer for one row.

    Args:
        text: the predicted label.
        right: whether it is correct.
        probability: its probability in per cent, as text.
        details: what is written next to it in small letters; empty for nothing.
    """

    text: str
    right: bool
    probability: str
    details: str


@dataclass(frozen=True)
class ExampleRow:
    """One test row.

    Args:
        row: its number, counted from 1.
        text: its text; None where texts are left out.
        label: its label.
        answers: one per model of the table.
        mark: a sign behind the number; empty for none.
    """

    row: int
    text: str | None
    label: str
    answers: tuple[Answer, ...]
    mark: str = ""


@dataclass(frozen=True)
class ExampleTable:
    """A table of test rows.

    Args:
        heading, note: what stands above it.
        models: headings of the columns of answers.
        rows: the rows.
    """

    heading: str
    note: str
    models: tuple[str, ...]
    rows: tuple[ExampleRow, ...]

    @property
    def has_texts(self) -> bool:
        """Whether the rows have texts."""
        return any(row.text is not None for row in self.rows)


class Section(Protocol):
    """What a report shows of one task only. A frozen dataclass, so that its figures are part of the report's JSON."""

    @property
    def note(self) -> str:
        """Why there are no texts; empty where there are."""
        ...

    def drawings(self) -> Sequence[Drawing]:
        """Figures behind those that every task has."""
        ...

    def tables(self) -> Sequence[ExampleTable]:
        """Tables of test rows."""
        ...


class SectionKind(Protocol):
    """How a task's section is made."""

    measures: tuple[Measure, ...]
    """Further columns of the results table."""

    def measure(self, record: Record, runs: Sequence[RunResult]) -> dict[str, float | None]:
        """The measures of one configuration by their headings, means over its seeds; None where nothing was measured.

        Args:
            record: the run folder.
            runs: the configuration's runs.
        """
        ...

    def build(self, record: Record, shown: ShownRuns, with_texts: bool) -> Section:
        """The section of a run folder that has a test split.

        Args:
            record: the run folder.
            shown: the runs to show.
            with_texts: whether to read the texts of the test rows from the data source.
        """
        ...
