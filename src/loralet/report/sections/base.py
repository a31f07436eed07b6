"""The protocol of a task's section, and the tables of test rows that it contains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from loralet.report.figures.style import Drawing
from loralet.runs.record import Record
from loralet.runs.results import RunResult


@dataclass(frozen=True)
class Measure:
    """A task-specific test metric, shown as a column of the results table.

    Args:
        heading: column heading.
        meaning: tooltip of the heading.
        form: format of the values, for :meth:`str.format`.
    """

    heading: str
    meaning: str
    form: str


@dataclass(frozen=True)
class ShownRuns:
    """The runs whose predictions a section shows.

    Args:
        name: name of the winning configuration.
        winner: id of its run with the best validation scores.
        chance: id of the random head of the same model and seed; None if there is none.
        adapters: ids of all adapter runs with recorded probabilities; the winner's id if there are none.
    """

    name: str
    winner: str
    chance: str | None
    adapters: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """A model's prediction for one row.

    Args:
        text: the predicted label.
        right: whether it is correct.
        probability: its probability in per cent, as text.
        details: additional text in small print; may be empty.
    """

    text: str
    right: bool
    probability: str
    details: str


@dataclass(frozen=True)
class ExampleRow:
    """One test row.

    Args:
        row: row number, from 1.
        text: its text; None if texts are not shown.
        label: its label.
        answers: one per model of the table.
        mark: symbol after the row number; may be empty.
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
        heading, note: heading and text above the table.
        models: headings of the prediction columns.
        rows: the rows.
        unit: what the row numbers count: the ``line`` of a text file, or the ``row`` of a table or of the split.
    """

    heading: str
    note: str
    models: tuple[str, ...]
    rows: tuple[ExampleRow, ...]
    unit: str = "row"

    @property
    def has_texts(self) -> bool:
        """Whether the rows have texts."""
        return any(row.text is not None for row in self.rows)


class Section(Protocol):
    """Task-specific part of a report. Implement it as a frozen dataclass, so that the report's JSON includes it."""

    @property
    def note(self) -> str:
        """Why no texts are shown; empty if they are."""
        ...

    def drawings(self) -> Sequence[Drawing]:
        """Figures shown after those common to all tasks."""
        ...

    def tables(self) -> Sequence[ExampleTable]:
        """Tables of test rows."""
        ...


class SectionKind(Protocol):
    """Builds the section of a task."""

    measures: tuple[Measure, ...]
    """Additional columns of the results table."""

    def measure(self, record: Record, runs: Sequence[RunResult]) -> dict[str, float | None]:
        """The measures of one configuration by heading, means over its seeds; None if nothing was measured.

        Args:
            record: the run folder.
            runs: the configuration's runs.
        """
        ...

    def build(self, record: Record, shown: ShownRuns, with_texts: bool) -> Section:
        """Build the section of a run folder with a test split.

        Args:
            record: the run folder.
            shown: the runs to show.
            with_texts: whether to read the texts of the test rows from the data source.
        """
        ...
