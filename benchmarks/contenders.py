"""The contenders of the speed benchmarks by name. As a script, run one of them and print one line of JSON.

    python benchmarks/contenders.py NAME DATA MODEL [--steps 150]

speed.py, matrix.py and compare.py run this script to give each contender its own process.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping

import ours
import peers
import serving
from flops import matmul_rates
from ours import ALL_LINEAR, FP32, GRID, TORCH, VALUE
from work import BATCH, EVERY, SAMPLE, Measured, Work

Contenders = Mapping[str, Callable[[Work], Measured]]

CONTENDERS: Contenders = {
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
    "loralet, pack of nine, check every 50 steps (rows x runs)": lambda w: ours.train_pack(w, GRID, checks=True),
    "evaluation, Trainer + PEFT, dynamic padding": peers.evaluate,
    "evaluation, loralet": ours.evaluate,
    "evaluation, loralet, fp32": lambda w: ours.evaluate(w, FP32),
    "texts to labels, transformers pipeline": serving.pipeline,
    "texts to labels, loralet": ours.predict,
    "texts to labels, loralet, fp32": lambda w: ours.predict(w, FP32),
    "texts to labels, ONNX Runtime": serving.onnx,
    "fitting TF-IDF + linear SVM": peers.linear_model,
    "fitting fastText, word bigrams": peers.fasttext,
    "loralet, default options, to 85 % on the validation sample": lambda w: ours.train_to(w, 0.85),
    "loralet, default options, to 89 % on the validation sample": lambda w: ours.train_to(w, 0.89),
}
"""Contenders of speed.py. Those with loralet in their name run in its environment (:func:`process.run_contender`)."""

MATRIX: Contenders = {
    "training, Trainer + PEFT": peers.train,
    "training, Trainer + PEFT, bf16": lambda w: peers.train(w, peers.BF16),
    "one run, loralet": ours.train_pack,
    "one run, loralet, fp32": lambda w: ours.train_pack(w, compute=FP32),
    "one run, loralet, torch backend": lambda w: ours.train_pack(w, compute=TORCH),
    "nine runs, loralet": lambda w: ours.train_pack(w, GRID),
    "nine runs, loralet, fp32": lambda w: ours.train_pack(w, GRID, FP32),
    "nine runs, loralet, torch backend": lambda w: ours.train_pack(w, GRID, TORCH),
    "training with checks, Trainer + PEFT": lambda w: peers.train(w, peers.CHECKED),
    "training with checks, Trainer + PEFT, bf16": lambda w: peers.train(w, peers.CHECKED_BF16),
    "nine runs with checks, loralet": lambda w: ours.train_pack(w, GRID, checks=True),
    "nine runs with checks, loralet, fp32": lambda w: ours.train_pack(w, GRID, FP32, checks=True),
    "nine runs with checks, loralet, torch backend": lambda w: ours.train_pack(w, GRID, TORCH, checks=True),
    "one run with dropout, loralet": lambda w: ours.train_pack(w, dropout=0.1),
    "one run with dropout, loralet, fp32": lambda w: ours.train_pack(w, compute=FP32, dropout=0.1),
    "one run with dropout, loralet, torch backend": lambda w: ours.train_pack(w, compute=TORCH, dropout=0.1),
    "training on value, Trainer + PEFT": lambda w: peers.train(w, peers.VALUE),
    "training on value, Trainer + PEFT, bf16": lambda w: peers.train(w, peers.VALUE_BF16),
    "one run on value, loralet": lambda w: ours.train_pack(w, targets=VALUE),
    "one run on value, loralet, fp32": lambda w: ours.train_pack(w, compute=FP32, targets=VALUE),
    "one run on value, loralet, torch backend": lambda w: ours.train_pack(w, compute=TORCH, targets=VALUE),
    "training on all linear layers, Trainer + PEFT": lambda w: peers.train(w, peers.ALL_LINEAR),
    "training on all linear layers, Trainer + PEFT, bf16": lambda w: peers.train(w, peers.ALL_LINEAR_BF16),
    "one run on all linear layers, loralet": lambda w: ours.train_pack(w, targets=ALL_LINEAR),
    "one run on all linear layers, loralet, fp32": lambda w: ours.train_pack(w, compute=FP32, targets=ALL_LINEAR),
    "one run on all linear layers, loralet, torch backend": (
        lambda w: ours.train_pack(w, compute=TORCH, targets=ALL_LINEAR)
    ),
    "full fine-tuning, Trainer": lambda w: peers.train(w, peers.FULL),
    "full fine-tuning, Trainer, bf16": lambda w: peers.train(w, peers.FULL_BF16),
    "full fine-tuning, loralet": ours.train_full,
    "full fine-tuning, loralet, fp32": lambda w: ours.train_full(w, FP32),
    "full fine-tuning, loralet, torch backend": lambda w: ours.train_full(w, TORCH),
    "evaluation, Trainer + PEFT": peers.evaluate,
    "evaluation, Trainer + PEFT, bf16": lambda w: peers.evaluate(w, peers.BF16),
    "evaluation, loralet": ours.evaluate,
    "evaluation, loralet, fp32": lambda w: ours.evaluate(w, FP32),
    "texts to labels, transformers pipeline": serving.pipeline,
    "texts to labels, transformers pipeline, bf16": lambda w: serving.pipeline(w, bf16=True),
    "texts to labels, ONNX Runtime": lambda w: serving.graph_labels(w, serving.onnx_graph),
    "texts to labels, ONNX Runtime, int8": lambda w: serving.graph_labels(w, serving.onnx_graph, serving.INT8_GRAPH),
    "texts to labels, OpenVINO": lambda w: serving.graph_labels(w, serving.openvino_graph),
    "texts to labels, loralet": ours.predict,
    "texts to labels, loralet, fp32": lambda w: ours.predict(w, FP32),
    "one warm text, transformers pipeline": serving.pipeline_one_text,
    "one warm text, ONNX Runtime": lambda w: serving.graph_one_text(w, serving.onnx_graph),
    "one warm text, loralet": ours.one_text,
    "matrix products": lambda w: matmul_rates(),
}
"""Contenders of matrix.py."""


def main() -> None:
    """Run one contender."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=dict.fromkeys((*CONTENDERS, *MATRIX)), metavar="NAME")
    parser.add_argument("data")
    parser.add_argument("model")
    parser.add_argument("--steps", type=int, default=150, help="optimiser steps per training")
    parser.add_argument("--rows", type=int, default=0, help="validation rows and texts (default: all)")
    parser.add_argument("--batch", type=int, default=BATCH, help="rows per training step")
    parser.add_argument("--every", type=int, default=EVERY, help="steps between two checks")
    parser.add_argument("--sample", type=int, default=SAMPLE, help="validation rows of a check")
    parser.add_argument("--prepared", default="", help="folder written by prepare.py")
    parser.add_argument("--matrix", action="store_true", help="run the contender of matrix.py, on exactly these rows")
    given = parser.parse_args()
    contenders = MATRIX if given.matrix else CONTENDERS
    if given.name not in contenders:
        parser.error(f"argument name: invalid choice: {given.name!r}")
    sizes = {name: getattr(given, name) for name in ("steps", "rows", "batch", "every", "sample", "prepared")}
    print(json.dumps(contenders[given.name](Work(given.data, given.model, **sizes, exact=given.matrix))))


if __name__ == "__main__":
    main()
