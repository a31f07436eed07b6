"""Read the adapter folder of a trained run (:mod:`loralet.artifacts.folder`), without torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from loralet.adapters.registry import METHODS
from loralet.artifacts.artifact import Artifact, read_description
from loralet.artifacts.checking import (
    AGAIN,
    checkpoint_checksum,
    require_description,
    require_numbers,
    require_tensors,
    require_words,
)
from loralet.artifacts.words import ARRAYS, TOKENS, read_words
from loralet.errors import RunError
from loralet.hub.tensors import read_tensors
from loralet.models.families import FAMILIES
from loralet.records import read_json

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


def peft_subfolders(folder: Path) -> list[Path]:
    """The folders of PEFT adapters in a folder, where PEFT saves adapters that have names of their own."""
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG}") if is_peft_folder(path.parent))


def read_artifact(folder: Path) -> tuple[Artifact, dict[str, np.ndarray]]:
    """Read a run's folder: its description without tensors, and the tensors by slot name.

    Raises:
        RunError: not an adapter folder, a newer schema, or missing or damaged files.
    """
    try:
        described = read_described(folder)
        artifact = read_description(described)
        require_description(folder, described)
        arrays: dict[str, np.ndarray] = {}
        adapted = artifact.role != "full" and artifact.adapter.rank > 0
        if adapted:
            saved = _saved(folder / "adapter_model.safetensors")
            arrays |= {_own_name(name, artifact): array for name, array in saved.items()}
        if not (adapted and head_in_peft(artifact)):
            arrays |= _saved(folder / "head.safetensors")
        if artifact.mixing.weight < 1:
            artifact = replace(artifact, words=read_words(folder, len(artifact.labels)))
            require_words(folder, described)
    except FileNotFoundError as error:
        raise RunError(f"{folder}: not a loralet adapter folder ({error.filename} is missing)") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder}: cannot be read as an adapter folder ({error})") from error
    require_numbers(folder, arrays)
    missing = {"classifier.weight", "classifier.bias"} - arrays.keys()
    if missing:
        raise RunError(f"{folder}: {', '.join(sorted(missing))} missing: predictions would be random; {AGAIN}")
    require_tensors(folder, described, arrays)
    return artifact, arrays


def read_described(folder: Path) -> dict[str, object]:
    """The content of loralet.json.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not a JSON object.
    """
    described = read_json(folder / "loralet.json")
    if not isinstance(described, dict):
        raise ValueError("loralet.json: a JSON object is expected")
    return described


def require_own_checkpoint(folder: Path, fingerprint: str) -> None:
    """Compare the checkpoint of a fully fine-tuned run with its checksum, if it has one.

    Args:
        folder: the folder of the run.
        fingerprint: hash of the encoder's tensors, as read.

    Raises:
        RunError: the checksum differs.
    """
    recorded = read_described(folder).get("sha256")
    wanted = recorded.get("checkpoint") if isinstance(recorded, dict) else None
    if wanted is not None and wanted != checkpoint_checksum(folder, fingerprint):
        raise RunError(
            f"{folder}: encoder, config.json or tokenizer.json are not those that were saved (another sha256); {AGAIN}"
        )


def _saved(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        raise RunError(f"{path} is missing: predictions would be random; {AGAIN}")
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
