"""Read a checkpoint from disk or from the hub, without torch."""

from __future__ import annotations

import hashlib
import re
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
from loralet.hub.names import commit_of, is_hub_id
from loralet.hub.sentence_pooling import FILE as POOLING
from loralet.hub.sentence_pooling import pools_mean
from loralet.hub.tensors import lfs_advice, number_problems, read_tensors
from loralet.hub.tokenizer import TOKENIZER_FILES, load_tokenizer
from loralet.models.families import FAMILIES
from loralet.models.family import Family
from loralet.models.table import ACTIVATION_NAMES, EncoderTable
from loralet.records import read_json, require_files

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""In order of preference; only the first file found is read."""
MORE_LAYERS = 48
"""Up to so many missing layers, the missing tensors are listed."""
INDEX = ".index.json"
"""Suffix of the file that names the shards of a large checkpoint."""
SHARD = re.compile(r"[\w-][\w.-]*\.(safetensors|bin)")
"""Names of shards: files in the folder of the index."""


@dataclass(frozen=True)
class Checkpoint:
    """A frozen encoder with its tokenizer; fields as for :class:`loralet.hub.backbone.Backbone`.

    Args:
        arrays: canonical tensors in fp32; ``pooler.*`` only if the checkpoint has a pooler.
        own_tokenizer: whether the tokenizer is that of an adapter, and has other tokens than the checkpoint's.
        commit: commit of a backbone from a hub; empty for a folder.
        pools_mean: whether the encoder was trained for the mean over its tokens.
    """

    name: str
    family: Family
    table: EncoderTable
    arrays: Mapping[str, np.ndarray]
    tokenizer: Tokenizer
    fingerprint: str
    config: dict[str, object]
    own_tokenizer: bool = False
    commit: str = ""
    pools_mean: bool = False


def read_checkpoint(name: str) -> Checkpoint:
    """Read a BERT-family encoder.

    Args:
        name: a folder with config.json, weights (model.safetensors or pytorch_model.bin) and a vocabulary; a hub id,
            with or without a revision (:mod:`loralet.hub.names`); or a short name (:mod:`loralet.hub.models`), which is
            replaced by its hub id.

    Raises:
        CheckpointError: a file, tensor or size is missing or does not fit; the message lists every problem found.
        HubError: a hub id that is neither reachable nor cached.
    """
    name = resolve_model(name)
    folder = find_checkpoint(name)
    require_files(folder, CheckpointError)
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
    facts = (tokenizer, fingerprint_of(arrays), config)
    return Checkpoint(name, family, table, arrays, *facts, commit=commit_of(folder), pools_mean=pools_mean(folder))


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
    if not is_hub_id(name):
        raise CheckpointError(
            f"model {name!r}: no such folder, and the name is not a hub id (owner/name or owner/name@revision){near}"
        )
    try:
        return hub.fetch(name, checkpoint_files)
    except HubError as error:
        if not near:
            raise
        raise HubError(f"{error}{near}") from error


def checkpoint_files(names: Sequence[str]) -> list[str]:
    """The files of a checkpoint among the names of all files of a repository."""
    whole = [[name] for name in WEIGHT_FILES if name in names]
    shards = [_shards(name, names) for name in WEIGHT_FILES if f"{name}{INDEX}" in names]
    weights = next(iter(whole + shards), [])
    return [name for name in ("config.json", *TOKENIZER_FILES, POOLING) if name in names] + weights


def _shards(name: str, names: Sequence[str]) -> list[str]:
    """The index and the shards of a weight file (``model-00001-of-00002.safetensors``) among the names of all files."""
    stem, _, suffix = name.rpartition(".")
    shard = re.compile(rf"{re.escape(stem)}-\d+-of-\d+\.{suffix}")
    return [f"{name}{INDEX}", *(other for other in names if shard.fullmatch(other))]


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = read_json(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: not a model folder, because config.json is missing") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({lfs_advice(path) or error})") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return config


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint by their stored names, from one file or from the shards of an index.

    Raises:
        CheckpointError: there is no weight file, or it cannot be read.
    """
    for name in WEIGHT_FILES:
        if (folder / name).exists():
            return _read_file(folder / name)
        if (folder / f"{name}{INDEX}").exists():
            return _read_shards(folder / f"{name}{INDEX}")
    found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise CheckpointError(f"{folder}: no weights; expected {' or '.join(WEIGHT_FILES)}, found {found}")


def _read_file(path: Path) -> dict[str, np.ndarray]:
    try:
        return {_modern(key): value for key, value in read_tensors(path).items()}
    except ValueError as error:
        raise CheckpointError(f"{path}: cannot be read as weights ({error})") from error


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    """The tensors of all files that an index names; each must have the tensors that the index says.

    Raises:
        CheckpointError: the index is not valid, names a file outside its folder, or a file is missing or incomplete.
    """
    try:
        raw = read_json(index)
    except ValueError as error:
        raise CheckpointError(f"{index}: {error}") from error
    places = raw.get("weight_map") if isinstance(raw, dict) else None
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index}: weight_map, an object with the file of each tensor, is missing")
    names = sorted({str(name) for name in places.values()})
    if strange := [name for name in names if not SHARD.fullmatch(name)]:
        raise CheckpointError(f"{index}: {strange[0]!r} is not the name of a weight file in this folder")
    tensors: dict[str, np.ndarray] = {}
    for name in names:
        if not (index.parent / name).exists():
            raise CheckpointError(f"{index}: {name} is missing from the folder; download it too")
        found = _read_file(index.parent / name)
        if absent := [key for key, place in places.items() if place == name and _modern(key) not in found]:
            raise CheckpointError(f"{index.parent / name}: {absent[0]} is missing, but {index.name} says it is here")
        tensors |= found
    return tensors


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


def _require_layers(folder: Path, family: Family, table: EncoderTable, tensors: Mapping[str, np.ndarray]) -> None:
    """Check the number of layers first, as the names of the expected tensors take memory for each layer.

    Raises:
        CheckpointError: the config has many more layers than the tensors.
    """
    layer = re.compile(re.escape(family.layer).replace(r"\{\}", r"(\d{1,9})") + r"\.")
    found = {
        int(match[1]) for match in map(layer.match, (name.removeprefix(family.prefix) for name in tensors)) if match
    }
    if table.layers > 2 * len(found) + MORE_LAYERS:
        raise CheckpointError(
            f"{folder / 'config.json'}: {table.layers} layers, but the weights have {len(found)}; use the config of "
            "these weights"
        )


def _canonical(
    folder: Path, family: Family, table: EncoderTable, tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    _require_layers(folder, family, table, tensors)
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
        elif not np.issubdtype(tensor.dtype, np.floating):
            problems.append(f"{stored} has the type {tensor.dtype}; floating-point numbers are expected")
        else:
            with np.errstate(over="ignore"):  # a number beyond fp32 becomes infinite, which is reported
                weights[name] = np.ascontiguousarray(tensor, np.float32)
            problems += number_problems({stored: weights[name]})
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
