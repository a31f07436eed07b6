"""Results as tables: first the cells, then the ink."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from loralet.engine.runs import TRAINED, chosen_run

ROLES = {
    "majority": "majority class",
    "tfidf-svm": "TF-IDF + SVM",
    "random-head": "random head (chance)",
    "linear-probe": "linear probe",
    "full": "full fine-tuning",
    "lora": "LoRA",
}
HEADINGS = ("", "run", "val.", "test (95 % interval)", "F1", "conv.", "trained", "s", "")
PIPE_WIDTH = 120


def cells(run: dict[str, Any]) -> tuple[str, ...]:
    """One row of results.json as the cells under :data:`HEADINGS`."""
    validation, test = run["validation"], run["test"]
    trained = run["role"] in TRAINED
    return (
        ROLES[run["role"]],
        run["id"] if run["role"] in (*TRAINED, "random-head") else "",
        f"{validation['accuracy']:.4f}" if validation else "–",
        f"{test['accuracy']:.4f} ({test['accuracy_low']:.3f}–{test['accuracy_high']:.3f})" if test else "–",
        f"{test['macro_f1']:.4f}" if test else "–",
        (str(run["converged_step"]) if run["converged_step"] else f">{run['steps']}") if trained else "–",
        f"{run['trainable_parameters']:,}",
        f"{run['train_seconds']:.0f}" if run["train_seconds"] is not None else "–",
        "" if run["status"] == "finished" else run["status"],
    )


def ordered(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Base rows first, LoRA rows last, each in the order they were run."""
    order = ("majority", "random-head", "tfidf-svm", "linear-probe", "full", "lora")
    return sorted(runs, key=lambda run: order.index(run["role"]))


def results_table(results: dict[str, Any]) -> RenderableType:
    """The table of a run folder, with what it was measured on and which run validation chose."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in ("run", "") else "right", no_wrap=True)
    chosen = chosen_run(results)["id"]
    for run in ordered(results["runs"]):
        table.add_row(*cells(run), style="bold green" if run["id"] == chosen else "")
    data = results["data"]
    lines = [
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
