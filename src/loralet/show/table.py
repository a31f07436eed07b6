"""Results as tables: first the cells, then the ink."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loralet.engine.runs import TRAINED, chosen_run

ROLES = {
    "majority": "majority class",
    "tfidf-svm": "TF-IDF + SVM",
    "random-head": "random head (chance)",
    "linear-probe": "linear probe",
    "full": "full fine-tuning",
}
HEADINGS = ("run", "val. acc.", "test acc.", "95 % interval", "macro F1", "conv. step", "trainable", "seconds", "")


def cells(run: dict[str, Any]) -> tuple[str, ...]:
    """One row of results.json as the cells under :data:`HEADINGS`."""
    validation, test = run["validation"], run["test"]
    trained = run["role"] in TRAINED
    return (
        name_of(run),
        f"{validation['accuracy']:.4f}" if validation else "–",
        f"{test['accuracy']:.4f}" if test else "–",
        f"{test['accuracy_low']:.4f}–{test['accuracy_high']:.4f}" if test else "–",
        f"{test['macro_f1']:.4f}" if test else "–",
        (str(run["converged_step"]) if run["converged_step"] else f">{run['steps']}") if trained else "–",
        f"{run['trainable_parameters']:,}",
        f"{run['train_seconds']:.1f}" if run["train_seconds"] is not None else "–",
        "" if run["status"] == "finished" else run["status"],
    )


def name_of(run: dict[str, Any]) -> str:
    """A row's name: its role, or for a LoRA its rank, alpha and effective scale times learning rate."""
    if run["role"] != "lora":
        return f"{ROLES[run['role']]} · {run['id']}" if run["role"] in (*TRAINED, "random-head") else ROLES[run["role"]]
    return str(run["id"])


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


def times(count: int) -> str:
    return {0: "not at all", 1: "once"}.get(count, f"{count} times")
