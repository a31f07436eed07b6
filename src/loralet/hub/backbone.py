"""Load a checkpoint from disk or from the hub as a frozen encoder."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from loralet.errors import CheckpointError
from loralet.hub import client as hub
from loralet.hub.bundled import bundled
from loralet.hub.tokenizer import TOKENIZER_FILES, load_tokenizer
from loralet.models.families import FAMILIES
from loralet.models.family import Family
from loralet.models.forward import ACTIVATIONS, Weights
from loralet.models.table import EncoderTable

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""In order of preference; only the first file found is read."""


@dataclass(frozen=True)
class Backbone:
    """A frozen encoder with its tokenizer.

    Args:
        name: the hub id or folder, as given by the user.
        family: its model family.
        table: its layer table.
        weights: canonical tensors in fp32; ``pooler.*`` only if the checkpoint has a pooler.
        tokenizer: without truncation or padding.
        fingerprint: hash of all tensors (:func:`fingerprint_of`).
        config: the content of the checkpoint's config.json.
    """

    name: str
    family: Family
    table: EncoderTable
    weights: Weights
    tokenizer: Tokenizer
    fingerprint: str
    config: dict[str, object]

    @property
    def has_pooler(self) -> bool:
        return "pooler.weight" in self.weights

    @property
    def parameters(self) -> int:
        """Number of parameters, pooler included."""
        return sum(tensor.numel() for tensor in self.weights.values())


def load_backbone(name: str) -> Backbone:
    """Load a BERT-family encoder.

    Args:
        name: a folder with config.json, weights (model.safetensors or pytorch_model.bin) and a vocabulary, or a hub id.

    Raises:
        CheckpointError: a file, tensor or size is missing or does not fit; the message lists every problem found.
        HubError: a hub id that is neither reachable nor cached.
    """
    folder = find_checkpoint(name)
    config = _read_config(folder)
    tensors = _read_tensors(folder)
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
    if table.activation not in ACTIVATIONS:
        raise CheckpointError(
            f"{folder / 'config.json'}: activation {table.activation!r} is not one of {', '.join(ACTIVATIONS)}"
        )
    weights = _canonical(folder, family, table, tensors)
    tokenizer = load_tokenizer(folder, table.vocabulary, family.tokens)
    return Backbone(name, family, table, weights, tokenizer, fingerprint_of(weights), config)


def read_head(backbone: Backbone) -> dict[str, Tensor]:
    """The checkpoint's tensors above the encoder, by slot name.

    These are ``classifier.*``, and ``pooler.*`` if the pooler is part of the classification head.
    """
    tensors, head = _read_tensors(find_checkpoint(backbone.name)), backbone.family.head
    wanted = {
        theirs: ours for theirs, ours in head.tensors().items() if not head.in_encoder or ours.startswith("classifier")
    }
    return {ours: tensors[theirs].float() for theirs, ours in wanted.items() if theirs in tensors}


def find_checkpoint(name: str) -> Path:
    """The folder of a backbone: a local folder, the bundled one, or files downloaded from the hub.

    Raises:
        CheckpointError: neither an existing folder nor a valid hub id.
        HubError: see :func:`loralet.hub.client.fetch`.
    """
    folder = bundled(name) or Path(name)
    if folder.is_dir():
        return folder
    if not hub.is_hub_id(name):
        raise CheckpointError(f"model {name!r}: no such folder, and the name is not a hub id (owner/name)")
    return hub.fetch(name, _wanted)


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


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    for name in WEIGHT_FILES:
        path = folder / name
        if not path.exists():
            continue
        try:
            tensors = (
                load_file(path)
                if path.suffix == ".safetensors"
                else torch.load(path, map_location="cpu", weights_only=True)
            )
        except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(
                f"{path}: cannot be read as weights ({reason}); the download may be incomplete, "
                "or the file contains pickled code, which is never executed"
            ) from error
        if not isinstance(tensors, Mapping):
            raise CheckpointError(f"{path}: contains a {type(tensors).__name__}, not a mapping of names to tensors")
        return {_modern(key): value for key, value in tensors.items() if isinstance(value, Tensor)}
    found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise CheckpointError(f"{folder}: no weights; expected {' or '.join(WEIGHT_FILES)}, found {found}")


def _modern(name: str) -> str:
    """Rename the LayerNorm tensors of checkpoints converted before 2019, which are called gamma and beta."""
    if "LayerNorm" in name:
        return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return name


def _model_type(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """The model type of the config, or, if it has none (prajjwal1/bert-tiny), of the tensors' prefix, else ``bert``."""
    given = config.get("model_type")
    if given is None:
        prefixed = [kind for kind, f in FAMILIES.items() if any(name.startswith(f.prefix) for name in tensors)]
        given = prefixed[0] if prefixed else "bert"
    if not isinstance(given, str) or given not in FAMILIES:
        raise CheckpointError(f"{folder}: model type {given!r} is not supported; supported: {', '.join(FAMILIES)}")
    return given


def _canonical(folder: Path, family: Family, table: EncoderTable, tensors: Mapping[str, Tensor]) -> Weights:
    expected = table.tensors()
    if any(name.removeprefix(family.prefix).startswith(f"{family.pooler}.") for name in tensors):
        expected |= family.pooling.tensors(table.width)
    weights: Weights = {}
    problems: list[str] = []
    for name, size in expected.items():
        stored = family.tensor(name)
        tensor = tensors.get(family.prefix + stored, tensors.get(stored))
        if tensor is None:
            problems.append(f"{stored} is missing")
        elif tuple(tensor.shape) != size:
            problems.append(f"{stored} has shape {list(tensor.shape)}, expected {list(size)}")
        else:
            weights[name] = tensor.float().contiguous()
    if problems:
        shown = "\n".join(f"  - {problem}" for problem in problems[:20])
        more = f"\n  ... and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise CheckpointError(f"{folder}: the weights do not match this {family.model_type} config:\n{shown}{more}")
    return weights


def fingerprint_of(weights: Weights) -> str:
    """Hash of the names, shapes and fp32 values of all tensors. It does not depend on file format or model name."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].float().contiguous()
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
