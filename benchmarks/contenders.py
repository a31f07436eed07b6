"""The contenders of the speed benchmark by name. As a script, run one of them and print one line of JSON.

    python benchmarks/contenders.py NAME DATA MODEL [--steps 150]

speed.py and compare.py run this script to give each contender its own process.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import ours
import peers
from ours import FP32, GRID, TORCH
from work import EVERY, Measured, Work

CONTENDERS: dict[str, Callable[[Work], Measured]] = {
    "Trainer + PEFT, padded to 128": lambda w: peers.train(w, peers.PADDED),
    "Trainer + PEFT, dynamic padding": peers.train,
    "Trainer + PEFT, dynamic padding, bf16": lambda w: peers.train(w, peers.BF16),
    "Trainer, full fine-tuning, dynamic padding": lambda w: peers.train(w, peers.FULL),
    "loralet, one run": ours.train_pack,
    "loralet, one run, dropout 0.1": lambda w: ours.train_pack(w, dropout=0.1),
    "loralet, one run, fp32": lambda w: ours.train_pack(w, compute=FP32),
    "loralet, one run, torch backend": lambda w: ours.train_pack(w, compute=TORCH),
    "loralet, pack of nine (rows x runs)": lambda w: ours.train_pack(w, GRID),
    "Trainer + PEFT, dynamic padding, check every 50 steps": lambda w: peers.train(w, peers.CHECKED),
    "loralet, pack of nine, check every 50 steps (rows x runs)": lambda w: ours.train_pack(w, GRID, eval_every=EVERY),
    "evaluation, Trainer + PEFT, dynamic padding": peers.evaluate,
    "evaluation, loralet": ours.evaluate,
    "evaluation, loralet, fp32": lambda w: ours.evaluate(w, FP32),
    "texts to labels, transformers pipeline": peers.pipeline,
    "texts to labels, loralet": ours.predict,
    "texts to labels, loralet, fp32": lambda w: ours.predict(w, FP32),
    "texts to labels, ONNX Runtime": peers.onnx,
    "fitting TF-IDF + linear SVM": peers.linear_model,
    "fitting fastText, word bigrams": peers.fasttext,
    "loralet, default options, to 85 % on the validation sample": lambda w: ours.train_to(w, 0.85),
    "loralet, default options, to 89 % on the validation sample": lambda w: ours.train_to(w, 0.89),
}
"""Contenders with loralet in their name run in loralet's environment (:func:`process.run_contender`)."""


def main() -> None:
    """Run one contender."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("data")
    parser.add_argument("model")
    parser.add_argument("--steps", type=int, default=150, help="optimiser steps per training")
    parser.add_argument("--rows", type=int, default=1000, help="texts for the transformers pipeline")
    arguments = parser.parse_args()
    work = Work(arguments.data, arguments.model, arguments.steps, arguments.rows)
    print(json.dumps(CONTENDERS[arguments.name](work)))


if __name__ == "__main__":
    main()
