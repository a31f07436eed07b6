"""The result of one run: tensors, configuration and provenance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal

from loralet import __version__
from loralet.adapters.spec import AdapterSpec
from loralet.artifacts.fields import field_problems
from loralet.config import ComputeOptions, TrainingOptions
from loralet.models.pooling import HeadKind, Pooling
from loralet.records import plain, read_record
from loralet.tasks.base import Scores, Task
from loralet.tasks.classes import ClassScores
from loralet.tasks.labels import LabelType
from loralet.tasks.mixing import Mixing
from loralet.tasks.registry import TASKS
from loralet.tasks.words import WordModel

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = 2
OLDEST_SCHEMA = 1
OUT_OF_FOLD = "out-of-fold"
"""Name in ``metrics`` of scores on the training rows, each by a run that did not train on the row."""
ArtifactRole = Literal["lora", "linear-probe", "full"]


@dataclass(frozen=True)
class Measured:
    """Scores on a split of ``rows`` rows, and those of each class if they were recorded."""

    rows: int
    scores: Scores
    classes: tuple[ClassScores, ...] = ()

    def to_json(self) -> dict[str, object]:
        """One object: the rows, the scores, and a list of the classes."""
        flat: dict[str, object] = {"rows": self.rows}
        flat |= self.scores.to_json()
        return flat | ({"classes": [plain(scores) for scores in self.classes]} if self.classes else {})


@dataclass(frozen=True)
class Provenance:
    """Origin of an artifact. Fields that are unknown or do not apply are None or empty.

    Args:
        source: data set, as named by the user.
        backbone_commit: commit of the backbone on the hub; empty for a folder or a bundled one.
        train_rows, validation_rows: rows of the splits.
        split_seed, validation_fraction: options of the validation split.
        folds: number of folds of the out-of-fold scores; None with a validation split.
        class_weights: weight of each label in the loss, in label order; None: all 1.
        lr: peak learning rate.
        lr_ratio: ratio of the learning rate of B to that of A; 1 in folders written before the option existed, None for
            an average of different ratios.
        seed: seed of the run.
        steps_taken: optimiser steps.
        training, compute: the options.
        averaged_from: ids of the averaged runs.
        merged_from: id of the run whose adapter is merged into the weights.
        merged_adapter: configuration of the merged adapter.
        hybrid_of: id of the run that a hybrid combines with a linear model on words.
        teachers: the classifiers that taught the run; empty without.
        unlabelled_rows: number of texts without labels that a taught run has read; None without teachers.
        text_columns: names of the columns whose contents are the text; empty without a table.
        label_column: name of the label column.
    """

    source: str = ""
    backbone_commit: str = ""
    train_rows: int | None = None
    validation_rows: int | None = None
    split_seed: int | None = None
    validation_fraction: float | None = None
    folds: int | None = None
    class_weights: tuple[float, ...] | None = None
    lr: float | None = None
    lr_ratio: float | None = 1.0
    seed: int | None = None
    steps_taken: int | None = None
    training: TrainingOptions | None = None
    compute: ComputeOptions | None = None
    averaged_from: tuple[str, ...] = ()
    merged_from: str = ""
    merged_adapter: AdapterSpec | None = None
    hybrid_of: str = ""
    teachers: tuple[str, ...] = ()
    unlabelled_rows: int | None = None
    text_columns: tuple[str, ...] = ()
    label_column: str = ""


@dataclass(frozen=True)
class Artifact:
    """The result of one run.

    Args:
        id: name of the run in its study.
        role: ``lora`` (an adapter of any method), ``linear-probe`` or ``full``.
        labels: label names, in the order of the logits.
        adapter: configuration with resolved targets; rank 0 without an adapter.
        head: input of the classifier.
        max_length: maximum text length in tokens.
        backbone: hub id or folder of the frozen encoder.
        backbone_fingerprint: hash of the backbone's tensors.
        architecture: model type of the backbone.
        data_fingerprint: hash of the data set.
        tensors: the trained tensors by slot name (:meth:`loralet.adapters.pack.Pack.extract`).
        task: name of the task.
        pooling: form of the pooler.
        label_type: type of the original labels: ``str``, ``int``, ``float`` or ``bool``.
        label_values: the labels as the training data writes them, in the same order; empty if those are the names.
        temperature: divisor of the encoder's logits, for calibrated probabilities (:mod:`loralet.tasks.calibration`);
            the tensors do not contain it.
        mixing: how a hybrid combines encoder and linear model; it has no effect without ``words``.
        provenance: origin of the artifact.
        metrics: scores by split: ``validation`` or ``out-of-fold``, and ``test``.
        words: the linear model on words of a hybrid; None otherwise.
    """

    id: str
    role: ArtifactRole
    labels: tuple[str, ...]
    adapter: AdapterSpec
    head: HeadKind
    max_length: int
    backbone: str
    backbone_fingerprint: str
    architecture: str
    data_fingerprint: str
    tensors: Mapping[str, Tensor]
    task: str = "single-label"
    pooling: Pooling = Pooling()
    label_type: LabelType = "str"
    label_values: tuple[str, ...] = ()
    temperature: float = 1.0
    mixing: Mixing = Mixing()
    provenance: Provenance = Provenance()
    metrics: Mapping[str, Measured] = field(default_factory=dict)
    words: WordModel | None = None

    def as_task(self) -> Task:
        """The task, with the labels."""
        return TASKS[self.task](self.labels, self.label_values, self.label_type)

    def describe(self) -> dict[str, object]:
        """Content of loralet.json: everything except the tensors and the linear model on words."""
        described = plain(_Described(**{f.name: getattr(self, f.name) for f in fields(_Described)}))
        metrics = {split: measured.to_json() for split, measured in self.metrics.items()}
        return {"schema": SCHEMA, "loralet": __version__} | described | {"metrics": metrics}


@dataclass(frozen=True)
class _Described:
    """The fields of an artifact that loralet.json stores unchanged."""

    id: str
    role: ArtifactRole
    labels: tuple[str, ...]
    adapter: AdapterSpec
    head: HeadKind
    max_length: int
    backbone: str
    backbone_fingerprint: str
    architecture: str
    data_fingerprint: str
    task: str = "single-label"
    pooling: Pooling = Pooling()
    label_type: LabelType = "str"
    label_values: tuple[str, ...] = ()
    temperature: float = 1.0
    mixing: Mixing = Mixing()
    provenance: Provenance = Provenance()


def read_description(raw: object) -> Artifact:
    """Read an artifact without tensors and linear model from loralet.json of this or an older schema.

    Raises:
        ValueError: the schema is newer, or the content is invalid; all problems are listed.
    """
    if not isinstance(raw, dict):
        raise ValueError("a JSON object is expected")
    schema = raw.get("schema")
    if type(schema) is not int or schema < OLDEST_SCHEMA:
        raise ValueError(f"schema is {schema!r}: a whole number from {OLDEST_SCHEMA} to {SCHEMA} is expected")
    if schema > SCHEMA:
        raise ValueError(f"written by a newer loralet ({raw.get('loralet')}); this is {__version__}")
    described = {key: value for key, value in raw.items() if key not in ("schema", "loralet", "metrics", "sha256")}
    problems: list[str] = []
    found = read_record(_Described, _of_schema_1(described) if schema == 1 else described, problems)
    metrics = _metrics(raw.get("metrics"), problems)
    if found is not None:
        artifact = Artifact(**found.__dict__, tensors={}, metrics=metrics)
        problems += field_problems(artifact)
    if found is None or problems:
        raise ValueError("; ".join(problems))
    return artifact


def _metrics(raw: object, problems: list[str]) -> dict[str, Measured]:
    metrics: dict[str, Measured] = {}
    if raw is not None and not isinstance(raw, dict):
        problems.append("metrics is not an object")
        return metrics
    for split, values in (raw or {}).items():
        try:
            flat = dict(values)
            rows, classes = flat.pop("rows"), _classes(flat.pop("classes", ()), problems, f"metrics.{split}.")
            if type(rows) is not int:
                raise TypeError("rows is not a whole number")
            metrics[split] = Measured(rows, Scores.from_json(flat), classes)
        except (KeyError, TypeError, ValueError) as error:
            problems.append(f"metrics.{split}: {error}")
    return metrics


def _classes(raw: Iterable[Mapping[str, object]], problems: list[str], where: str) -> tuple[ClassScores, ...]:
    found = (read_record(ClassScores, dict(row), problems, f"{where}classes[{i}].") for i, row in enumerate(raw))
    return tuple(scores for scores in found if scores is not None)


def _of_schema_1(raw: dict[str, object]) -> dict[str, object]:
    """Convert a description of schema 1, which groups adapter, options and data differently."""
    raw = dict(raw)
    adapter = {name: raw.pop(name) for name in ("rank", "alpha", "dropout", "targets", "scaling") if name in raw}
    raw["adapter"] = adapter
    raw["pooling"] = {"activation": raw.pop("head_activation", "tanh")}
    training, data = (_object(raw.pop(name, None)) for name in ("training", "data"))
    options = {f.name: training[f.name] for f in fields(TrainingOptions) if f.name in training}
    if "target_accuracy" in training:
        options["target_score"] = training["target_accuracy"]
    compute = {f.name: training[f.name] for f in fields(ComputeOptions) if f.name in training}
    known = {f.name for f in fields(Provenance)} - {"training", "compute"}
    provenance = {name: value for name, value in (training | data).items() if name in known}
    provenance |= {"training": options} if options else {}
    raw["provenance"] = provenance | ({"compute": compute} if compute else {})
    return raw


def _object(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, dict) else {}


def with_metrics(artifact: Artifact, split: str, measured: Measured) -> Artifact:
    """A copy of the artifact with scores on another split."""
    return replace(artifact, metrics={**artifact.metrics, split: measured})


def without_words(artifact: Artifact) -> Artifact:
    """The run of a hybrid without the linear model and without the scores of the hybrid; others unchanged."""
    if artifact.words is None:
        return artifact
    made = artifact.provenance
    alone = replace(made, hybrid_of="")
    return replace(
        artifact, id=made.hybrid_of or artifact.id, mixing=Mixing(), words=None, provenance=alone, metrics={}
    )


def is_head(slot: str) -> bool:
    """Whether a slot belongs to the head."""
    return slot.startswith(("classifier.", "pooler."))
