"""The tables of the page of a single run."""

from __future__ import annotations

from loralet.report.run.content import RunPage
from loralet.report.run.models import ModelRow, strongest_linear
from loralet.report.run.sentences import interval_text
from loralet.report.run.suspects import SuspectRow, Suspects
from loralet.report.sections.base import Answer, ExampleRow, ExampleTable
from loralet.report.tables import MISSING, Field, Headings, Line, Table, kept_columns
from loralet.report.wording import amount, percent, seconds, signed
from loralet.terminal import shown_label

MODELS: Headings = (
    ("model", "★ the classifier; ≈ not distinguishable from it"),
    ("accuracy, %", "share of the rows that are classified correctly"),
    ("95 % interval", "Wilson's interval of the accuracy"),
    ("macro F1, %", "mean F1 of the classes"),
    ("vs ★", "accuracy minus that of the classifier, in points, on the same rows"),
    ("p (Holm)", "two-sided, corrected for the number of comparisons"),
    ("parameters", "trained parameters"),
    ("on disk", "size of the weights"),
    ("seconds", "training time; with folds, of all runs"),
)
CLASSES: Headings = (
    ("class", "label"),
    ("rows", "rows with this label"),
    ("share, %", "share of all measured rows"),
    ("recall, %", "share of the rows with this label that are predicted as it"),
    ("precision, %", "share of the rows predicted as this class that have its label"),
    ("F1, %", "harmonic mean of precision and recall"),
    ("predicted", "rows predicted as this class"),
)
CONFUSIONS: Headings = (
    ("label", "label of the rows"),
    ("predicted as", "label that the classifier gives them"),
    ("rows", "number of these rows"),
    ("share, %", "share of the rows with the label"),
)


def model_table(page: RunPage) -> Table:
    """The classifier and what it is compared with."""
    lines = [_model_line(row) for row in page.models]
    return kept_columns("results", MODELS, lines)


def run_headline(page: RunPage) -> list[tuple[str, str]]:
    """The key values at the top of the page."""
    own = page.classifier
    shown = [(f"accuracy on {page.measured.text}", percent(own.accuracy))]
    shown += [("95 % interval", interval_text(own.low, own.high))] if own.low is not None else []
    shown += [("macro F1", percent(own.macro_f1))] if own.macro_f1 is not None else []
    others = [row for row in page.models if not row.shipped]
    linear = strongest_linear(others)
    shown += [("linear model on words", percent(linear.accuracy))] if linear else []
    return shown + [("majority class", percent(row.accuracy)) for row in others if row.role == "majority"]


def run_marks(page: RunPage) -> str:
    """What the table shows, and what the symbols after the names mean."""
    text = f"Figures on {page.measured.text}. ★ is the classifier that predict, evaluate and export use."
    if any(row.tied for row in page.models):
        text += " ≈ marks models that a paired test on the same rows cannot distinguish from it."
    return text


def class_note(page: RunPage) -> str:
    """What the figures of the classes are measured on."""
    note = f"Recall, precision and F1 of the classifier on {page.measured.text}."
    return f"{note} – marks a class without rows or predictions." if _missing(page) else note


def confidence_note(page: RunPage) -> str:
    """The recorded calibration error, for a page without the figures of the confidence; empty if it is unknown."""
    scaling = page.scaling
    if page.calibration is not None or scaling is None:
        return ""
    error = scaling.test if page.measured.split == "test" else scaling.validation
    if error is None:
        return ""
    if not scaling.fitted:
        return f"Calibration error of the probabilities on {page.measured.text}: {error.after:.3f}."
    return (
        f"The logits are divided by the temperature {scaling.temperature:.3g}. Calibration error of the probabilities "
        f"on {page.measured.text}: {error.after:.3f} (without the temperature: {error.before:.3f})."
    )


def _missing(page: RunPage) -> bool:
    return any(None in (scores.recall, scores.precision, scores.f1) for scores in page.classes)


def class_table(page: RunPage) -> Table | None:
    """The scores of each class; None if they are not known."""
    if not page.classes:
        return None
    total = sum(scores.support for scores in page.classes)
    lines = []
    for scores in page.classes:
        cells = [Field(shown_label(scores.label), scores.label, False), Field(f"{scores.support:,}", scores.support)]
        shares = (scores.support / total if total else None, scores.recall, scores.precision, scores.f1)
        cells += [*map(_percent, shares), Field(f"{scores.predicted:,}", scores.predicted)]
        lines.append(Line(tuple(cells), False, False, False))
    return Table("classes", CLASSES, tuple(lines))


def confusion_table(page: RunPage) -> Table | None:
    """The largest confusions; None if there are none, or no predictions."""
    lines = [
        Line(
            (
                Field(shown_label(found.label), found.label, False),
                Field(shown_label(found.predicted), found.predicted, False),
                Field(f"{found.rows:,}", found.rows),
                _percent(found.share),
            ),
            False,
            False,
            False,
        )
        for found in page.confusions
    ]
    return Table("confusions", CONFUSIONS, tuple(lines)) if lines else None


def _model_line(row: ModelRow) -> Line:
    mark = " ★" if row.shipped else " ≈" if row.tied else ""
    versus = row.versus
    interval = MISSING if row.low is None or row.high is None else f"{100 * row.low:.1f}–{100 * row.high:.1f}"
    p = MISSING if versus is None else "< 0.001" if versus.p_holm < 0.001 else f"{versus.p_holm:.3f}"
    cells = (
        Field(f"{row.name}{mark}", row.name, False),
        _percent(row.accuracy),
        Field(interval, row.low),
        _percent(row.macro_f1),
        Field(signed(-100 * versus.difference) if versus else MISSING, -versus.difference if versus else None),
        Field(p, versus.p_holm if versus else None),
        Field(f"{row.parameters:,}", row.parameters),
        Field(amount(row.bytes, "bytes") if row.bytes else MISSING, row.bytes),
        Field(seconds(row.seconds) if row.seconds is not None else MISSING, row.seconds),
    )
    return Line(cells, row.shipped, row.tied, row.role != "lora" and not row.shipped)


def _percent(share: float | None) -> Field:
    return Field(MISSING if share is None else f"{100 * share:.1f}", share)


def row_tables(page: RunPage) -> list[ExampleTable]:
    """For each split, the rows whose label is likely wrong, and other errors with a high probability."""
    return [table for found in page.suspects for table in (_suspect_table(found), _error_table(found)) if table]


def _kind(found: Suspects) -> str:
    return {"out-of-fold": "training"}.get(found.split, found.split)


def _suspect_table(found: Suspects) -> ExampleTable:
    share = 100 * found.count / found.total
    shown = f" The clearest {len(found.rows)} are shown." if found.count > len(found.rows) else ""
    which = "out-of-fold " if found.split == "out-of-fold" else ""
    note = (
        f"{found.count:,} of {found.total:,} {_kind(found)} rows ({share:.1f} %) of {found.source} have a label that "
        f"the {which}probabilities of {found.run} contradict (confident "
        f"learning, Northcutt et al. 2021).{shown} Check the labels: the classifier may be wrong itself."
    )
    return _table(f"Likely mislabelled {_kind(found)} rows", note, found.rows, found, "suggestion")


def _error_table(found: Suspects) -> ExampleTable | None:
    if not found.errors:
        return None
    note = f"Wrong predictions of {found.run} with the highest probability, apart from the rows above."
    return _table(f"Other confident errors on {_kind(found)} rows", note, found.errors, found, "prediction")


def _table(heading: str, note: str, rows: tuple[SuspectRow, ...], found: Suspects, column: str) -> ExampleTable:
    return ExampleTable(heading, note, (column,), tuple(map(_row, rows)), found.unit)


def _row(row: SuspectRow) -> ExampleRow:
    details = f"label: {100 * row.given:.0f} %"
    answer = Answer(row.suggestion, row.suggestion == row.label, f"{100 * row.suggested:.0f}", details)
    return ExampleRow(row.row, row.text, row.label, (answer,), row.file)
