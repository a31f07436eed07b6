"""Speed of loralet and its peers on the same rows: medians and ratios.

    python benchmarks/speed.py DATA MODEL [--rounds 3] [--steps 150] [--only WORD] [--out benchmarks/speed.json]

Each contender runs in its own process, once per round. Start-up is not counted. All contenders run on the CPU. Nothing
else should run on the machine.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import NamedTuple

from contenders import CONTENDERS
from machine import describe_machine
from process import Arguments, run_contender
from work import Measured

from loralet.atomic import write_json

PEER = "Trainer + PEFT, dynamic padding"
ONE = "loralet, one run"
NINE = "loralet, pack of nine (rows x runs)"
NINE_CHECKED = "loralet, pack of nine, check every 50 steps (rows x runs)"
LABELS = "texts to labels, loralet"


class Ratio(NamedTuple):
    """A ratio of two contenders' rows per second, with the required factor and the target factor."""

    name: str
    faster: str
    slower: str
    required: float | None = None
    target: float | None = None


RATIOS = (
    Ratio(f"one run against {PEER}", ONE, PEER, 4, 7),
    Ratio(f"one run, dropout 0.1, against {PEER}", f"{ONE}, dropout 0.1", PEER),
    Ratio(f"one run against {PEER}, bf16", ONE, f"{PEER}, bf16"),
    Ratio("one run against Trainer + PEFT, padded to 128", ONE, "Trainer + PEFT, padded to 128", 10, 18),
    Ratio("one run against full fine-tuning", ONE, "Trainer, full fine-tuning, dynamic padding"),
    Ratio("native against torch backend, one run", ONE, f"{ONE}, torch backend"),
    Ratio(f"nine runs with checks against {PEER}, nine times", NINE_CHECKED, f"{PEER}, check every 50 steps", 7, 15),
    Ratio("a pack of nine against nine single runs", NINE, ONE),
    Ratio(f"evaluation against {PEER}", "evaluation, loralet", f"evaluation, {PEER}", 2.5, 5),
    Ratio("texts to labels against the transformers pipeline", LABELS, "texts to labels, transformers pipeline", 5, 10),
    Ratio("texts to labels against ONNX Runtime", LABELS, "texts to labels, ONNX Runtime"),
)
OPTIONAL = {"fasttext": "fasttext", "onnx": "onnxruntime"}
"""Packages required by some contenders, by a word in the contender's name."""


def summary(rounds: Sequence[Measured]) -> dict[str, object]:
    """Medians over the rounds, and peak memory."""
    speeds = [measured["rows_per_second"] for measured in rounds]
    row: dict[str, object] = {
        "rows_per_second": median(speeds),
        "all": speeds,
        "seconds": median(measured["seconds"] for measured in rounds),
        "peak_bytes": max(measured["peak_bytes"] for measured in rounds),
    }
    if "accuracy" in rounds[0]:
        row["accuracy"] = median(measured["accuracy"] for measured in rounds)
    return row


def ratios(results: Mapping[str, Sequence[Measured]]) -> list[dict[str, object]]:
    """The ratios whose contenders were measured."""
    speed = {name: median(measured["rows_per_second"] for measured in rounds) for name, rounds in results.items()}
    return [
        {"name": r.name, "ratio": speed[r.faster] / speed[r.slower], "required": r.required, "target": r.target}
        for r in RATIOS
        if r.faster in speed and r.slower in speed
    ]


def chosen(only: str) -> list[str]:
    """Contenders whose name contains ``only`` and whose packages are installed."""
    missing = [word for word, package in OPTIONAL.items() if find_spec(package) is None]
    if missing:
        print(f"not installed, skipped: {', '.join(missing)} (pip install -e '.[bench,onnx]')", file=sys.stderr)
    return [name for name in CONTENDERS if only in name and not any(word in name.lower() for word in missing)]


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder with train and test files")
    parser.add_argument("model", help="backbone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150, help="optimiser steps per training")
    parser.add_argument("--only", default="", help="run only contenders whose name contains this")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # describe the machine as the contenders see it
    results: dict[str, list[Measured]] = {name: [] for name in chosen(arguments.only)}
    for i in range(arguments.rounds):
        for name, rounds in results.items():
            rounds.append(run_contender(name, Arguments(arguments.data, arguments.model, arguments.steps)))
            speed = rounds[-1]["rows_per_second"]
            print(f"round {i + 1}  {name:66} {speed:9,.0f} rows/s", file=sys.stderr, flush=True)
    found = ratios(results)
    report = {
        "machine": describe_machine(),
        "steps": arguments.steps,
        "rounds": arguments.rounds,
        "rows": {name: summary(rounds) for name, rounds in results.items()},
        "ratios": found,
    }
    write_json(arguments.out, report)
    for name, rounds in results.items():
        speed, peak = median(m["rows_per_second"] for m in rounds), max(m["peak_bytes"] for m in rounds)
        print(f"{name:66} {speed:9,.0f} rows/s  {peak / 2**20:7,.0f} MiB")
    for r in found:
        goals = ", ".join(f"{goal} {r[goal]}" for goal in ("required", "target") if r[goal])
        print(f"{r['name']:66} {r['ratio']:9.2f} x  {goals and f'({goals})'}")


if __name__ == "__main__":
    main()
