"""Start-up times (help, one prediction, tokenising), and time per epoch by number and length of rows.

python benchmarks/start_up.py DATA MODEL [--rounds 5] [--out benchmarks/start_up.json]
python benchmarks/start_up.py DATA MODEL --commands [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median

import numpy as np
import pyarrow as pa
from machine import describe_machine
from ours import NEVER, grid_run, open_pack
from work import BATCH, LENGTH, Work

from loralet.atomic import write_json
from loralet.config import TrainingOptions
from loralet.data.tokens import Tokens, tokenise
from loralet.hub.backbone import load_backbone
from loralet.runs.environment import peak_memory
from loralet.training.corpus import Rows
from loralet.training.loop import train

SIZES = (10_000, 30_000, 100_000, 300_000)
"""Numbers of rows of one epoch."""
LENGTHS = (32, 64, 128, 256)
"""Tokens per row; the total number of tokens is :data:`TOKENS`."""
TOKENS = 655_360
REPEATED = 120_000
"""Rows to tokenise, with the texts of the data repeated."""


@dataclass(frozen=True)
class Cost:
    """Wall time of one command, and CPU time of all its threads, which other load hardly changes. Both in seconds."""

    wall: float
    cpu: float


def loralet(command: Sequence[str]) -> Cost:
    """Run one command and measure it."""
    whole = [sys.executable, "-m", "loralet", *command]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started, before = time.perf_counter(), _cpu_of_children()
    done = subprocess.run(whole, capture_output=True, text=True, env=environment, check=False)
    cost = Cost(time.perf_counter() - started, _cpu_of_children() - before)
    if done.returncode:
        raise SystemExit(f"loralet {' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return cost


def _cpu_of_children() -> float:
    """CPU seconds of all finished child processes."""
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def commands(data: str, model: str, rounds: int) -> dict[str, float]:
    """Median wall time and smallest CPU time of the help and of one prediction. A run is trained first.

    A hybrid predicts, with its linear model on words. Python's files of compiled modules exist.
    """
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/run"
        loralet(["train", data, "--model", model, "--steps", "20", "--out", run, "--quiet", "--hybrid", "on"])
        predict = ["predict", run, "Stocks fell on Friday as oil rose"]
        for name, command in (("help", ["--help"]), ("predict", predict)):
            loralet(command)
            costs = [loralet(command) for _ in range(rounds)]
            found[f"{name}_seconds"] = median(cost.wall for cost in costs)
            found[f"{name}_cpu_seconds"] = min(cost.cpu for cost in costs)
    return found


def tokenising(texts: pa.ChunkedArray, model: str, rows: int) -> dict[str, float]:
    """Seconds to tokenise ``rows`` rows: tokenizers library on whole texts, loralet, and loralet's cache."""
    tokenizer = load_backbone(model).tokenizer
    many = pa.chunked_array([texts.take(pa.array(np.arange(rows) % len(texts))).combine_chunks()])
    listed = many.to_pylist()
    started = time.perf_counter()
    for i in range(0, rows, 8192):
        tokenizer.encode_batch_fast(listed[i : i + 8192])
    times = [time.perf_counter() - started]
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            started = time.perf_counter()
            tokenise(many, tokenizer, LENGTH, Path(folder))
            times.append(time.perf_counter() - started)
    names = ("library_seconds", "first_seconds", "cached_seconds")
    return {"rows": rows} | dict(zip(names, times, strict=True))


def growth(arguments: argparse.Namespace, rows: int, length: int = 0) -> dict[str, float]:
    """Run :func:`one_epoch` in its own process, to measure its peak memory."""
    command = [sys.executable, __file__, arguments.data, arguments.model, "--epoch", str(rows), str(length)]
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"one epoch of {rows} rows failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def one_epoch(data: str, model: str, rows: int, length: int) -> dict[str, float]:
    """Seconds of one epoch, and peak memory of this process.

    Args:
        data, model: data and backbone.
        rows: number of training rows; those of the data are repeated or truncated.
        length: tokens per row; if 0, the lengths of the texts.
    """
    training = TrainingOptions(steps=max(1, rows // BATCH), eval_every=NEVER)
    opened = open_pack(Work(data, model, 0), [grid_run(model)], training)
    own, sample = opened.session.rows.train, opened.session.rows.sample
    times = -(-rows // len(own))
    lengths = np.full(rows, length) if length else np.tile(own.tokens.lengths, times)[:rows]
    ids = np.resize(own.tokens.ids, int(lengths.sum()))
    many = Rows(Tokens(ids, np.concatenate([[0], np.cumsum(lengths)])), own.targets.repeat(times)[:rows])
    started = time.perf_counter()
    for _ in train(opened.state, many, sample, training, 0):
        pass
    seconds = time.perf_counter() - started
    return {"rows": rows, "tokens": int(lengths.sum()), "seconds": seconds, "peak_bytes": peak_memory()}


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder with train and test files")
    parser.add_argument("model", help="backbone")
    parser.add_argument("--rounds", type=int, default=5, help="number of times each command is run")
    parser.add_argument("--commands", action="store_true", help="measure and print only the commands, in a minute")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="numbers of rows of one epoch")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="total number of tokens per row length")
    parser.add_argument("--repeated", type=int, default=REPEATED, help="rows to tokenise")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument(
        "--epoch", type=int, nargs=2, metavar=("ROWS", "LENGTH"), help="train one epoch here (used internally)"
    )
    arguments = parser.parse_args()
    data, model = arguments.data, arguments.model
    if arguments.epoch:
        print(json.dumps(one_epoch(data, model, *arguments.epoch)))
        return
    if arguments.commands:
        print(json.dumps(commands(data, model, arguments.rounds), indent=2))
        return
    texts = Work(data, model, 0).corpus().train.texts
    report: dict[str, object] = {
        "machine": describe_machine(),
        **commands(data, model, arguments.rounds),
        "tokenising": tokenising(texts, model, arguments.repeated),
        "tokenising_once": tokenising(texts, model, len(texts)),
        "growth": [growth(arguments, rows) for rows in arguments.sizes],
        "by_length": [growth(arguments, arguments.tokens // n, n) | {"length": n} for n in LENGTHS],
    }
    write_json(arguments.out, report)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
