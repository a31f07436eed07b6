"""Options of training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from tyro.conf import arg

from loralet.adapters.spec import AdapterSpec
from loralet.config.compute import ComputeOptions
from loralet.config.data import DataOptions
from loralet.config.limits import (
    LARGEST_RATE,
    MOST_EPOCHS,
    choice_problems,
    interval_problems,
    rate_problems,
    seed_problems,
)
from loralet.config.shared import CheckpointEvery, TrainingData
from loralet.ranking import SelectBy

Head = Literal["auto", "pooler", "trained-pooler", "mean"]
Schedule = Literal["linear", "cosine", "constant"]
UNWEIGHTED, BALANCED = "none", "balanced"
"""The values of ``--class-weight`` that are not a file."""
HybridChoice = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class TrainingOptions:
    """Training options, shared by all runs of a pack."""

    head: Head = "auto"
    """Input of the classifier: frozen pooler, trained pooler, or mean over tokens; auto: chosen for the backbone."""
    head_dropout: float = 0.1
    """Dropout before the classifier, as in BertForSequenceClassification."""
    epochs: float | None = None
    """Passes over the training rows; if not set, 3, or more to reach 500 steps on small data."""
    steps: int | None = None
    """Optimiser steps; replaces epochs."""
    batch_size: int = 32
    """Rows per step."""
    schedule: Schedule = "linear"
    """Learning rate schedule after the warm-up."""
    warmup: float = 0.06
    """Fraction of the steps during which the learning rate rises linearly from 0."""
    weight_decay: float = 0.1
    """Decoupled weight decay (AdamW); biases and norms are not decayed."""
    clip: float = 1.0
    """Maximum gradient norm of each run; 0 disables clipping."""
    class_weight: str = UNWEIGHTED
    """Weight of each class in the loss: none, balanced (inverse frequency), or a JSON file {label: weight}."""
    eval_every: int = 50
    """Steps between checks on the validation sample."""
    validation_sample: int = 512
    """Rows of the fixed, stratified validation sample; the whole split is used at the end."""
    target_score: Annotated[float, arg(aliases=("--target-accuracy",))] = 0.85
    """Validation accuracy at which a run counts as converged."""
    select_by: SelectBy = "accuracy"
    """Validation metric that selects states and runs; ties by lower loss, then by the later state."""
    patience: int | None = None
    """Checks without improvement after which a run stops; unlimited if not set."""
    hybrid: HybridChoice = "auto"
    """Combine the best run with a linear model on words; auto: if it pays on the validation rows."""

    def problems(self) -> Iterator[str]:
        choices = {"head": Head, "schedule": Schedule, "select_by": SelectBy, "hybrid": HybridChoice}
        yield from choice_problems({name: (getattr(self, name), get_args(kind)) for name, kind in choices.items()})
        if not 0 <= self.head_dropout < 1:
            yield f"head_dropout is {self.head_dropout}: it must be at least 0 and below 1"
        if self.epochs is not None and not 0 < self.epochs <= MOST_EPOCHS:
            yield f"epochs is {self.epochs}: it must be above 0 and at most {MOST_EPOCHS:g}"
        for name in ("batch_size", "eval_every", "validation_sample", "steps", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name} is {value}: it must be at least 1"
        if not 0 <= self.warmup < 1:
            yield f"warmup is {self.warmup}: it must be at least 0 and below 1 (fraction of the steps)"
        for name in ("weight_decay", "clip"):
            if not 0 <= getattr(self, name) <= LARGEST_RATE:
                yield f"{name} is {getattr(self, name)}: it must be from 0 (off) to {LARGEST_RATE:g}"
        if not 0 < self.target_score <= 1:
            yield f"target_score is {self.target_score}: it must be above 0 and at most 1"
        if not self.class_weight:
            yield f"class_weight is empty: give {UNWEIGHTED}, {BALANCED} or a JSON file"


@dataclass(frozen=True)
class TrainConfig:
    """Options of ``loralet train``."""

    data: TrainingData = "news-mini"
    model: str = "tiny-en"
    """Backbone: a short name (see loralet models), a hub id or a folder."""
    out: str = ""
    """Folder for the run; named by date under runs/ if empty."""
    seed: int = 0
    """Random seed for initial values, dropout and row order."""
    lr: float | None = None
    """Peak learning rate; default 0.003, 0.001 from width 256, 0.0005 (and 200 steps) below 500 training rows."""
    lr_ratio: float = 1.0
    """Ratio of the learning rate of B and all vectors to that of A (LoRA+, Hayou et al. 2024)."""
    adapter: AdapterSpec = field(default_factory=AdapterSpec)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    reading: DataOptions = field(default_factory=DataOptions)
    compute: ComputeOptions = field(default_factory=ComputeOptions)
    stop_at_target: bool = False
    """Stop the run when it reaches the target score."""
    folds: int | None = None
    """Folds of a cross-validation; 5 on small data without validation split if not set, 0: none."""
    checkpoint_every: CheckpointEvery = 30.0

    def problems(self) -> Iterator[str]:
        yield from seed_problems("seed", self.seed)
        if self.lr is not None:
            yield from rate_problems("lr", self.lr)
        yield from rate_problems("lr_ratio", self.lr_ratio)
        yield from interval_problems(self.checkpoint_every)
        if self.folds is not None and (self.folds < 0 or self.folds == 1):
            yield f"folds is {self.folds}: it must be at least 2, or 0 for a validation split"
        if self.folds and self.stops_early:
            yield "folds cannot be combined with patience or stop_at_target, which need validation rows: give folds 0"
        for part in (self.adapter, self.training, self.reading, self.compute):
            yield from part.problems()

    @property
    def stops_early(self) -> bool:
        """Whether the run may stop before its last step, which needs a validation split."""
        return self.stop_at_target or self.training.patience is not None

    @property
    def number_of_folds(self) -> int | None:
        """Number of folds; None: decided by the data."""
        return 0 if self.folds is None and self.stops_early else self.folds
