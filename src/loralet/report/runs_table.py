"""The list of run folders for the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loralet.records import plain
from loralet.runs.listing import ListedRun

HEADINGS = ("run", "data", "model", "runs", "accuracy", "measured on", "date")
NUMBERS = ("runs", "accuracy")
FIXED = ("runs", "accuracy", "date")
"""Columns that are never wrapped."""
MISSING = "–"


def cells(run: ListedRun) -> tuple[str, ...]:
    """The cells of one run folder, in the order of :data:`HEADINGS`."""
    return (
        run.name,
        run.data or MISSING,
        ", ".join(run.models) or MISSING,
        f"{run.runs}" if run.data else MISSING,
        MISSING if run.score is None else f"{run.score:.4f}",
        MISSING if run.rows is None else f"{run.rows:,} {run.split} rows",
        MISSING if run.date is None else run.date[:16].replace("T", " "),
    )


def runs_table(runs: Sequence[ListedRun]) -> RenderableType:
    """The table, and one line for each folder that is unfinished or cannot be read."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, header_style="bold")
    for heading in HEADINGS:
        justify = "right" if heading in NUMBERS else "left"
        table.add_column(heading, justify=justify, no_wrap=heading in FIXED, overflow="fold")  # type: ignore[arg-type]
    for run in runs:
        table.add_row(*map(Text, cells(run)), style="" if run.state == "finished" else "dim")
    notes = [Text(f"{run.name}: {run.state}; {run.note}", overflow="fold") for run in runs if run.note]
    return Group("", table, "", *notes)


def runs_json(runs: Sequence[ListedRun]) -> list[dict[str, object]]:
    """The run folders as a list of objects."""
    return [plain(run) for run in runs]
