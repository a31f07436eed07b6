"""How long a user waits: the help, one prediction from a cold start, tokenising; and how time grows with rows.

python benchmarks/start_up.py DATA MODEL [--rounds 5] [--out benchmarks/start_up.json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from machine import describe_machine

from loralet.atomic import write_json
from loralet.config import DataOptions
from loralet.data.tokens import tokenise
from loralet.hub.backbone import load_backbone
from loralet.runs.folder import peak_memory
from loralet.training.corpus import load_corpus

SIZES = (10_000, 30_000, 100_000, 300_000)
LENGTHS, TOKENS = (32, 64, 128, 256), 655_360
"""Rows of so many tokens each, so many tokens in all."""


def seconds(command: list[str], rounds: int, **environment: str) -> list[float]:
    """Wall time of a command, run several times."""
    times: list[float] = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "loralet", *command], check=True, capture_output=True, env=os.environ | environment
        )
        times.append(time.perf_counter() - started)
    return times


def tokenising(texts: pa.ChunkedArray, model: str, rows: int) -> dict[str, float]:
    """Repeat the texts to so many rows; tokenise without and then with the cache; the library's own speed beside it."""
    tokenizer = load_backbone(model).tokenizer
    many = pa.chunked_array([texts.take(pa.array(np.arange(rows) % len(texts))).combine_chunks()])
    listed = many.to_pylist()
    started = time.perf_counter()
    for i in range(0, rows, 8192):
        tokenizer.encode_batch_fast(listed[i : i + 8192])
    library = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        tokenise(many, tokenizer, 128, Path(folder))
        first = time.perf_counter() - started
        started = time.perf_counter()
        tokenise(many, tokenizer, 128, Path(folder))
        return {
            "rows": rows,
            "library_seconds": library,
            "first_seconds": first,
            "cached_seconds": time.perf_counter() - started,
        }


def growth(data: str, model: str, rows: int, length: int = 0) -> dict[str, float]:
    """Time of one epoch on so many rows (of a given length where there is one) and the process's peak memory, in a process of its own."""
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); import start_up; "
        "print(json.dumps(start_up.one_epoch(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))))"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), data, model, str(rows), str(length)]
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def one_epoch(data: str, model: str, rows: int, length: int) -> dict[str, float]:
    from contenders import Task, our_state

    from loralet.data.tokens import Tokens
    from loralet.training.loop import Rows, train
    from loralet.training.packs import lora_run

    steps = rows // 32
    state, corpus, options = our_state(
        Task(data, model, steps, 0), [lora_run(model, 16, 64.0, 0.0, ("query", "value"), "alpha/r", 1e-3, 0)], "auto"
    )
    own, times = corpus.train, -(-rows // len(corpus.train))
    lengths = np.full(rows, length) if length else np.tile(own.tokens.lengths, times)[:rows]
    ids = np.resize(own.tokens.ids, int(lengths.sum()))
    many = Rows(Tokens(ids, np.concatenate([[0], np.cumsum(lengths)])), own.labels.repeat(times)[:rows])
    started = time.perf_counter()
    for _ in train(state, many, corpus.sample, options, 0):
        pass
    return {
        "rows": rows,
        "tokens": int(lengths.sum()),
        "seconds": time.perf_counter() - started,
        "peak_bytes": peak_memory(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--out", default=str(Path(__file__).with_suffix(".json")))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/run"
        quick = ["train", arguments.data, "--model", arguments.model, "--steps", "20", "--out", run, "--quiet"]
        subprocess.run([sys.executable, "-m", "loralet", *quick], check=True, capture_output=True)
        help_times = seconds(["--help"], arguments.rounds)
        predict_times = seconds(["predict", run, "Stocks fell on Friday as oil rose"], arguments.rounds)
    texts = load_corpus(arguments.data, DataOptions(), 512).train.texts
    report: dict[str, Any] = {
        "machine": describe_machine(),
        "help_seconds": median(help_times),
        "predict_seconds": median(predict_times),
        "tokenising": tokenising(texts, arguments.model, 120_000),
        "tokenising_once": tokenising(texts, arguments.model, len(texts)),
        "growth": [growth(arguments.data, arguments.model, rows) for rows in arguments.sizes],
        "by_length": [
            growth(arguments.data, arguments.model, TOKENS // length, length) | {"length": length} for length in LENGTHS
        ],
    }
    write_json(Path(arguments.out), report)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
