"""Test accuracy of the settings that make loralet fast, one change at a time, over three seeds.

    python benchmarks/defaults.py DATA MODEL [--seeds 0 1 2] [--epochs 3] [--out benchmarks/defaults.json]

Each row adds one change to the row above it: loralet's defaults, fp32, rows in random order, checks on all validation
rows, and the torch backend. The last row is the Trainer of transformers with PEFT and dropout 0.1 in the frozen
backbone. All rows train r16 alpha 64 on query and value at lr 3e-3 without weight decay.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

from accuracy import QV, measure
from machine import describe_machine
from peers import Recipe, open_trainer, trainer_rows
from work import BATCH, FOLDER, Work

from loralet.atomic import write_json
from loralet.backends.info import BackendChoice
from loralet.config import ComputeOptions, TrainingOptions
from loralet.config.compute import Precision
from loralet.data import batches
from loralet.training.packs import adapter_run

LR = 3e-3
ALL_ROWS = 10**6
"""More than the rows of any validation split, so that each check reads all of them."""


@dataclass(frozen=True)
class Variant:
    """How a row is trained.

    Args:
        precision: precision of the encoder.
        random_order: use rows in random order instead of batching rows of similar length.
        sample: number of validation rows per check.
        backend: compute backend.
        trainer: use Trainer and PEFT; the other options are ignored.
    """

    precision: Precision = "auto"
    random_order: bool = False
    sample: int = 512
    backend: BackendChoice = "auto"
    trainer: bool = False


FP32 = Variant("fp32")
RANDOM = replace(FP32, random_order=True)
EVERY_ROW = replace(RANDOM, sample=ALL_ROWS)
VARIANTS = {
    "default: bf16 where the CPU has it, rows of similar length together, native backend": Variant(),
    "and in fp32": FP32,
    "and rows in random order": RANDOM,
    "and every check on all validation rows": EVERY_ROW,
    "and on the torch backend": replace(EVERY_ROW, backend="torch"),
    "Trainer + PEFT, dropout 0.1 in the backbone": Variant(trainer=True),
}


def by_loralet(data: str, model: str, seed: int, epochs: float, variant: Variant) -> float:
    """Test accuracy of one run, with the same functions as ``loralet train``."""
    if variant.random_order:
        batches.GROUP = 1
    training = TrainingOptions(epochs=epochs, validation_sample=variant.sample, weight_decay=0.0)
    compute = ComputeOptions(variant.backend, variant.precision)
    results, _ = measure(data, [adapter_run(model, QV, LR, seed)], training, compute)
    test = results.runs[0].test
    assert test is not None
    return test["accuracy"]


def by_trainer(data: str, model: str, seed: int, epochs: float) -> float:
    """Test accuracy of the last state of the same run with Trainer and PEFT."""
    import numpy as np
    import transformers

    transformers.set_seed(seed)
    corpus = Work(data, model, 0).corpus()
    steps = max(1, round(epochs * -(-len(corpus.train) // BATCH)))
    run = open_trainer(Work(data, model, steps), Recipe(lr=LR, dropout=0.0, seed=seed))
    run.trainer.train()
    assert corpus.dataset.test is not None
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    found = run.trainer.predict(trainer_rows(corpus.dataset.test.read(), tokenizer, padded=False))
    # The Trainer also groups test rows by length, so compare with its label_ids, not with the labels in file order.
    return float((np.argmax(found.predictions, -1) == found.label_ids).mean())


def in_own_process(arguments: argparse.Namespace, name: str, seed: int) -> float:
    """Test accuracy of one run in its own process, which isolates its changes of module state."""
    command = [sys.executable, __file__, arguments.data, arguments.model]
    command += ["--epochs", str(arguments.epochs), "--variant", name, "--seeds", str(seed)]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {FOLDER: folder, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def summary(name: str, accuracies: Sequence[float]) -> dict[str, object]:
    """The table row of one variant."""
    spread = stdev(accuracies) if len(accuracies) > 1 else None
    return {"name": name, "accuracies": list(accuracies), "mean": mean(accuracies), "sd": spread}


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder with train and test files")
    parser.add_argument("model", help="backbone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--variant", default="", help="train this row here and print its accuracy (used internally)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    if arguments.variant:
        variant = VARIANTS[arguments.variant]
        given = (arguments.data, arguments.model, arguments.seeds[0], arguments.epochs)
        print(json.dumps(by_trainer(*given) if variant.trainer else by_loralet(*given, variant)))
        return
    rows: list[dict[str, object]] = []
    for name in VARIANTS:
        found = [in_own_process(arguments, name, seed) for seed in arguments.seeds]
        rows.append(summary(name, found))
        print(f"{name:86} {mean(found):.4f}  {' '.join(f'{a:.4f}' for a in found)}", flush=True)
    report = {"machine": describe_machine(), "seeds": arguments.seeds, "epochs": arguments.epochs, "rows": rows}
    write_json(arguments.out, report)


if __name__ == "__main__":
    main()
