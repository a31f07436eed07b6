"""Results as tables: first the cells, then the ink."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from loralet.runs.folder import TRAINED, chosen_run

ROLES = {
    "majority": "majority class",
    "tfidf-svm": "TF-IDF + SVM",
    "random-head": "random head (chance)",
    "linear-probe": "linear probe",
    "full": "full fine-tuning",
    "lora": "LoRA",
    "average": "average of seeds",
    "ensemble": "ensemble",
}
HEADINGS = ("", "run", "val.", "test (95 % interval)", "F1", "conv.", "trained", "s", "")
LEAST_NEEDED = (7, 4, 6, 0, 5)
"""Columns that are left out one after the other, in this order, where a terminal is too narrow: a cut number says nothing."""
GAP = 3
PIPE_WIDTH = 200


def cells(run: dict[str, Any]) -> tuple[str, ...]:
    """One row of results.json as the cells under :data:`HEADINGS`."""
    validation, test = run["validation"], run["test"]
    trained = run["role"] in TRAINED
    return (
        ROLES[run["role"]],
        run["id"] if run["role"] in (*TRAINED, "random-head", "average", "ensemble") else "",
        f"{validation['accuracy']:.4f}" if validation else "–",
        f"{test['accuracy']:.4f} ({test['accuracy_low']:.3f}–{test['accuracy_high']:.3f})" if test else "–",
        f"{test['macro_f1']:.4f}" if test else "–",
        (str(run["converged_step"]) if run["converged_step"] else f">{run['steps']}") if trained else "–",
        f"{run['trainable_parameters']:,}",
        f"{run['train_seconds']:.0f}" if run["train_seconds"] is not None else "–",
        "" if run["status"] == "finished" else run["status"],
    )


def ordered(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Base rows first, then LoRA rows, then what was made of them; each in the order they were run."""
    order = ("majority", "random-head", "tfidf-svm", "linear-probe", "full", "lora", "average", "ensemble")
    return sorted(runs, key=lambda run: order.index(run["role"]))


def columns_that_fit(rows: Sequence[tuple[str, ...]], width: int | None) -> list[int]:
    """The columns that a width of so many characters has room for; all of them where it is None."""
    columns = list(range(len(HEADINGS)))
    widths = [max(len(row[i]) for row in (HEADINGS, *rows)) + GAP for i in columns]
    for column in LEAST_NEEDED:
        if width is None or sum(widths[i] for i in columns) <= width:
            break
        columns.remove(column)
    return columns


def results_table(results: dict[str, Any], width: int | None = None) -> RenderableType:
    """The table of a run folder, with what it was measured on and which run validation chose; with the columns that a width has room for."""
    chosen = chosen_run(results)["id"]
    runs = ordered(results["runs"])
    # a row without a run of its own is known by its role, so that the role's column can go
    rows = [(row[0], row[1] or row[0], *row[2:]) for row in map(cells, runs)]
    columns = columns_that_fit(rows, width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for i in columns:
        table.add_column(HEADINGS[i], justify="left" if HEADINGS[i] in ("run", "") else "right", no_wrap=True)
    for run, row in zip(runs, rows, strict=True):
        shown = tuple("" if i == 1 and 0 in columns and row[1] == row[0] else row[i] for i in columns)
        table.add_row(*shown, style="bold green" if run["id"] == chosen else "")
    data = results["data"]
    lines = [f"{run['id']}: {', '.join(run['members'])}" for run in runs if run.get("members")]
    lines += [
        f"{data['source']}: {data['train_rows']:,} training, {data['validation_rows']:,} validation, {data['test_rows']:,} test rows; "
        f"{len(data['labels'])} labels",
        f"chosen on validation: {chosen}; the test split was read {times(results['test_reads'])}",
    ]
    return Group(table, *(Text(line) for line in lines))


def table_console() -> Console:
    """Standard output, at least as wide as the table when it is a pipe or a file, where nobody can widen it."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, PIPE_WIDTH))


def times(count: int) -> str:
    return {0: "not at all", 1: "once"}.get(count, f"{count} times")
