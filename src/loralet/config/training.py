"""How one run is trained, and which LoRA it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Annotated, Literal, get_args

from tyro.conf import Positional, arg

from loralet.config.data import DataOptions
from loralet.config.limits import ALL_LINEAR, choice_problems, lora_problems, seed_problems, target_problems

Head = Literal["pooler", "trained-pooler", "mean"]
Scaling = Literal["alpha/r", "rslora"]
Schedule = Literal["linear", "cosine", "constant"]
Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class TrainingOptions:
    """How long and how to train; the same for every run of a pack."""

    head: Head = "pooler"
    """What the classifier reads: the frozen pooler, a pooler trained as well, or the mean over tokens."""
    head_dropout: float = 0.1
    """Dropout before the classifier, as BertForSequenceClassification has it."""
    epochs: float | None = None
    """Passes over the training rows; none: 3, or as many as make 500 steps where the data is small."""
    steps: int | None = None
    """Optimiser steps; replaces epochs."""
    batch_size: int = 32
    """Rows in one step."""
    schedule: Schedule = "linear"
    """Course of the learning rate after the warm-up."""
    warmup: float = 0.06
    """Share of the steps over which the learning rate rises from zero."""
    weight_decay: float = 0.1
    """Decoupled weight decay (AdamW); biases are never decayed."""
    clip: float = 1.0
    """Largest gradient norm of one run; 0 turns clipping off."""
    eval_every: int = 50
    """Steps between two checks on the validation sample."""
    validation_sample: int = 512
    """Rows of the fixed, stratified validation sample; the whole split is read at the end."""
    target_accuracy: float = 0.85
    """Validation accuracy whose first reaching is the convergence step."""
    patience: int | None = None
    """Checks without a better validation accuracy after which a run stops; none: never."""
    precision: Precision = "auto"
    """Arithmetic of the encoder; auto takes bf16 where the processor has it."""
    threads: int | None = None
    """Processor threads; none: what torch chooses."""

    def problems(self) -> Iterator[str]:
        choices = {"head": Head, "schedule": Schedule, "precision": Precision}
        yield from choice_problems({name: (getattr(self, name), get_args(choice)) for name, choice in choices.items()})
        if not 0 <= self.head_dropout < 1:
            yield f"head_dropout is {self.head_dropout}: it must be at least 0 and below 1"
        if self.epochs is not None and not 0 < self.epochs < inf:
            yield f"epochs is {self.epochs}: it must be above 0, and finite"
        for name in ("batch_size", "eval_every", "validation_sample", "steps", "patience", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name} is {value}: it must be at least 1"
        if not 0 <= self.warmup < 1:
            yield f"warmup is {self.warmup}: it is a share of the steps, at least 0 and below 1"
        for name in ("weight_decay", "clip"):
            if not 0 <= getattr(self, name) < inf:
                yield f"{name} is {getattr(self, name)}: it must not be negative, and finite (0 turns it off)"
        if not 0 < self.target_accuracy <= 1:
            yield f"target_accuracy is {self.target_accuracy}: it must lie above 0 and not above 1"


@dataclass(frozen=True)
class LoraOptions:
    """One LoRA configuration."""

    rank: int = 16
    """Rank of the adapters; 0 trains the head alone (a linear probe)."""
    alpha: float = 32.0
    """Numerator of the adapter's scale."""
    dropout: float = 0.0
    """Dropout on the adapter's input."""
    targets: tuple[str, ...] = (ALL_LINEAR,)
    """Linear maps that get an adapter: query, key, value, attention-output, intermediate, output, or all-linear."""
    scaling: Scaling = "alpha/r"
    """Scale of the adapter: alpha / rank, or alpha / sqrt(rank) (rslora)."""
    lr: float = 3e-3
    """Peak learning rate."""

    def problems(self) -> Iterator[str]:
        yield from choice_problems({"scaling": (self.scaling, get_args(Scaling))})
        yield from lora_problems(self.rank, self.alpha, self.dropout, self.lr)
        yield from target_problems(self.targets)


@dataclass(frozen=True)
class TrainConfig:
    """Everything ``loralet train`` needs."""

    data: Annotated[Positional[str], arg(metavar="DATA")] = "news-mini"
    """A CSV, TSV, JSONL or Parquet file, a folder with train/validation/test files, a hub data set id, or the bundled news-mini."""
    model: str = "news-tiny"
    """Backbone: a hub id, a folder, or the bundled news-tiny."""
    out: str = ""
    """Folder for the run; named by date under runs/ when empty."""
    seed: int = 0
    """Seed of the initial values, of dropout and of the order of the rows."""
    lora: LoraOptions = field(default_factory=LoraOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    reading: DataOptions = field(default_factory=DataOptions)
    stop_at_target: bool = False
    """The run ends when it reaches the target accuracy."""

    def problems(self) -> Iterator[str]:
        yield from seed_problems("seed", self.seed)
        for part in (self.lora, self.training, self.reading):
            yield from part.problems()
