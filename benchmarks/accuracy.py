"""What accuracy the main configurations reach, and what a pack saves over single runs.

    python benchmarks/accuracy.py DATA MODEL [--out benchmarks/accuracy.json]

DATA is a folder with train and test files, MODEL a backbone. Every row is three seeds of one configuration, side by side in one pack, trained through
the same functions as ``loralet study``; the test split is read once, at the end of each study. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from machine import describe_machine

from loralet.atomic import write_json
from loralet.config import DataOptions, TrainingOptions
from loralet.runs.folder import RunFolder
from loralet.studies.plan import Plan
from loralet.studies.study import carry_out, prepare
from loralet.training.packs import lora_run

QV, ALL = ("query", "value"), ("all-linear",)
THREE = TrainingOptions(epochs=3)
CELLS = [
    (
        "the mission's recipe: r16 alpha 64, query+value, dropout 0.1, lr 5e-5, no weight decay",
        lora_run("", 16, 64.0, 0.1, QV, "alpha/r", 5e-5, 0),
        replace(THREE, weight_decay=0.0),
    ),
    ("r16 alpha 64, query+value, lr 3e-3", lora_run("", 16, 64.0, 0.0, QV, "alpha/r", 3e-3, 0), THREE),
    ("default: r16 alpha 32, all linears, lr 3e-3", lora_run("", 16, 32.0, 0.0, ALL, "alpha/r", 3e-3, 0), THREE),
    (
        "the same, pooler trained too",
        lora_run("", 16, 32.0, 0.0, ALL, "alpha/r", 3e-3, 0),
        replace(THREE, head="trained-pooler"),
    ),
    ("the same, mean over tokens", lora_run("", 16, 32.0, 0.0, ALL, "alpha/r", 3e-3, 0), replace(THREE, head="mean")),
]
SEEDS = (0, 1, 2)
KEPT = ("role", "trainable_parameters", "steps")
ORDER = ["majority", "random-head", "tfidf-svm", "linear-probe", *(name for name, _, _ in CELLS)]
GRID = [(rank, alpha) for rank in (4, 16, 32) for alpha in (64.0, 256.0, 512.0)]


def measure(data: str, runs: list[Any], training: TrainingOptions, baselines: bool) -> tuple[dict[str, Any], float]:
    """Results of a plan, and the seconds that its training took, reading and tokenising left out."""
    plan = Plan("study", data, tuple(runs), baselines, training, DataOptions())
    prepared = prepare(plan, lambda event: None)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run_folder = RunFolder(Path(folder), training)
        results = carry_out(plan, prepared, run_folder, lambda event: None)
        run_folder.close()
    return results, time.perf_counter() - started


def summary(name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """One configuration's seeds as a row: means, the standard deviation over the seeds (None for one), and every seed's accuracy.

    The interval is the mean of the seeds' own 95 % intervals: how far the test rows, not the seed, leave the accuracy open.
    """
    row: dict[str, Any] = {"name": name, "runs": len(entries)} | {key: entries[0][key] for key in KEPT}
    seconds = [entry["train_seconds"] for entry in entries]
    row["train_seconds"] = None if None in seconds else fmean(seconds)
    for split in ("validation", "test"):
        accuracies = [entry[split]["accuracy"] for entry in entries]
        row[split] = {
            "accuracy": fmean(accuracies),
            "sd": stdev(accuracies) if len(entries) > 1 else None,
            "seeds": accuracies,
        }
    row["test"] |= {
        bound: fmean(entry["test"][bound] for entry in entries) for bound in ("accuracy_low", "accuracy_high")
    }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("model")
    parser.add_argument("--out", default=str(Path(__file__).with_suffix(".json")))
    parser.add_argument(
        "--grid-steps", type=int, default=200, help="steps of the pack of nine and of the nine single runs"
    )
    parser.add_argument(
        "--only",
        default="",
        help="measure only the rows whose name has this in it ('base rows', 'pack', ...); the others are kept",
    )
    arguments = parser.parse_args()
    out = Path(arguments.out)
    report: dict[str, Any] = (
        json.loads(out.read_text(encoding="utf-8")) if out.exists() and arguments.only else {"rows": []}
    )
    rows = {row["name"]: row for row in report["rows"]}
    probe = lora_run(arguments.model, 0, 1.0, 0.0, (), "alpha/r", 1e-2, 0)
    for name, run, training in [("base rows", probe, THREE), *CELLS]:
        if arguments.only not in name:
            continue
        seeds = [replace(run, id=f"seed-{seed}", model=arguments.model, seed=seed) for seed in SEEDS]
        results, _ = measure(arguments.data, seeds, training, baselines=name == "base rows")
        report["data"] = results["data"]
        for role in dict.fromkeys(entry["role"] for entry in results["runs"]):
            row = summary(
                name if role == "lora" else role, [entry for entry in results["runs"] if entry["role"] == role]
            )
            rows[row["name"]] = row
            print(f"{row['name']:75} test {row['test']['accuracy']:.4f} {row['test']['seeds']}", flush=True)
    report["rows"] = sorted(rows.values(), key=lambda row: ORDER.index(row["name"]))
    report["machine"] = describe_machine()
    if arguments.only in "pack":
        report["pack"] = pack_against_singles(arguments)
        print(
            "nine runs: pack {pack_seconds:.1f} s, singly {single_seconds:.1f} s, ratio {ratio:.2f}".format(
                **report["pack"]
            )
        )
    write_json(out, report)


def pack_against_singles(arguments: argparse.Namespace) -> dict[str, float]:
    """Nine configurations side by side, then each alone; checks, final evaluation and writing included."""
    grid = [lora_run(arguments.model, rank, alpha, 0.0, QV, "alpha/r", 1e-3, 0) for rank, alpha in GRID]
    short = TrainingOptions(steps=arguments.grid_steps)
    _, pack = measure(arguments.data, grid, short, baselines=False)
    singles = sum(measure(arguments.data, [run], short, baselines=False)[1] for run in grid)
    return {
        "runs": len(grid),
        "steps": arguments.grid_steps,
        "pack_seconds": pack,
        "single_seconds": singles,
        "ratio": singles / pack,
    }


if __name__ == "__main__":
    main()
