"""Accuracy of the main configurations, and the time that a pack saves over single runs.

    python benchmarks/accuracy.py DATA MODEL [--out benchmarks/accuracy.json]

DATA is a folder with train and test files, MODEL a backbone. Each row is three seeds of one configuration, trained by
the same functions as ``loralet study``. Each study reads the test split once, at the end. Prints a table and writes
JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from machine import describe_machine
from ours import AUTO, GRID, grid_run

from loralet.adapters.spec import HEAD_ALONE, AdapterSpec
from loralet.atomic import write_json
from loralet.config import ComputeOptions, DataOptions, TrainConfig, TrainingOptions
from loralet.config.toml import options_text
from loralet.records import plain
from loralet.runs.environment import environment
from loralet.runs.folder import RunFolder
from loralet.runs.results import Results, RunResult
from loralet.runs.run import Run
from loralet.studies.plan import Plan
from loralet.studies.study import carry_out, prepare
from loralet.training.packs import adapter_run


class Cell(NamedTuple):
    """A configuration: its name in the table, its run (without seed and model) and its training options."""

    name: str
    run: Run
    training: TrainingOptions


QV = AdapterSpec(alpha=64.0, targets=("query", "value"))
THREE = TrainingOptions(epochs=3)
DEFAULT = adapter_run("", AdapterSpec(), TrainConfig().lr, 0)
BASE_ROWS = "base rows"
CELLS = (
    Cell(BASE_ROWS, adapter_run("", HEAD_ALONE, 1e-2, 0), THREE),
    Cell(
        "the original recipe (lr 5e-5, dropout 0.1, no weight decay): r16 alpha 64, query+value",
        adapter_run("", replace(QV, dropout=0.1), 5e-5, 0),
        replace(THREE, weight_decay=0.0),
    ),
    Cell("r16 alpha 64, query+value, lr 3e-3", adapter_run("", QV, 3e-3, 0), THREE),
    Cell("default: r16 alpha 32, all linear layers, lr 3e-3", DEFAULT, THREE),
    Cell("default with a trained pooler", DEFAULT, replace(THREE, head="trained-pooler")),
    Cell("default with the mean over tokens", DEFAULT, replace(THREE, head="mean")),
)
SEEDS = (0, 1, 2)
ORDER = ("majority", "random-head", "tfidf-svm", "linear-probe", *(cell.name for cell in CELLS))


def measure(
    data: str,
    runs: Sequence[Run],
    training: TrainingOptions,
    compute: ComputeOptions = AUTO,
    baselines: bool = False,
) -> tuple[Results, float]:
    """Carry out a plan. Returns its results and the seconds, without reading and tokenising."""
    plan = Plan("study", data, tuple(runs), baselines, replace(training, hybrid="off"), DataOptions(), compute)
    prepared = prepare(plan, lambda event: None)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as path:
        found = environment(prepared.backends)
        with closing(RunFolder(Path(path), options_text(training), found)) as folder:
            results = carry_out(prepared, folder, lambda event: None)
    return results, time.perf_counter() - started


def summary(name: str, runs: Sequence[RunResult]) -> dict[str, Any]:
    """A table row of one configuration: means and standard deviation over the seeds (None for one seed).

    The interval is the mean of the seeds' 95 % intervals. It covers the sampling of test rows; the standard deviation
    covers the seed.
    """
    seconds = [run.train_seconds for run in runs if run.train_seconds is not None]
    row: dict[str, Any] = {
        "name": name,
        "runs": len(runs),
        "role": runs[0].role,
        "trainable_parameters": runs[0].trainable_parameters,
        "steps": runs[0].steps,
        "train_seconds": fmean(seconds) if len(seconds) == len(runs) else None,
    }
    for split in ("validation", "test"):
        scores = [run.validation if split == "validation" else run.test for run in runs]
        found = [score for score in scores if score is not None]
        accuracies = [score["accuracy"] for score in found]
        low, high = (fmean(score.intervals["accuracy"][end] for score in found) for end in (0, 1))
        row[split] = {
            "accuracy": fmean(accuracies),
            "sd": stdev(accuracies) if len(accuracies) > 1 else None,
            "seeds": accuracies,
            **({"accuracy_low": low, "accuracy_high": high} if split == "test" else {}),
        }
    return row


def rows_of(cell: Cell, data: str, model: str, seeds: Sequence[int]) -> tuple[list[dict[str, Any]], Results]:
    """The table rows of one configuration. The base rows are several rows."""
    runs = [replace(cell.run, id=f"seed-{seed}", model=model, seed=seed) for seed in seeds]
    results, _ = measure(data, runs, cell.training, baselines=cell.name == BASE_ROWS)
    by_role: dict[str, list[RunResult]] = {}
    for run in results.runs:
        by_role.setdefault(run.role, []).append(run)
    return [summary(cell.name if role == "lora" else role, runs) for role, runs in by_role.items()], results


def pack_against_singles(data: str, model: str, steps: int) -> dict[str, float]:
    """Seconds of nine configurations as one pack and as single runs, with checks, final evaluation and writing."""
    grid = [grid_run(model, rank, alpha) for rank, alpha in GRID]
    short = TrainingOptions(steps=steps)
    _, pack = measure(data, grid, short)
    singles = sum(measure(data, [run], short)[1] for run in grid)
    return {"runs": len(grid), "steps": steps, "pack_seconds": pack, "single_seconds": singles, "ratio": singles / pack}


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder with train and test files")
    parser.add_argument("model", help="backbone")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--epochs", type=float, default=THREE.epochs)
    parser.add_argument("--grid-steps", type=int, default=200, help="steps of the pack of nine and of its single runs")
    parser.add_argument(
        "--only", default="", help=f"measure only rows whose name contains this ({BASE_ROWS}, pack, ...); keep others"
    )
    parser.add_argument("--busy", action="store_true", help="other programs are running: the page says so")
    arguments = parser.parse_args()
    report: dict[str, Any] = {}
    rows: dict[str, dict[str, Any]] = {}
    if arguments.only and arguments.out.exists():
        report = json.loads(arguments.out.read_text(encoding="utf-8"))
        rows = {row["name"]: row for row in report["rows"]}
    for cell in CELLS:
        if arguments.only not in cell.name:
            continue
        trained = cell._replace(training=replace(cell.training, epochs=arguments.epochs))
        found, results = rows_of(trained, arguments.data, arguments.model, arguments.seeds)
        report["data"] = plain(replace(results.data, source=Path(arguments.data).name))
        for row in found:
            rows[row["name"]] = row
            print(f"{row['name']:86} test {row['test']['accuracy']:.4f} {row['test']['seeds']}", flush=True)
    report["rows"] = sorted(rows.values(), key=lambda row: ORDER.index(row["name"]))
    report["epochs"] = arguments.epochs
    report["busy"] = arguments.busy
    report["machine"] = describe_machine()
    if arguments.only in "pack":
        pack = pack_against_singles(arguments.data, arguments.model, arguments.grid_steps)
        report["pack"] = pack
        print(
            f"nine runs: {pack['pack_seconds']:.1f} s as a pack, {pack['single_seconds']:.1f} s as single runs, "
            f"ratio {pack['ratio']:.2f}"
        )
    write_json(arguments.out, report)


if __name__ == "__main__":
    main()
