"""The results table and the cost table of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from loralet.report.analysis import Analysis
from loralet.report.configurations import Configuration
from loralet.report.sections.base import Measure
from loralet.report.sections.registry import section_of
from loralet.report.wording import amount, seconds, signed
from loralet.runs.run import Role

FRONTS = {"trainable": "size", "bytes": "disk", "seconds": "time"}
"""Names of the costs, by field of a configuration."""
BASES: tuple[Role, ...] = ("majority", "random-head", "tfidf-svm", "tfidf-lr", "linear-probe", "full")
"""Roles listed above the adapters, in this order."""
MISSING = "–"


@dataclass(frozen=True)
class Field:
    """One cell of a table.

    Args:
        text: displayed text.
        key: sort key; None sorts last.
        number: whether it is a number.
    """

    text: str
    key: float | str | None
    number: bool = True


@dataclass(frozen=True)
class Line:
    """One row of a table.

    Args:
        cells: cells of the row.
        winner: whether it is marked ★; it is drawn in another colour.
        tied: see :class:`loralet.report.configurations.Configuration`.
        base: whether the row is not an adapter.
    """

    cells: tuple[Field, ...]
    winner: bool
    tied: bool
    base: bool


@dataclass(frozen=True)
class Table:
    """A table without empty columns.

    Args:
        name: ``results``, ``costs`` or ``classes``.
        headings: headings and their meanings.
        lines: its rows.
    """

    name: str
    headings: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]


Headings = tuple[tuple[str, str], ...]
"""Headings of a table and their meanings."""
NAME = ("configuration", "what was trained; ★ chosen on validation, ≈ not distinguishable from it")
RESULTS = (
    NAME,
    ("val.", "accuracy on the validation split, mean over seeds"),
    ("test", "accuracy on the test split, mean over seeds"),
    ("95 % interval", "interval of the test accuracy: Wilson for one seed, bootstrap over seeds and rows for several"),
    ("± seeds", "standard deviation of the test accuracy over seeds"),
    ("vs ★", "accuracy minus that of the chosen configuration, in points, on the same rows"),
    ("p (Holm)", "two-sided, corrected for the number of comparisons"),
)
"""Headings before the task-specific measures."""
COURSE = (
    ("α/r × lr", "effective scale times learning rate (alpha / sqrt(rank) for rslora)"),
    ("conv.", "first check at the target accuracy, median over seeds; >N: not within N steps"),
    ("spikes", "loss spikes per run"),
    ("ended", "how its runs ended, if not as planned"),
)
"""Headings after the task-specific measures."""
COSTS = (
    NAME,
    ("test", "accuracy on the test split, mean over seeds"),
    ("trained", "trained parameters"),
    ("share", "share of all parameters of the model"),
    ("on disk", "size of the weights of one run"),
    ("seconds", "training time of a run, an equal share of the pack's time"),
    ("rows/s", "training rows per second in that time"),
    ("peak memory", "peak memory of the whole process"),
    ("rows to target", "training rows until the first check at the target accuracy"),
    ("s to target", "seconds until then, at the run's mean pace"),
    ("Pareto front", "costs for which no other configuration is at least as cheap and as accurate"),
)

CLASSES = (
    ("class", "label"),
    ("precision", "share of the rows predicted as this class that have its label"),
    ("recall", "share of the rows with its label that are predicted as this class"),
    ("F1", "harmonic mean of precision and recall"),
    ("rows", "rows with its label"),
    ("predicted", "rows predicted as this class"),
)


def tables(analysis: Analysis) -> dict[str, Table]:
    """The results and cost tables: baselines, then adapters in the order they were run, then averages and ensembles."""
    rows = sorted(analysis.configurations, key=_place)
    measures = section_of(analysis.task).measures
    headings: Headings = (*RESULTS, *((measure.heading, measure.meaning) for measure in measures), *COURSE)
    costs: Headings = COSTS
    if not analysis.best.starred:
        headings, costs = (_renamed(found, _hybrid(analysis.best.name)) for found in (headings, costs))
    return {
        "results": _table("results", headings, rows, [_result_cells(row, measures) for row in rows]),
        "costs": _table("costs", costs, rows, [_cost_cells(row) for row in rows]),
    }


def _hybrid(winner: str) -> dict[str, tuple[str, str]]:
    """Headings of a study whose best run was combined with a linear model on words."""
    return {
        NAME[0]: (
            NAME[0],
            f"what was trained; ★ the classifier that predict uses, ≈ not distinguishable from {winner}",
        ),
        "vs ★": (f"vs {winner}", "accuracy minus that of this configuration, in points, on the same rows"),
    }


def _renamed(headings: Headings, names: Mapping[str, tuple[str, str]]) -> Headings:
    return tuple(names.get(name, (name, meaning)) for name, meaning in headings)


def class_table(analysis: Analysis) -> Table | None:
    """The scores of each class; None if they are not known."""
    if analysis.classes is None:
        return None
    lines = []
    for scores in analysis.classes.scores:
        values = [_number(value, "{:.4f}") for value in (scores.precision, scores.recall, scores.f1)]
        counts = [_number(value, "{:,}") for value in (scores.support, scores.predicted)]
        lines.append(Line((Field(scores.label, scores.label, False), *values, *counts), False, False, False))
    return Table("classes", CLASSES, tuple(lines))


def _place(row: Configuration) -> int:
    if row.role in BASES:
        return BASES.index(row.role)
    if row.model is None:  # a baseline of another task
        return BASES.index("tfidf-svm")
    return len(BASES) + (row.role != "lora")


def _table(name: str, headings: Headings, rows: Sequence[Configuration], cells: Sequence[Sequence[Field]]) -> Table:
    lines = [
        Line(tuple(line), row.starred, row.tied, row.role != "lora") for row, line in zip(rows, cells, strict=True)
    ]
    return kept_columns(name, headings, lines)


def kept_columns(name: str, headings: Headings, lines: Sequence[Line]) -> Table:
    """A table without the columns that are empty in all lines."""
    kept = [i for i in range(len(headings)) if any(line.cells[i].text not in (MISSING, "") for line in lines)]
    short = [replace(line, cells=tuple(line.cells[i] for i in kept)) for line in lines]
    return Table(name, tuple(headings[i] for i in kept), tuple(short))


def marks_text(analysis: Analysis) -> str:
    """What the symbols after the names mean."""
    if not analysis.best.starred:
        return (
            "★ is the classifier that predict uses: the best run on validation combined with a linear model on words. "
            f"≈ cannot be distinguished on the test rows from {analysis.best.name}, the configuration chosen on "
            "validation among those without it."
        )
    return "★ was chosen on validation; ≈ cannot be distinguished from it on the test rows."


def _name_cell(row: Configuration) -> Field:
    mark = " ★" if row.starred else " ≈" if row.tied else ""
    return Field(f"{row.name}{' (chance)' if row.role == 'random-head' else ''}{mark}", row.name, False)


def _result_cells(row: Configuration, measures: Sequence[Measure]) -> list[Field]:
    test, versus, c = row.test, row.versus, row.convergence
    return [
        _name_cell(row),
        _number(row.validation, "{:.4f}"),
        _number(test.mean if test else None, "{:.4f}"),
        Field(f"{test.low:.3f}–{test.high:.3f}" if test else MISSING, test.low if test else None),
        _number(test.sd if test else None, "{:.4f}"),
        Field(signed(-100 * versus.difference) if versus else MISSING, -versus.difference if versus else None),
        Field(_p_value(versus.p_holm) if versus else MISSING, versus.p_holm if versus else None),
        *(_number(row.measures.get(measure.heading), measure.form) for measure in measures),
        _number(row.effective, "{:.3g}"),
        Field(c.text if c else MISSING, c.step + 0.5 * c.censored if c else None),
        _number(row.spikes, "{:.2g}"),
        Field(row.status, row.status, False),
    ]


def _cost_cells(row: Configuration) -> list[Field]:
    late, target = row.convergence is not None and row.convergence.censored, row.to_target_seconds
    share = row.trainable / row.total if row.total else None
    never = Field("not reached", None)
    return [
        _name_cell(row),
        _number(row.test.mean if row.test else None, "{:.4f}"),
        _number(row.trainable, "{:,}"),
        Field(f"{100 * share:.2f} %" if share is not None else MISSING, share),
        Field(amount(row.bytes, "bytes") if row.bytes else MISSING, row.bytes),
        Field(seconds(row.seconds) if row.seconds is not None else MISSING, row.seconds),
        _number(row.rows_per_second, "{:,.0f}"),
        Field(amount(row.memory, "bytes") if row.memory else MISSING, row.memory),
        never if late else _number(row.rows, "{:,.0f}"),
        never if late else Field(seconds(target) if target is not None else MISSING, target),
        Field(", ".join(FRONTS[cost] for cost in row.front) or MISSING, len(row.front), False),
    ]


def _number(value: float | None, form: str) -> Field:
    return Field(form.format(value).replace("-", "−") if value is not None else MISSING, value)


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
