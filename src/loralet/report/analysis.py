"""Computes all values and sentences of a report from a run folder, without figures or HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loralet.config import DataOptions, TrainingOptions
from loralet.records import plain
from loralet.report import text
from loralet.report.class_scores import find_classes
from loralet.report.comparisons import compare_with_winner
from loralet.report.configurations import Configuration, Model, configurations, find_models
from loralet.report.curves import Curve, accuracy_curves, loss_curves
from loralet.report.findings import findings
from loralet.report.grids import Grid, Trend, grids, trends
from loralet.report.recommendations import caveats, recommendations
from loralet.report.run.content import RunPage, run_page
from loralet.report.savings import Savings, savings
from loralet.report.sections.base import Section, ShownRuns
from loralet.report.sections.registry import section_of
from loralet.runs.environment import Environment
from loralet.runs.record import Record, read_record
from loralet.runs.results import DataFacts, SplitClasses
from loralet.runs.selection import chosen_run, rank_of_run

STUDY = "study"


@dataclass(frozen=True)
class Analysis:
    """All values and sentences of a report. Accuracies are fractions, times seconds, sizes bytes.

    Args:
        name: name of the run folder.
        kind: ``train``, ``teach`` or ``study``.
        task: name of the task.
        question, answer, findings, recommendations, caveats: sentences.
        data: the training data.
        training, reading: the options.
        environment: versions, machine and backends.
        command: the command that repeats the study; empty if unknown.
        test_reads: number of times the test split was read.
        models: the backbones.
        configurations: the rows of the tables.
        winner: name of the configuration chosen on validation.
        shown_run: id of the winner's run whose predictions are shown.
        losses, accuracies: the curves of each run.
        grids, trends: accuracy and convergence by rank and alpha.
        savings: steps and time saved by early exits.
        run: the page of a single run; None for a study.
        classes: scores of each class of the shown run; without a test split, of the run chosen on validation. None if
            they are not recorded.
        section: the task-specific part of a study; None without a test split.
    """

    name: str
    kind: str
    task: str
    question: str
    answer: tuple[str, ...]
    data: DataFacts
    training: TrainingOptions
    reading: DataOptions
    environment: Environment
    command: str
    test_reads: int
    models: tuple[Model, ...]
    configurations: tuple[Configuration, ...]
    winner: str
    shown_run: str
    losses: tuple[Curve, ...]
    accuracies: tuple[Curve, ...]
    grids: tuple[Grid, ...]
    trends: tuple[Trend, ...]
    savings: Savings
    run: RunPage | None
    classes: SplitClasses | None
    section: Section | None
    findings: tuple[str, ...]
    recommendations: tuple[str, ...]
    caveats: tuple[str, ...]

    @property
    def best(self) -> Configuration:
        """The winner."""
        return next(row for row in self.configurations if row.winner)

    @property
    def target(self) -> float:
        """The score at which a run counts as converged."""
        return self.training.target_score

    @property
    def note(self) -> str:
        """Why the report shows no texts; empty if it shows them or has no test split."""
        if self.run is not None:
            return self.run.note
        return self.section.note if self.section else ""

    def to_json(self) -> dict[str, object]:
        """The analysis as JSON."""
        return plain(self)


def analyse(folder: Path, with_texts: bool = True) -> Analysis:
    """Read a run folder and compute the values of its report.

    Args:
        folder: run folder of ``loralet study`` or ``loralet train``.
        with_texts: whether to read the texts of the test rows from the data source.

    Raises:
        RunError: see :func:`loralet.runs.record.read_record`; also if no run finished training, or if the task has no
            section.
    """
    record = read_record(folder)
    results = record.results
    kind, chosen = section_of(results.task), chosen_run(results)
    models = find_models(record)
    found, duplicates = configurations(record, models, kind)
    rows = compare_with_winner(record, found)
    best = next(row for row in rows if row.winner)
    shown = _shown_runs(record, rows, best)
    facts = text.Facts(
        record=record,
        models=tuple(dict.fromkeys(models.values())),
        rows=tuple(rows),
        best=best,
        shown=shown.winner,
        chosen=chosen.id,
        duplicates=tuple(duplicates),
        trends=trends(rows),
        savings=savings(record),
    )
    page = None if results.kind == STUDY else run_page(record, chosen, facts.models, with_texts)
    single = page is not None
    return Analysis(
        name=folder.resolve().name,
        kind=results.kind,
        task=results.task,
        question=page.title if page else text.question(facts),
        answer=page.answer if page else text.answer(facts),
        data=results.data,
        training=record.config.training,
        reading=record.config.reading,
        environment=record.environment,
        command=text.command(record.environment),
        test_reads=results.test_reads,
        models=facts.models,
        configurations=facts.rows,
        winner=best.name,
        shown_run=shown.winner,
        losses=loss_curves(record, rows, shown.winner),
        accuracies=accuracy_curves(record, rows, shown.winner),
        grids=grids(rows),
        trends=facts.trends,
        savings=facts.savings,
        run=page,
        classes=find_classes(record, chosen.id if single else shown.winner),
        section=kind.build(record, shown, with_texts) if record.targets is not None and not single else None,
        findings=() if single else findings(facts),
        recommendations=() if single else recommendations(facts),
        caveats=page.limitations if page else caveats(facts),
    )


def _shown_runs(record: Record, rows: Sequence[Configuration], best: Configuration) -> ShownRuns:
    """The winner's seed with the best validation scores, the random head of that seed, and all adapter runs."""
    own = [run for run in record.results.runs if run.id in best.runs and run.validation]
    winner = max(own, key=lambda run: rank_of_run(run, record.results.selection))
    heads = [row for row in rows if row.role == "random-head" and row.model == best.model]
    by_seed = {seed: run for row in heads for seed, run in zip(row.seeds, row.runs, strict=True)}
    chance = by_seed.get(winner.seed) if winner.seed is not None else None
    lora = tuple(run for row in rows if row.role == "lora" for run in row.runs if run in record.probabilities)
    return ShownRuns(best.name, winner.id, chance, lora or (winner.id,))
