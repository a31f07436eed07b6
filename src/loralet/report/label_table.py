"""Precision, recall and F1 of each label for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from loralet.runs.results import Results
from loralet.terminal import shown_label

MOST_LABELS = 20
"""With more labels, only those with the lowest F1 are shown."""
HEADINGS = ("label", "precision", "recall", "F1", "rows")


def label_table(results: Results) -> list[RenderableType]:
    """The out-of-fold scores of each label as a table with a line above it; empty without folds."""
    held_out = results.data.held_out
    found = next((classes for classes in results.classes if results.data.folds and classes.split == held_out), None)
    if found is None:
        return []
    shown, which = found.scores, "by label"
    if len(shown) > MOST_LABELS:
        shown = tuple(sorted(shown, key=lambda scores: scores.f1 or 0.0)[:MOST_LABELS])
        which = f"the {MOST_LABELS} of {len(found.scores)} labels with the lowest F1 (all: results.json)"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "label" else "right")
    for scores in shown:
        values = (scores.precision, scores.recall, scores.f1)
        figures = ("–" if value is None else f"{value:.4f}" for value in values)
        table.add_row(Text(shown_label(scores.label)), *figures, f"{scores.support:,}")
    return [Text(f"{which}, {found.run} on {held_out} rows:"), table]
