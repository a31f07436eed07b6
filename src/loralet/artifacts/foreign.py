"""Classifiers that other programs saved: what their files say, and sequence classification checkpoints of transformers.

Without torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from loralet.adapters.spec import HEAD_ALONE
from loralet.artifacts.artifact import Artifact
from loralet.artifacts.checking import require_fitting
from loralet.artifacts.fields import SHORTEST, name_problems
from loralet.errors import RunError
from loralet.hub.checkpoint import INDEX, WEIGHT_FILES, Checkpoint, read_checkpoint, read_weights
from loralet.hub.tensors import number_problems
from loralet.models.family import Family
from loralet.models.pooling import HeadKind
from loralet.records import read_json, shown

CLASSIFICATION = "ForSequenceClassification"
"""Ending of the classes of transformers whose head is a classifier of texts."""
ONE_LABEL = "single_label_classification"
CLASSIFIER = ("classifier.weight", "classifier.bias")


def is_classifier(folder: Path) -> bool:
    """Whether a folder has a checkpoint whose config.json names a sequence classification class of transformers."""
    return has_weights(folder) and names_classifier(folder)


def has_weights(folder: Path) -> bool:
    """Whether a folder has a checkpoint's weights, in one file or in shards."""
    return any((folder / f"{name}{end}").exists() for name in WEIGHT_FILES for end in ("", INDEX))


def names_classifier(folder: Path) -> bool:
    """Whether a config.json names a sequence classification class of transformers."""
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError):
        return False
    names = config.get("architectures") if isinstance(config, dict) else None
    return isinstance(names, list) and any(str(name).endswith(CLASSIFICATION) for name in names)


def without_classifier(folder: Path) -> str:
    """Why a folder with config.json or labels.json has no classifier: a file is damaged or missing, or it has none."""
    path = folder / "config.json"
    try:
        config = read_json(path) if path.exists() else {}
    except (OSError, ValueError) as error:
        return f"{path}: cannot be read ({error}); copy the folder again"
    if (folder / "labels.json").exists():
        return f"{folder}: labels.json is that of an ONNX graph, but model.onnx is missing; copy the folder again"
    if not isinstance(config, dict):
        return f"{path}: a JSON object is expected; copy the folder again"
    if names_classifier(folder):
        wanted = " or ".join(WEIGHT_FILES)
        return f"{folder}: config.json names a classifier, but {wanted} is missing; copy the folder again"
    return f"{folder}: no trained classifier; a base model alone would only guess"


def read_classifier(folder: Path, labels: Sequence[str] = ()) -> tuple[Artifact, dict[str, np.ndarray], Checkpoint]:
    """Read a sequence classification checkpoint: of ``loralet export --to hf``, a merged PEFT adapter, or transformers.

    Args:
        folder: config.json, weights and tokenizer.
        labels: label names, in the order of the logits; those of config.json if empty.

    Returns:
        The classifier without tensors, the tensors of its head by slot name, and its encoder.

    Raises:
        RunError: the head is missing, does not fit, or has logits that are not those of single-label classification.
        CheckpointError: the encoder cannot be read.
    """
    found = read_checkpoint(str(folder))
    names = found.family.head
    tensors, stored = read_weights(folder), names.tensors()
    wanted = {theirs: ours for theirs, ours in stored.items() if not names.in_encoder or ours in CLASSIFIER}
    head = {ours: np.array(tensors[theirs], np.float32) for theirs, ours in wanted.items() if theirs in tensors}
    if not head:
        raise RunError(f"{folder}: no trained classifier; config.json names one, but {', '.join(wanted)} are missing")
    problems = [f"{theirs} is missing" for theirs in wanted if theirs not in tensors]
    if names.in_encoder and "pooler.weight" not in found.arrays:
        problems.append(f"{names.pooler}.weight is missing")
    problems += [*head_config_problems(found.config, found.family), *number_problems(head)]
    weight = head.get("classifier.weight")
    if weight is not None and (weight.ndim != 2 or len(weight) < 2):
        problems.append(f"the classifier has the shape {list(weight.shape)}; two or more outputs are expected")
    if problems or weight is None:
        raise RunError("\n".join([f"{folder}: this classifier cannot be loaded:", *(f"  - {one}" for one in problems)]))
    if not labels:
        _require_own_names(folder, found.config, len(weight))
    kind: HeadKind = "pooler" if names.in_encoder else "trained-pooler"
    artifact = Artifact(
        id=folder.resolve().name,
        role="full",
        labels=label_names(folder, found.config, len(weight), labels),
        adapter=HEAD_ALONE,
        head=kind,
        max_length=longest_text(folder, found.table.longest),
        backbone=found.name,
        backbone_fingerprint=found.fingerprint,
        architecture=found.family.model_type,
        data_fingerprint="",
        tensors={},
        pooling=names.pooling,
    )
    require_fitting(folder, artifact, head, found)
    return artifact, head, found


def head_config_problems(config: Mapping[str, object], family: Family) -> Iterator[str]:
    """Messages about keys of config.json with which transformers computes something else from the head's tensors."""
    kind = config.get("problem_type")
    if kind not in (None, ONE_LABEL):
        yield f"problem_type is {kind!r}; loralet computes the probabilities of {ONE_LABEL}, with a softmax"
    for key, value in family.hf_config.items():
        if config.get(key, value) != value:
            yield f"{key} is {config[key]!r}; loralet computes {value!r}"


def label_names(folder: Path, config: Mapping[str, object], classes: int, given: Sequence[str]) -> tuple[str, ...]:
    """Label names: the given ones, those of ``id2label`` in a config.json, or LABEL_0, LABEL_1, ... as in transformers.

    Raises:
        RunError: another number of names is given than the classifier has classes.
    """
    if given:
        if len(given) != classes:
            raise RunError(
                f"{folder}: {len(given)} label names are given ({', '.join(given)}), "
                f"but the classifier has {classes} classes"
            )
        return tuple(given)
    names = config.get("id2label")
    if isinstance(names, dict) and set(names) == {str(i) for i in range(classes)}:
        return tuple(str(names[str(i)]) for i in range(classes))
    return tuple(f"LABEL_{i}" for i in range(classes))


def _require_own_names(folder: Path, config: Mapping[str, object], classes: int) -> None:
    """Check the label names in the config.json of a classifier; without any, they are LABEL_0, LABEL_1, ...

    Raises:
        RunError: they are not one name for each class, or cannot be told apart.
    """
    given = config.get("id2label")
    if given is None:
        return
    names = list(given.values()) if isinstance(given, dict) else []
    if not isinstance(given, dict) or set(given) != {str(i) for i in range(classes)}:
        found = f"has {len(names)} names" if names else f"is {shown(given)[:200]}"
        problems = [
            f"id2label {found}; one for each of the {classes} classes is expected, with the keys 0 to {classes - 1}"
        ]
    elif not all(isinstance(name, (str, int, float)) for name in names):
        problems = ["id2label has values that are not names"]
    else:
        problems = list(name_problems("id2label", [str(name) for name in names]))
    if problems:
        raise RunError(f"{folder / 'config.json'}: {'; '.join(problems)}; correct it, or set --label-names")


def longest_text(folder: Path, longest: int) -> int:
    """The maximum length in tokens: that of a folder's tokenizer_config.json, if it is at most ``longest``."""
    try:
        config = read_json(folder / "tokenizer_config.json")
    except (OSError, ValueError):
        return longest
    length = config.get("model_max_length") if isinstance(config, dict) else None
    if isinstance(length, bool) or not isinstance(length, (int, float)) or not length >= SHORTEST:
        return longest
    return int(min(length, longest))
