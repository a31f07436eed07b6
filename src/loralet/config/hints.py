"""Our options for those of the Trainer of transformers, of PEFT and of similar programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

OURS = {
    "learning-rate": "--lr",
    "num-train-epochs": "--epochs",
    "num-epochs": "--epochs",
    "max-steps": "--steps",
    "per-device-train-batch-size": "--batch-size",
    "per-gpu-train-batch-size": "--batch-size",
    "train-batch-size": "--batch-size",
    "lr-scheduler-type": "--schedule",
    "lr-scheduler": "--schedule",
    "warmup-ratio": "--warmup",
    "warmup-steps": "--warmup, a share of the steps",
    "max-grad-norm": "--clip",
    "eval-steps": "--eval-every",
    "early-stopping": "--patience",
    "early-stopping-patience": "--patience",
    "metric-for-best-model": "--select-by",
    "output-dir": "--out",
    "out-dir": "--out",
    "model-name-or-path": "--model",
    "model-name": "--model",
    "base-model": "--model",
    "max-seq-length": "--max-length",
    "max-seq-len": "--max-length",
    "lora-r": "--rank",
    "lora-rank": "--rank",
    "lora-alpha": "--alpha",
    "lora-dropout": "--dropout",
    "target-modules": "--targets",
    "lora-target-modules": "--targets",
    "use-rslora": "--scaling rslora",
    "use-dora": "--method dora",
    "loraplus-lr-ratio": "--lr-ratio",
    "fp16": "--precision bf16",
    "bf16": "--precision bf16",
    "no-cuda": "--backend native",
    "use-cpu": "--backend native",
    "text-column-name": "--text-column",
    "label-column-name": "--label-column",
    "train-file": "DATA, the first argument",
    "dataset-name": "DATA, the first argument",
    "train-data": "DATA, the first argument",
}
"""The other programs' names, with hyphens, and what to give instead."""
NEEDLESS = {
    "do-train": "train always trains",
    "do-eval": "the validation rows are always evaluated",
    "eval-strategy": "the validation rows are always evaluated; --eval-every sets the number of steps",
    "evaluation-strategy": "the validation rows are always evaluated; --eval-every sets the number of steps",
    "load-best-model-at-end": "the best state is always kept; --select-by sets what is best",
    "logging-steps": "metrics.jsonl has every step",
    "save-steps": "the best state is kept",
    "save-strategy": "the best state is kept",
    "report-to": "events are printed with --json-events",
    "resume": "the same command with the same --out continues, and so does `loralet resume FOLDER`",
    "resume-from-checkpoint": "the same command with the same --out continues, and so does `loralet resume FOLDER`",
    "overwrite-output-dir": "remove the folder, or give another one with --out",
}
"""The other programs' names of what needs no option, with the reason."""
OF_GRID = ("model", "rank", "alpha", "lr", "dropout", "scaling", "method", "lr-ratio")
"""Options of ``train`` that have an s in ``study``."""


def foreign_options(arguments: Sequence[str]) -> Iterator[str]:
    """Messages about options of other programs among the arguments of the command line."""
    study = list(arguments[:1]) == ["study"]
    for argument in arguments:
        name = argument.partition("=")[0].replace("_", "-").lower()
        if not name.startswith("--"):
            continue
        if ours := OURS.get(name[2:]):
            first, _, rest = ours[2:].partition(" ")
            plural = study and ours.startswith("--") and first in OF_GRID
            yield f"{argument.partition('=')[0]}: use {f'--{first}s {rest}'.strip() if plural else ours}"
        elif reason := NEEDLESS.get(name[2:]):
            yield f"{argument.partition('=')[0]} is not an option: {reason}"
