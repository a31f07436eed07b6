"""The scores of each class of the run that a report shows."""

from __future__ import annotations

from loralet.report.wording import percent, plural
from loralet.runs.record import Record
from loralet.runs.results import SplitClasses
from loralet.tasks.classes import ClassScores
from loralet.tasks.registry import TASKS


def find_classes(record: Record, shown: str) -> SplitClasses | None:
    """The scores of each class on the test rows; without a test split, those recorded of the held-out rows.

    None if neither is known, or if the task has no classes.

    Args:
        record: the run folder.
        shown: id of the run whose predictions the report shows.
    """
    results = record.results
    if record.targets is not None and shown in record.predicted:
        task = TASKS[results.task](results.data.labels)
        scores = task.classes(record.predicted[shown], record.targets)
        return SplitClasses(shown, "test", scores) if scores else None
    return next((found for found in results.classes if found.split == results.data.held_out), None)


def classes_text(found: SplitClasses) -> str:
    """What the table shows, and the class with the lowest F1."""
    rows = plural(sum(scores.support for scores in found.scores), f"{found.split} row")
    text = f"Precision, recall and F1 of {found.run} on {rows}. – marks a class without rows or predictions."
    known = [(scores.f1, scores) for scores in found.scores if scores.f1 is not None]
    if len(known) < 2:
        return text
    _, weakest = min(known, key=lambda pair: pair[0])
    return f"{text} The weakest class is {weakest.label}: {_details(weakest)}."


def _details(scores: ClassScores) -> str:
    parts = [
        f"{name} {percent(value)}"
        for name, value in (("recall", scores.recall), ("precision", scores.precision))
        if value is not None
    ]
    return ", ".join([*parts, plural(scores.support, "row")])
