"""Read a checkpoint from disk or from the hub, without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from loralet.errors import CheckpointError, HubError
from loralet.hub import client as hub
from loralet.hub.bundled import bundled
from loralet.hub.models import resolve_model, suggestion
from loralet.hub.tensors import read_tensors
from loralet.hub.tokenizer import TOKENIZER_FILES, load_tokenizer
from loralet.models.families import FAMILIES
from loralet.models.family import Family
from loralet.models.table import ACTIVATION_NAMES, EncoderTable

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""In order of preference; only the first file found is read."""


@dataclass(frozen=True)
class Checkpoint:
    """A frozen encoder with its tokenizer; fields as for :class:`loralet.hub.backbone.Backbone`.

    Args:
        arrays: canonical tensors in fp32; ``pooler.*`` only if the checkpoint has a pooler.
    """

    name: str
    family: Family
    table: EncoderTable
    arrays: Mapping[str, np.ndarray]
    tokenizer: Tokenizer
    fingerprint: str
    config: dict[str, object]


def read_checkpoint(name: str) -> Checkpoint:
    """Read a BERT-family encoder.

    Args:
        name: a folder with config.json, weights (model.safetensors or pytorch_model.bin) and a vocabulary; a hub id; or
            a short name (:mod:`loralet.hub.models`), which is replaced by its hub id.

    Raises:
        CheckpointError: a file, tensor or size is missing or does not fit; the message lists every problem found.
        HubError: a hub id that is neither reachable nor cached.
    """
    name = resolve_model(name)
    folder = find_checkpoint(name)
    config = _read_config(folder)
    tensors = read_weights(folder)
    model_type = _model_type(folder, config, tensors)
    family = FAMILIES[model_type]
    try:
        table = family.table(config)
    except KeyError as error:
        raise CheckpointError(
            f"{folder / 'config.json'}: the key {error.args[0]!r} is missing; a {model_type} config needs it"
        ) from error
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
    if table.activation not in ACTIVATION_NAMES:
        raise CheckpointError(
            f"{folder / 'config.json'}: activation {table.activation!r} is not one of {', '.join(ACTIVATION_NAMES)}"
        )
    arrays = _canonical(folder, family, table, tensors)
    tokenizer = load_tokenizer(folder, table.vocabulary, family.tokens)
    return Checkpoint(name, family, table, arrays, tokenizer, fingerprint_of(arrays), config)


def find_checkpoint(name: str) -> Path:
    """The folder of a backbone: a local folder, the bundled one, or files downloaded from the hub.

    Raises:
        CheckpointError: neither an existing folder nor a valid hub id.
        HubError: see :func:`loralet.hub.client.fetch`.
    """
    folder = bundled(name) or Path(name)
    if folder.is_dir():
        return folder
    near = suggestion(name)
    if not hub.is_hub_id(name):
        raise CheckpointError(f"model {name!r}: no such folder, and the name is not a hub id (owner/name){near}")
    try:
        return hub.fetch(name, _wanted)
    except HubError as error:
        if not near:
            raise
        raise HubError(f"{error}{near}") from error


def _wanted(names: Sequence[str]) -> list[str]:
    weights = [name for name in WEIGHT_FILES if name in names][:1]
    return [name for name in ("config.json", *TOKENIZER_FILES) if name in names] + weights


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: not a model folder, because config.json is missing") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return config


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint by their stored names.

    Raises:
        CheckpointError: there is no weight file, or it cannot be read.
    """
    for name in WEIGHT_FILES:
        path = folder / name
        if not path.exists():
            continue
        try:
            return {_modern(key): value for key, value in read_tensors(path).items()}
        except TypeError as error:
            raise CheckpointError(f"{path}: {error}") from error
        except ValueError as error:
            raise CheckpointError(
                f"{path}: cannot be read as weights ({error}); the download may be incomplete, "
                "or the file contains pickled code, which is never executed"
            ) from error
    found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise CheckpointError(f"{folder}: no weights; expected {' or '.join(WEIGHT_FILES)}, found {found}")


def _modern(name: str) -> str:
    """Rename the LayerNorm tensors of checkpoints converted before 2019, which are called gamma and beta."""
    if "LayerNorm" in name:
        return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return name


def _model_type(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> str:
    """The model type of the config, or, if it has none (prajjwal1/bert-tiny), of the tensors' prefix, else ``bert``."""
    given = config.get("model_type")
    if given is None:
        prefixed = [kind for kind, f in FAMILIES.items() if any(name.startswith(f.prefix) for name in tensors)]
        given = prefixed[0] if prefixed else "bert"
    if not isinstance(given, str) or given not in FAMILIES:
        raise CheckpointError(f"{folder}: model type {given!r} is not supported; supported: {', '.join(FAMILIES)}")
    return given


def _canonical(
    folder: Path, family: Family, table: EncoderTable, tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    expected = table.tensors()
    if any(name.removeprefix(family.prefix).startswith(f"{family.pooler}.") for name in tensors):
        expected |= family.pooling.tensors(table.width)
    weights: dict[str, np.ndarray] = {}
    problems: list[str] = []
    for name, size in expected.items():
        stored = family.tensor(name)
        tensor = tensors.get(family.prefix + stored, tensors.get(stored))
        if tensor is None:
            problems.append(f"{stored} is missing")
        elif tuple(tensor.shape) != size:
            problems.append(f"{stored} has shape {list(tensor.shape)}, expected {list(size)}")
        else:
            weights[name] = np.ascontiguousarray(tensor, np.float32)
    if problems:
        shown = "\n".join(f"  - {problem}" for problem in problems[:20])
        more = f"\n  ... and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise CheckpointError(f"{folder}: the weights do not match this {family.model_type} config:\n{shown}{more}")
    return weights


def fingerprint_of(arrays: Mapping[str, np.ndarray]) -> str:
    """Hash of the names, shapes and fp32 values of all tensors. It does not depend on file format or model name."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], np.float32)
        digest.update(f"{name}{list(array.shape)}".encode())
        digest.update(array.data)
    return digest.hexdigest()
