"""Every option, once: name, default, help and limits. The command line and the saved TOML are made from these classes.

Standard library and tyro's markers only, so that ``loralet --help`` needs nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Annotated, Literal

from tyro.conf import Positional, arg

Head = Literal["pooler", "trained-pooler", "mean"]
Scaling = Literal["alpha/r", "rslora"]
Schedule = Literal["linear", "cosine", "constant"]
Precision = Literal["auto", "fp32", "bf16"]

TARGETS = ("query", "key", "value", "attention-output", "intermediate", "output")
"""The linear maps of one encoder layer, by the names ``--targets`` takes."""

ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class DataOptions:
    """Where the texts and labels are, and how to read them."""

    text_column: str = ""
    """Column that holds the text; found by its usual names when empty."""
    label_column: str = ""
    """Column that holds the label; found by its usual names when empty."""
    columns: tuple[str, ...] = ()
    """Column names, in order, of a CSV or TSV file that has no header row."""
    label_names: tuple[str, ...] = ()
    """Names for the labels, in label order; labels are named by their own values when empty."""
    validation_fraction: float = 0.1
    """Share of the training rows kept for validation when the data has no validation split (at most 5,000 rows)."""
    split_seed: int = 0
    """Seed of the validation split and of the sample used for the frequent checks."""
    drop_overlap: bool = False
    """Remove from the training rows every text that also stands in the test split."""
    max_length: int = 128
    """Tokens kept of each text, the two special tokens included."""

    def problems(self) -> Iterator[str]:
        if not 0 < self.validation_fraction < 1:
            yield f"validation_fraction is {self.validation_fraction}: it must lie between 0 and 1"
        if self.max_length < 3:
            yield f"max_length is {self.max_length}: a text needs at least 3 tokens, two of them special"
        yield from seed_problems("split_seed", self.split_seed)
        if len(set(self.columns)) != len(self.columns):
            yield f"columns names a column twice: {', '.join(self.columns)}"
        if len(set(self.label_names)) != len(self.label_names):
            yield f"label_names gives a name twice: {', '.join(self.label_names)}"


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
    weight_decay: float = 0.0
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
    lr: float = 2e-3
    """Peak learning rate."""

    def problems(self) -> Iterator[str]:
        yield from lora_problems(self.rank, self.alpha, self.dropout, self.lr)
        yield from target_problems(self.targets)


@dataclass(frozen=True)
class GridOptions:
    """The grid of a study: every combination is a run."""

    models: tuple[str, ...] = ("news-tiny",)
    """Backbones: hub ids, folders, or the bundled news-tiny."""
    ranks: tuple[int, ...] = (4, 16, 32)
    """Ranks of the grid."""
    alphas: tuple[float, ...] = (64.0, 256.0, 512.0)
    """Alphas of the grid."""
    lrs: tuple[float, ...] = (1e-3,)
    """Peak learning rates of the grid."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the grid: initial values, dropout and order of the rows."""
    dropout: float = 0.0
    """Dropout on the adapters' input."""
    targets: tuple[str, ...] = ("query", "value")
    """Linear maps that get an adapter: query, key, value, attention-output, intermediate, output, or all-linear."""
    scaling: Scaling = "alpha/r"
    """Scale of the adapters: alpha / rank, or alpha / sqrt(rank) (rslora)."""
    full: bool = False
    """Also fine-tune the whole model, for comparison."""
    full_lr: float = 3e-4
    """Peak learning rate of full fine-tuning."""
    probe_lr: float = 1e-2
    """Peak learning rate of the linear probe."""

    def problems(self) -> Iterator[str]:
        for name in ("models", "ranks", "alphas", "lrs", "seeds"):
            values = getattr(self, name)
            if not values and name != "models":
                yield f"{name} is empty: a grid needs at least one value of each"
            if len(set(values)) != len(values):
                yield f"{name} names a value twice: {' '.join(map(str, values))}"
        yield from seed_problems("seeds", min(self.seeds, default=0))
        for rank in self.ranks:
            yield from lora_problems(rank, 1.0, 0.0, 1.0)
        for alpha in self.alphas:
            yield from lora_problems(1, alpha, 0.0, 1.0)
        for lr in self.lrs:
            yield from lora_problems(1, 1.0, 0.0, lr)
        for name in ("full_lr", "probe_lr"):
            if not 0 < getattr(self, name) < inf:
                yield f"{name} is {getattr(self, name)}: it must be above 0, and finite"
        yield from lora_problems(1, 1.0, self.dropout, 1.0)
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

    def problems(self) -> Iterator[str]:
        yield from seed_problems("seed", self.seed)
        for part in (self.lora, self.training, self.reading):
            yield from part.problems()


@dataclass(frozen=True)
class StudyConfig:
    """Everything ``loralet study`` needs."""

    data: Annotated[Positional[str], arg(metavar="DATA")] = "news-mini"
    """A CSV, TSV, JSONL or Parquet file, a folder with train/validation/test files, a hub data set id, or the bundled news-mini."""
    out: str = ""
    """Folder for the study; named by date under runs/ when empty."""
    grid: GridOptions = field(default_factory=GridOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    reading: DataOptions = field(default_factory=DataOptions)

    def problems(self) -> Iterator[str]:
        for part in (self.grid, self.training, self.reading):
            yield from part.problems()


@dataclass(frozen=True)
class EvaluateConfig:
    """Everything ``loralet evaluate`` needs."""

    folder: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder, or one of the adapter folders in it."""
    data: Annotated[Positional[str], arg(metavar="DATA")] = ""
    """A labelled file or a folder with a test file; the run's own test split when empty (one more read of it, which is recorded)."""
    run: str = ""
    """Id of a run of a study; the one that validation chose when empty."""
    text_column: str = ""
    """Column that holds the text; found by its usual names when empty."""
    label_column: str = ""
    """Column that holds the label; found by its usual names when empty."""
    columns: tuple[str, ...] = ()
    """Column names, in order, of a CSV or TSV file that has no header row."""
    any_backbone: bool = False
    """Take the backbone even if it is not the one that the run was trained on."""
    label_names: tuple[str, ...] = ()
    """Names for the labels, in label order; the run's own when empty."""
    threads: int | None = None
    """Processor threads; none: what torch chooses."""
    format: Literal["table", "json"] = "table"
    """What to print."""

    def problems(self) -> Iterator[str]:
        yield from thread_problems(self.threads)
        if len(set(self.columns)) != len(self.columns):
            yield f"columns names a column twice: {', '.join(self.columns)}"


@dataclass(frozen=True)
class PredictConfig:
    """Everything ``loralet predict`` needs."""

    folder: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder, or one of the adapter folders in it."""
    texts: Annotated[Positional[tuple[str, ...]], arg(metavar="TEXT")] = ()
    """Texts to classify; without any, --file or standard input is read line by line, or on a terminal the bundled news-mini is shown."""
    file: str = ""
    """A file of texts: a CSV, TSV, JSONL or Parquet table with a text column, or else one text a line; - is standard input."""
    run: str = ""
    """Id of a run of a study; the one that validation chose when empty."""
    format: Literal["table", "jsonl", "csv"] = "table"
    """What to print."""
    text_column: str = ""
    """Column of the file that holds the text; found by its usual names when empty."""
    precision: Precision = "fp32"
    """Arithmetic of the encoder; auto takes bf16 where the processor has it."""
    any_backbone: bool = False
    """Take the backbone even if it is not the one that the run was trained on."""
    label_names: tuple[str, ...] = ()
    """Names for the labels, in label order; the run's own when empty."""
    threads: int | None = None
    """Processor threads; none: what torch chooses."""

    def problems(self) -> Iterator[str]:
        yield from thread_problems(self.threads)


@dataclass(frozen=True)
class ShowConfig:
    """Everything ``loralet show`` needs."""

    folder: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder."""


@dataclass(frozen=True)
class ReportConfig:
    """Everything ``loralet report`` needs."""

    folder: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder."""
    out: str = ""
    """File of the report; report.html and report.md in the run folder when empty. Of both formats, each takes its own ending."""
    format: Literal["html", "md", "both"] = "both"
    """What to write. The page is one file; Markdown has its pictures in a folder beside it."""
    texts: bool = True
    """Show test rows; their texts are read again from the data source. --no-texts leaves every text out."""
    json: str = ""
    """File for the numbers of the report; none when empty."""


@dataclass(frozen=True)
class ExportConfig:
    """Everything ``loralet export`` needs."""

    folder: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder, one of the adapter folders in it, an adapter of PEFT's, or a hub id."""
    to: Literal["hf", "onnx", "safetensors-bundle"] = "safetensors-bundle"
    """A checkpoint for transformers, an ONNX graph, or one folder that loralet loads without hub or cache."""
    out: str = ""
    """Folder for the export; named by date under runs/ when empty."""
    run: str = ""
    """Id of a run of a study; the one that validation chose when empty."""
    int8: bool = False
    """With --to onnx: also the graph in 8-bit integers, kept if its accuracy drops by no more than half a point."""
    data: str = ""
    """Labelled rows to measure the graph on, a file or a folder with a test file; the run's validation rows when empty."""
    text_column: str = ""
    """Column of the data that holds the text; found by its usual names when empty."""
    label_column: str = ""
    """Column of the data that holds the label; found by its usual names when empty."""
    columns: tuple[str, ...] = ()
    """Column names, in order, of a CSV or TSV file that has no header row."""
    label_names: tuple[str, ...] = ()
    """Names for the labels, in label order; the run's own when empty."""
    any_backbone: bool = False
    """Take the backbone even if it is not the one that the run was trained on."""
    push: str = ""
    """Upload the export to this repository on the hub (owner/name); not at all when empty."""
    private: bool = False
    """Make the repository a private one."""
    dry_run: bool = False
    """With --push: say what would be sent, and send nothing."""
    threads: int | None = None
    """Processor threads; none: what torch chooses."""

    def problems(self) -> Iterator[str]:
        yield from thread_problems(self.threads)
        if self.int8 and self.to != "onnx":
            yield f"int8 goes with --to onnx, not with --to {self.to}"
        if self.dry_run and not self.push:
            yield "dry_run says what --push would send: name a repository with --push"


@dataclass(frozen=True)
class PushConfig:
    """Everything ``loralet push`` needs."""

    folder: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder, or one of the adapter folders in it."""
    repo: Annotated[Positional[str], arg(metavar="ID")]
    """The repository on the hub: owner/name. It is made if it is not there."""
    run: str = ""
    """Id of a run of a study; the one that validation chose when empty."""
    private: bool = False
    """Make the repository a private one."""
    dry_run: bool = False
    """Say what would be sent, and send nothing."""


@dataclass(frozen=True)
class InspectConfig:
    """Everything ``loralet inspect`` needs."""

    paths: Annotated[Positional[tuple[str, ...]], arg(metavar="PATH")] = ()
    """Model folders, adapters, run folders, data sets or hub ids; with two or more models, their weights are compared."""
    format: Literal["table", "json"] = "table"
    """What to print."""

    def problems(self) -> Iterator[str]:
        if not self.paths:
            yield "paths is empty: name at least one model, adapter, run folder or data set"


@dataclass(frozen=True)
class DistillConfig:
    """Everything ``loralet distill`` needs."""

    teacher: Annotated[Positional[str], arg(metavar="TEACHER")] = ""
    """The larger encoder: a hub id or a folder."""
    text: tuple[str, ...] = ()
    """Files of texts: CSV, TSV, JSONL or Parquet tables with a text column, or else one text a line. Labels are not read."""
    text_column: str = ""
    """Column of the tables that holds the text; found by its usual names when empty."""
    out: str = ""
    """Folder for the student."""
    layers: int = 2
    """Layers of the student."""
    width: int = 128
    """Width of the student's states."""
    heads: int = 2
    """Attention heads of a student's layer."""
    feed_forward: int = 512
    """Width of the student's feed-forward layers."""
    positions: int = 512
    """Longest text the student can read, in tokens; no more than the teacher's."""
    match: tuple[int, ...] = ()
    """The teacher's layer, counted from 1, that each of the student's layers matches; evenly spaced when empty."""
    epochs: int = 15
    """Passes over the texts that match token states and sentence embeddings."""
    pooled_epochs: int = 8
    """Passes after those that match the pooled first token as well."""
    lr: float = 2e-3
    """Peak learning rate of the first passes."""
    pooled_lr: float = 1e-3
    """Peak learning rate of the pooled passes."""
    batch_size: int = 64
    """Texts in one step."""
    max_length: int = 128
    """Tokens kept of each text, the two special tokens included."""
    held_out: float = 0.02
    """Share of the texts that is never trained on and measures every epoch."""
    seed: int = 0
    """Seed of the initial values, of the order of the texts and of the held-out share."""
    precision: Precision = "auto"
    """Arithmetic of both encoders' linear maps; auto takes bf16 where the processor has it."""
    threads: int | None = None
    """Processor threads; none: what torch chooses."""
    resume: bool = False
    """Go on from the last full epoch of an interrupted distillation in the same folder."""
    half: bool = False
    """Write the weights in fp16: half the size."""
    teacher_name: str = ""
    """The teacher's name for the model card; the name of its folder or hub id when empty."""
    licence: str = ""
    """The student's licence for the model card, which the teacher's decides; unstated when empty."""

    def problems(self) -> Iterator[str]:
        needed = {"teacher": "a folder or a hub id", "text": "one file or more with --text", "out": "the student's folder with --out"}
        yield from (f"{name} is empty: give {what}" for name, what in needed.items() if not getattr(self, name))
        yield from student_problems(self.layers, self.width, self.heads, self.feed_forward, self.match)
        for name in ("epochs", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name} is {value}: it must be at least 1"
        if self.pooled_epochs < 0:
            yield f"pooled_epochs is {self.pooled_epochs}: it must not be negative (0 leaves them out)"
        for name in ("lr", "pooled_lr"):
            if not getattr(self, name) > 0:
                yield f"{name} is {getattr(self, name)}: it must be above 0"
        if self.batch_size < 2:
            yield f"batch_size is {self.batch_size}: similarities within a batch need at least 2 texts"
        for name in ("max_length", "positions"):
            if getattr(self, name) < 3:
                yield f"{name} is {getattr(self, name)}: a text needs at least 3 tokens, two of them special"
        if not 0 < self.held_out < 1:
            yield f"held_out is {self.held_out}: it must lie between 0 and 1"


@dataclass(frozen=True)
class Interface:
    """How long work talks while it goes on."""

    config: str = ""
    """A TOML file of options, such as a run's config.toml; flags given beside it win."""
    quiet: bool = False
    """Show no progress."""


def lora_problems(rank: int, alpha: float, dropout: float, lr: float) -> Iterator[str]:
    """What is impossible about one LoRA configuration, in words."""
    if rank < 0:
        yield f"rank is {rank}: it must be 0 (head only) or more"
    if not 0 < alpha < inf:
        yield f"alpha is {alpha}: it must be above 0, and finite"
    if not 0 <= dropout < 1:
        yield f"dropout is {dropout}: it must be at least 0 and below 1"
    if not 0 < lr < inf:
        yield f"lr is {lr}: it must be above 0, and finite"


def seed_problems(name: str, seed: int) -> Iterator[str]:
    """What is impossible about a seed, in words."""
    if seed < 0:
        yield f"{name} is {seed}: it must not be negative"


def thread_problems(threads: int | None) -> Iterator[str]:
    """What is impossible about a number of threads, in words."""
    if threads is not None and threads < 1:
        yield f"threads is {threads}: it must be at least 1"


def student_problems(layers: int, width: int, heads: int, feed_forward: int, match: tuple[int, ...]) -> Iterator[str]:
    """What is impossible about a student's sizes and the teacher's layers that it matches, in words."""
    for name, value in {"layers": layers, "width": width, "heads": heads, "feed_forward": feed_forward}.items():
        if value < 1:
            yield f"{name} is {value}: it must be at least 1"
    if heads > 0 and width % heads:
        yield f"width is {width} and heads is {heads}: the width must divide evenly among the heads"
    if match and len(match) != layers:
        yield f"match names {len(match)} of the teacher's layers for a student of {layers}: name one for each"
    if any(layer < 1 for layer in match) or any(a >= b for a, b in pairwise(match)):
        yield f"match is {' '.join(map(str, match))}: the teacher's layers count from 1 and must rise"


def target_problems(targets: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with a list of target names, in words."""
    if not targets:
        yield "targets is empty: name at least one linear map, or give rank 0 to train the head alone"
    unknown = [t for t in targets if t not in (*TARGETS, ALL_LINEAR)]
    if unknown:
        yield f"targets has {', '.join(unknown)}: the model has {', '.join(TARGETS)} (or {ALL_LINEAR} for all of them)"
    if ALL_LINEAR in targets and len(targets) > 1:
        yield f"targets mixes {ALL_LINEAR} with other names: {ALL_LINEAR} already is every linear map"


def resolve_targets(targets: tuple[str, ...]) -> tuple[str, ...]:
    """The plain target names, in the order of :data:`TARGETS`."""
    return TARGETS if ALL_LINEAR in targets else tuple(t for t in TARGETS if t in targets)
