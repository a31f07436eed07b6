"""Ranges of the fields of loralet.json. Their types are checked before (:mod:`loralet.records`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from loralet.errors import is_utf8
from loralet.models.families import FAMILIES
from loralet.models.pooling import POOLING_NAMES
from loralet.tasks.registry import TASKS
from loralet.tasks.single_label import SingleLabel

if TYPE_CHECKING:
    from loralet.artifacts.artifact import Artifact

LABEL_TYPES = ("str", "int", "float", "bool")
SHORTEST = 3
"""Least maximum length: two special tokens and one of the text."""
LARGEST = 3.4e38
"""About the largest number of fp32."""


def field_problems(artifact: Artifact) -> Iterator[str]:
    """Messages about fields of a description whose values are of the right type but cannot be right."""
    if artifact.task not in TASKS:
        yield f"task is {artifact.task!r}: known tasks: {', '.join(TASKS)}"
    if artifact.architecture not in FAMILIES:
        yield f"architecture is {artifact.architecture!r}: known architectures: {', '.join(FAMILIES)}"
    if artifact.label_type not in LABEL_TYPES:
        yield f"label_type is {artifact.label_type!r}: one of {', '.join(LABEL_TYPES)} is expected"
    if artifact.max_length < SHORTEST:
        yield f"max_length is {artifact.max_length}: at least {SHORTEST} tokens are expected"
    if not (math.isfinite(artifact.temperature) and artifact.temperature > 0):
        yield f"temperature is {artifact.temperature}: a finite number above 0 is expected"
    if not artifact.backbone:
        yield "backbone is empty"
    yield from _label_problems(artifact)
    if artifact.label_values and len(artifact.label_values) != len(artifact.labels):
        yield f"label_values has {len(artifact.label_values)} values for {len(artifact.labels)} labels"
    yield from _pooling_problems(artifact)
    yield from (f"adapter.{problem}" for problem in artifact.adapter.problems())
    yield from (f"mixing.{problem}" for problem in artifact.mixing.problems())
    yield from _role_problems(artifact)
    yield from _metric_problems(artifact)


def _label_problems(artifact: Artifact) -> Iterator[str]:
    labels = artifact.labels
    if not labels:
        yield "labels is empty"
    elif len(labels) == 1 and artifact.task == SingleLabel.name:
        yield f"labels is {list(labels)}: at least two are expected"
    yield from name_problems("labels", labels, empty=True)


def name_problems(key: str, labels: Sequence[str], empty: bool = False) -> Iterator[str]:
    """Messages about label names that cannot be told apart or printed.

    Args:
        key: where they are from.
        labels: the names.
        empty: whether a name may be empty.
    """
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        yield f"{key} has {', '.join(map(repr, repeated[:5]))} more than once"
    if "" in labels and not empty:
        yield f"{key} has an empty name"
    if broken := [label for label in labels if not is_utf8(label)]:
        yield f"{key} has {', '.join(map(ascii, broken[:5]))}, which is not valid Unicode"


def _pooling_problems(artifact: Artifact) -> Iterator[str]:
    pooling = artifact.pooling
    if pooling.activation not in POOLING_NAMES:
        yield f"pooling.activation is {pooling.activation!r}: one of {', '.join(POOLING_NAMES)} is expected"
    if not 0 < pooling.epsilon < 1:
        yield f"pooling.epsilon is {pooling.epsilon}: a number above 0 and below 1 is expected"


def _role_problems(artifact: Artifact) -> Iterator[str]:
    spec = artifact.adapter
    if artifact.role != "lora" and spec.rank > 0:
        yield f"role is {artifact.role!r}, but adapter.rank is {spec.rank}: 0 is expected"
    if artifact.role == "lora" and spec.rank == 0:
        yield "role is 'lora', but adapter.rank is 0"
    if spec.rank > 0 and not spec.scale <= LARGEST:
        yield f"adapter.alpha is {spec.alpha}: the scale of the adapter exceeds fp32"


def _metric_problems(artifact: Artifact) -> Iterator[str]:
    if artifact.task not in TASKS or not artifact.labels:
        return
    task = artifact.as_task()
    for split, measured in artifact.metrics.items():
        missing = {task.selection, task.metrics[0], task.metrics[-1]} - measured.scores.values.keys()
        if missing:
            yield f"metrics.{split} has no {', '.join(sorted(missing))}"
        if measured.rows < 1:
            yield f"metrics.{split}.rows is {measured.rows}: a number above 0 is expected"
