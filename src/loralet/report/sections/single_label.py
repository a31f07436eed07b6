"""The section of single-label classification: confusion matrix, calibration, and selected test rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

import numpy as np

from loralet.report.coverage import CoverageCurve, coverage_of, coverage_text
from loralet.report.figures.confusion import confusion_panel
from loralet.report.figures.coverage import coverage_panel
from loralet.report.figures.reliability import reliability_panel
from loralet.report.figures.style import Drawing
from loralet.report.sections.base import Answer, ExampleRow, ExampleTable, Measure, ShownRuns
from loralet.report.sections.examples import Example, Examples, Guess, find_examples
from loralet.report.statistics import Calibration, reliability
from loralet.runs.record import Record
from loralet.runs.results import RunResult
from loralet.tasks.calibration import LEAST_ROWS, CalibrationError, TemperatureScaling
from loralet.tasks.classes import confusion_counts

PROBABILITIES_SHOWN = 6
"""With more labels, a prediction shows only the probability of the predicted label."""


@dataclass(frozen=True)
class SingleLabelSection:
    """See :class:`loralet.report.sections.base.Section`.

    Args:
        labels: label names, in the order of the logits.
        shown: the runs to show.
        calibration: calibration of the winner on the test rows.
        confusion: test rows of the winner by true label (down) and predicted label (across).
        coverage: accuracy of the winner on the test rows above a confidence.
        scaling: the temperature of the winner; None in folders written before it was fitted.
        examples: test rows.
    """

    labels: tuple[str, ...]
    shown: ShownRuns
    calibration: Calibration
    confusion: tuple[tuple[int, ...], ...]
    coverage: CoverageCurve
    scaling: TemperatureScaling | None
    examples: Examples

    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("F1", "macro F1 on the test split", "{:.4f}"),
        Measure("ECE", "expected calibration error, 15 bins", "{:.3f}"),
    )

    @classmethod
    def measure(cls, record: Record, runs: Sequence[RunResult]) -> dict[str, float | None]:
        """Macro F1 and expected calibration error."""
        f1 = [run.test["macro_f1"] for run in runs if run.test]
        known = [run.id for run in runs if run.id in record.probabilities]
        ece = [reliability(record.probabilities[run], _targets(record)).ece for run in known]
        return {name: fmean(values) if values else None for name, values in (("F1", f1), ("ECE", ece))}

    @classmethod
    def build(cls, record: Record, shown: ShownRuns, with_texts: bool) -> SingleLabelSection:
        """See :meth:`loralet.report.sections.base.SectionKind.build`."""
        labels, targets, probabilities = (
            record.results.data.labels,
            _targets(record),
            record.probabilities[shown.winner],
        )
        counts = confusion_counts(len(labels), probabilities.argmax(1), targets)
        return cls(
            labels=labels,
            shown=shown,
            calibration=reliability(probabilities, targets),
            confusion=tuple(tuple(int(count) for count in line) for line in counts),
            coverage=coverage_of(probabilities, targets),
            scaling=record.results.run(shown.winner).calibration,
            examples=find_examples(record, shown, with_texts),
        )

    @property
    def note(self) -> str:
        """Why no texts are shown; empty if they are."""
        return self.examples.note

    def drawings(self) -> list[Drawing]:
        """The confusion matrix and the reliability diagram, and accuracy by coverage."""
        panels = (confusion_panel(self.labels, self.confusion), reliability_panel(self.calibration))
        covered = coverage_text(self.coverage, self.shown.winner)
        return [
            Drawing("errors", "Errors and calibration", self._caption(), panels),
            Drawing("coverage", "Accuracy above a confidence", covered, (coverage_panel(self.coverage.points),)),
        ]

    def _caption(self) -> str:
        error, names = self.scaling.test if self.scaling else None, (self.shown.winner, "validation")
        scaled = calibration_text(self.calibration, self.scaling, error, names)
        return (
            "Confusion matrix: each line sums to the rows of one label; shading shows the square root of the share. "
            "Reliability diagram: with perfect calibration, the dots lie on the dotted line; bars are 95 % intervals. "
            + scaled
        )

    def tables(self) -> list[ExampleTable]:
        """A random sample, the most confident errors, and rows whose label is likely wrong."""
        found, rows = self.examples, sum(map(sum, self.confusion))
        models = ("random head",) * bool(self.shown.chance) + (self.shown.name,)
        legend = ""
        if len(self.labels) <= PROBABILITIES_SHOWN:
            legend = f" Small figures are probabilities in per cent, in the order {' · '.join(self.labels)}."
        chance = ""
        if self.shown.chance:
            chance = " The random head measures chance: an untrained classifier on the same frozen encoder."
        runs = len(self.shown.adapters)
        judges = f"the mean probabilities of {runs} runs" if runs > 1 else "the probabilities of this run"
        suspected = (
            f"{found.suspect_count:,} of {rows:,} rows ({100 * found.suspect_count / rows:.1f} %) have a label that "
            f"contradicts {judges}, by the simplest rule of confident learning: another class is the most probable "
            "one, and the label is not the most probable of the classes that reach their own mean confidence. The "
            "clearest rows are shown. This does not prove that the labels are wrong: all runs share one encoder and "
            "can make the same errors."
        )
        return [
            ExampleTable(
                "Ten random rows" if len(found.sampled) == 10 else "Random rows",
                f"A random sample of the {rows:,} test rows, with a fixed seed.{chance}{legend}",
                models,
                tuple(self._row(example) for example in found.sampled),
                found.unit,
            ),
            ExampleTable(
                "Most confident errors",
                "The wrong predictions with the highest probability. † marks rows whose label is likely wrong.",
                models,
                tuple(self._row(example, "†" if example.suspected else "") for example in found.wrong),
                found.unit,
            ),
            ExampleTable(
                "Likely mislabelled rows",
                suspected,
                models,
                tuple(self._row(example) for example in found.suspects),
                found.unit,
            ),
        ]

    def _row(self, example: Example, mark: str = "") -> ExampleRow:
        guesses = [guess for guess in (example.chance, example.winner) if guess]
        answers = tuple(_answer(guess, example.label) for guess in guesses)
        return ExampleRow(example.row, example.text, example.label, answers, mark)


def calibration_text(
    found: Calibration, scaling: TemperatureScaling | None, error: CalibrationError | None, names: tuple[str, str]
) -> str:
    """Whether the probabilities are too high, and the temperature.

    Args:
        found: the calibration on the shown rows.
        scaling: the temperature; None if it is unknown.
        error: the calibration error on the shown rows with and without the temperature; None if it is unknown.
        names: names of the classifier, and of the split that the temperature was fitted on.
    """
    run, held_out = names
    gap = sum(b.rows * (b.confidence - b.accuracy) for b in found.bins) / sum(b.rows for b in found.bins)
    verdict = "overconfident" if gap > 0.005 else "underconfident" if gap < -0.005 else "well calibrated"
    signed_gap = f"{gap:+.3f}".replace("-", "−")
    text = f"On average, {run} is {verdict} (mean confidence minus accuracy: {signed_gap})."
    if scaling is None:
        return text
    rows = f"{scaling.rows:,} {held_out} rows"
    if not scaling.fitted:
        return f"{text} Its probabilities are not calibrated: {rows} are fewer than {LEAST_ROWS}."
    text += f" Its logits are divided by the temperature {scaling.temperature:.3g}, fitted on {rows}."
    return text if error is None else f"{text} Calibration error without it: {error.before:.3f}."


def _answer(guess: Guess, label: str) -> Answer:
    """A prediction, with the probabilities of all labels if there are few."""
    few = len(guess.probabilities) <= PROBABILITIES_SHOWN
    details = " · ".join(f"{100 * p:.0f}" for p in guess.probabilities) if few else ""
    return Answer(guess.label, guess.label == label, f"{100 * guess.probability:.0f}", details)


def _targets(record: Record) -> np.ndarray:
    assert record.targets is not None
    return record.targets
