"""Does accuracy pay for speed? Every setting of the fast way beside the plain one, over three seeds, on the test split.

    python benchmarks/defaults.py DATA MODEL [--seeds 0 1 2] [--epochs 3] [--out benchmarks/defaults.json]

Each row adds one change to the row above it, from the way loralet trains by default to plain fp32 in torch, rows in random order, checks on all
validation rows; then transformers' Trainer with PEFT and dropout 0.1 in the frozen backbone. All train r16 alpha 64 on query and value at 3e-3.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from machine import describe_machine

from loralet.atomic import write_json

RATE, RANK, ALPHA, TARGETS = 3e-3, 16, 64.0, ("query", "value")
EVERYTHING = 10**6
"""More rows than any validation split has: the checks look at all of them."""
WAYS: dict[str, dict[str, Any]] = {
    "as it comes: bf16, batches of like length, kernels in C": {},
    "and in fp32": {"precision": "fp32"},
    "and rows in random order": {"precision": "fp32", "shuffled": True},
    "and every check on all validation rows": {"precision": "fp32", "shuffled": True, "validation_sample": EVERYTHING},
    "and torch alone": {"precision": "fp32", "shuffled": True, "validation_sample": EVERYTHING, "native": False},
    "Trainer + PEFT, dropout 0.1 in the backbone": {"trainer": True},
}


def ours(data: str, model: str, seed: int, epochs: float, way: dict[str, Any]) -> float:
    """Test accuracy of one run, through the same functions as ``loralet train``."""
    from accuracy import measure

    from loralet.config import TrainingOptions
    from loralet.data import batches
    from loralet.training.packs import lora_run

    if way.get("shuffled"):
        batches.GROUP = 1
    options = TrainingOptions(
        epochs=epochs,
        precision=way.get("precision", "auto"),
        validation_sample=way.get("validation_sample", 512),
        weight_decay=0.0,
    )
    results, _ = measure(
        data, [lora_run(model, RANK, ALPHA, 0.0, TARGETS, "alpha/r", RATE, seed)], options, baselines=False
    )
    accuracy: float = results["runs"][0]["test"]["accuracy"]
    return accuracy


def trainers(data: str, model: str, seed: int, epochs: float) -> float:
    """The same run by Trainer and PEFT; its last state, as that is what it keeps."""
    import numpy as np
    import transformers
    from contenders import BATCH, Task, load, peer_rows, peer_trainer

    transformers.set_seed(seed)
    task = Task(data, model, 0, 0)
    corpus = load(task)
    steps = round(epochs * -(-len(corpus.train) // BATCH))
    trainer, _, _ = peer_trainer(
        Task(data, model, steps, 0), False, True, False, None, rate=RATE, dropout=0.0, seed=seed
    )
    trainer.train()
    test = corpus.dataset.test.read()
    found = trainer.predict(peer_rows(test, transformers.AutoTokenizer.from_pretrained(model), False))
    return float(
        (np.argmax(found.predictions, -1) == found.label_ids).mean()
    )  # not in the rows' order: it groups these by length too


def run_apart(arguments: argparse.Namespace, name: str, seed: int) -> float:
    """One run in a process of its own, so that what it changes ends with it."""
    command = [
        sys.executable,
        __file__,
        arguments.data,
        arguments.model,
        "--epochs",
        str(arguments.epochs),
        "--way",
        name,
        "--seeds",
        str(seed),
    ]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"BENCH_FOLDER": folder, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        environment |= {} if WAYS[name].get("native", True) else {"LORALET_NATIVE": "0"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("model")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument(
        "--way", default="", help="measure this one here and print its accuracy (used by the script itself)"
    )
    parser.add_argument("--out", default=str(Path(__file__).with_suffix(".json")))
    arguments = parser.parse_args()
    if arguments.way:
        way, seed = WAYS[arguments.way], arguments.seeds[0]
        one = trainers if way.get("trainer") else lambda *given: ours(*given, way)
        print(json.dumps(one(arguments.data, arguments.model, seed, arguments.epochs)))
        return
    rows = []
    for name in WAYS:
        found = [run_apart(arguments, name, seed) for seed in arguments.seeds]
        rows.append(
            {"name": name, "accuracies": found, "mean": mean(found), "sd": stdev(found) if len(found) > 1 else None}
        )
        print(f"{name:60} {mean(found):.4f}  {' '.join(f'{a:.4f}' for a in found)}", flush=True)
    write_json(
        Path(arguments.out),
        {"machine": describe_machine(), "seeds": arguments.seeds, "epochs": arguments.epochs, "rows": rows},
    )


if __name__ == "__main__":
    main()
