"""Checks of a saved adapter: its tensors, and checksums of description and tensors.

A damaged adapter computes finite logits and confident labels, so nothing else would reveal it. ``loralet.json`` has
checksums (SHA-256) under the key ``sha256``. Folders written before they existed have none.

description   the fields :data:`PROTECTED`, which decide the predictions
tensors       names, shapes and values of the trained tensors of the adapter's files
words         the linear model on words of a hybrid
checkpoint    the encoder, its configuration and its tokenizer, if the folder has them (full fine-tuning)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from loralet.adapters.layout import Layout
from loralet.artifacts.artifact import Artifact
from loralet.artifacts.layout import layout_of
from loralet.artifacts.words import ARRAYS, TOKENS
from loralet.errors import RunError
from loralet.hub.checkpoint import Checkpoint, fingerprint_of
from loralet.hub.tensors import number_problems
from loralet.records import read_json

PROTECTED = (
    "schema",
    "role",
    "labels",
    "adapter",
    "head",
    "max_length",
    "backbone_fingerprint",
    "architecture",
    "task",
    "pooling",
    "label_type",
    "temperature",
    "mixing",
)
"""Fields of loralet.json that decide the predictions. The backbone's path is not one of them, as it may change."""
MOVED = ("_name_or_path",)
"""Keys of config.json that name a place; an upload changes them."""
AGAIN = "copy the folder again, or train again"


def require_numbers(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Check that all values of an adapter's tensors are finite floating-point numbers.

    Raises:
        RunError: some are not; the message names the tensors.
    """
    if problems := list(number_problems(arrays)):
        raise RunError(f"{folder}: {'; '.join(problems[:5])}; {AGAIN}")


def require_fitting(folder: Path, artifact: Artifact, arrays: Mapping[str, np.ndarray], found: Checkpoint) -> None:
    """Check names and shapes of an adapter's tensors against its description and encoder.

    Raises:
        RunError: they do not match; all differences are listed.
    """
    try:
        Layout(*layout_of([artifact], found.table)).require_tensors(0, arrays)
    except ValueError as error:
        raise RunError(f"{folder}: the tensors do not fit the adapter: {error}; {AGAIN}") from error


def checksums(
    folder: Path, described: Mapping[str, object], arrays: Mapping[str, np.ndarray], checkpoint: str | None
) -> dict[str, str]:
    """The value of the key ``sha256`` of loralet.json.

    Args:
        folder: the folder, with all other files.
        described: the content of loralet.json.
        arrays: the tensors of the adapter's files, by slot name.
        checkpoint: see :func:`checkpoint_checksum`; None if the folder has no checkpoint.
    """
    found = {"description": _description_checksum(described), "tensors": fingerprint_of(arrays)}
    if (folder / ARRAYS).exists():
        found["words"] = _words_checksum(folder)
    return found | ({} if checkpoint is None else {"checkpoint": checkpoint})


def checkpoint_checksum(folder: Path, fingerprint: str) -> str:
    """The checksum of a folder's own checkpoint.

    Args:
        folder: the folder.
        fingerprint: hash of the encoder's tensors (:func:`loralet.hub.checkpoint.fingerprint_of`).

    Raises:
        OSError, ValueError: a file cannot be read.
    """
    config = read_json(folder / "config.json")
    if isinstance(config, dict):
        config = {key: value for key, value in config.items() if key not in MOVED}
    tokenizer = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    return _of([fingerprint, config, tokenizer])


def require_description(folder: Path, described: Mapping[str, object]) -> None:
    """Compare the description of an adapter with its checksum, if it has one.

    Args:
        folder: the folder, for messages.
        described: the content of loralet.json.

    Raises:
        RunError: the checksum differs, or the checksums are incomplete.
    """
    recorded = described.get("sha256")
    if recorded is not None and not (isinstance(recorded, dict) and {"description", "tensors"} <= recorded.keys()):
        raise RunError(f"{folder}: loralet.json has incomplete checksums under sha256; {AGAIN}")
    if isinstance(recorded, dict) and recorded["description"] != _description_checksum(described):
        raise RunError(
            f"{folder}: loralet.json is not as it was saved (another sha256 of {', '.join(PROTECTED)}); {AGAIN}. "
            "If the change is intended, remove the key sha256"
        )


def require_tensors(folder: Path, described: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> None:
    """Compare the tensors of an adapter with their checksum, if it has one; arguments as for the others.

    Raises:
        RunError: the checksum differs.
    """
    recorded = described.get("sha256")
    if isinstance(recorded, dict) and recorded["tensors"] != fingerprint_of(arrays):
        raise RunError(f"{folder}: the tensors are not those that were saved (another sha256); {AGAIN}")


def require_words(folder: Path, described: Mapping[str, object]) -> None:
    """Compare the linear model of a hybrid with its checksum, if it has one.

    Raises:
        RunError: the checksum differs.
    """
    recorded = described.get("sha256")
    if isinstance(recorded, dict) and recorded.get("words") != _words_checksum(folder):
        raise RunError(f"{folder}: {TOKENS} or {ARRAYS} are not those that were saved (another sha256); {AGAIN}")


def _words_checksum(folder: Path) -> str:
    return _of([hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (TOKENS, ARRAYS)])


def _description_checksum(described: Mapping[str, object]) -> str:
    return _of({name: described.get(name) for name in PROTECTED})


def _of(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
