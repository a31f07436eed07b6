"""Read the adapter folder of a trained run (:mod:`loralet.artifacts.folder`), without torch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from loralet.adapters.registry import METHODS
from loralet.artifacts.artifact import Artifact, read_description
from loralet.artifacts.words import ARRAYS, TOKENS, read_words
from loralet.errors import RunError
from loralet.hub.tensors import read_tensors
from loralet.models.families import FAMILIES

PEFT_PREFIX = "base_model.model."
CONFIG = "adapter_config.json"
"""PEFT's configuration."""
ADAPTER_FILES = (
    "loralet.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "head.safetensors",
    TOKENS,
    ARRAYS,
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "README.md",
)
"""All files that an adapter folder may contain."""


def is_peft_folder(folder: Path) -> bool:
    """Whether PEFT, and not loralet, wrote this folder."""
    return (folder / CONFIG).exists() and not (folder / "loralet.json").exists()


def read_artifact(folder: Path) -> tuple[Artifact, dict[str, np.ndarray]]:
    """Read a run's folder: its description without tensors, and the tensors by slot name.

    Raises:
        RunError: not an adapter folder, a newer schema, or missing or broken files.
    """
    path = folder / "loralet.json"
    try:
        artifact = read_description(json.loads(path.read_text(encoding="utf-8")))
        arrays: dict[str, np.ndarray] = {}
        adapted = artifact.role != "full" and artifact.adapter.rank > 0
        if adapted:
            saved = _saved(folder / "adapter_model.safetensors")
            arrays |= {_own_name(name, artifact): array for name, array in saved.items()}
        if not (adapted and head_in_peft(artifact)):
            arrays |= _saved(folder / "head.safetensors")
        if artifact.mixing.weight < 1:
            artifact = replace(artifact, words=read_words(folder, len(artifact.labels)))
    except FileNotFoundError as error:
        raise RunError(f"{folder}: not a loralet adapter folder ({error.filename} is missing)") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder}: cannot be read as an adapter folder ({error})") from error
    missing = {"classifier.weight", "classifier.bias"} - arrays.keys()
    if missing:
        raise RunError(
            f"{folder}: {', '.join(sorted(missing))} missing: predictions would be random; "
            "copy the folder again, or train again"
        )
    return artifact, arrays


def _saved(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        raise RunError(f"{path} is missing: predictions would be random; copy the folder again, or train again")
    return read_tensors(path)


def head_in_peft(artifact: Artifact) -> bool:
    """Whether this family's ...ForSequenceClassification in transformers has this head, so that PEFT can store it."""
    return FAMILIES[artifact.architecture].head.in_encoder and artifact.head != "mean"


def _own_name(peft: str, artifact: Artifact) -> str:
    """The slot name of a tensor of a PEFT file.

    Raises:
        KeyError: no slot has this tensor.
    """
    family = FAMILIES[artifact.architecture]
    name = peft.removeprefix(PEFT_PREFIX)
    if name.startswith("classifier."):
        return name
    name = name.removeprefix(family.prefix)
    for part, theirs in METHODS[artifact.adapter.method].format.peft_names.items():
        if name.endswith(f".{theirs}"):
            return f"{family.linear(name.removesuffix(f'.{theirs}'))}.{part}"
    return {family.tensor(slot): slot for slot in ("pooler.weight", "pooler.bias")}[name]
