"""Precision, recall and F1 of each label for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from loralet.runs.results import DataFacts, RunResult

MOST_LABELS = 20
"""With more labels, only those with the lowest F1 are shown."""
HEADINGS = ("label", "precision", "recall", "F1", "rows")


def label_table(run: RunResult, data: DataFacts) -> list[RenderableType]:
    """The scores of each label as a table with a line above it; empty if they are not recorded.

    Args:
        run: the run.
        data: the training data, which names the rows of the scores.
    """
    if not run.by_label:
        return []
    shown = run.by_label
    which = "by label"
    if len(shown) > MOST_LABELS:
        lowest = sorted(shown, key=lambda scores: scores.f1)[:MOST_LABELS]
        which = f"the {MOST_LABELS} of {len(shown)} labels with the lowest F1 (all: results.json)"
        shown = tuple(lowest)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "label" else "right")
    for scores in shown:
        figures = (f"{value:.4f}" for value in (scores.precision, scores.recall, scores.f1))
        table.add_row(Text(scores.label), *figures, f"{scores.rows:,}")
    return [Text(f"{which}, {run.id} on {data.held_out} rows:"), table]
