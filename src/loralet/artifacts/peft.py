"""Conversion of PEFT adapters to artifacts.

In PEFT (``LoraConfig``), rank and alpha may differ between modules; a pack has one rank and one scale per adapter. So
each module's scale is multiplied into its B, and its tensors are padded with zeros to the largest rank. The function
computed is the same.
"""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from loralet.adapters.base import AdapterMethod
from loralet.adapters.layout import corner
from loralet.adapters.registry import METHODS
from loralet.adapters.spec import AdapterSpec
from loralet.artifacts.artifact import Artifact
from loralet.artifacts.reading import CONFIG, PEFT_PREFIX
from loralet.errors import RunError
from loralet.hub.backbone import Backbone, load_backbone, read_head

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
CLASSIFIER = {"classifier.weight", "classifier.bias"}
BASE_AS_IT_IS = (True, False, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that do not change the base's weights."""
UNSUPPORTED = {
    "lora_bias": "a bias on B",
    "use_qalora": "QALoRA",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "replicated layers",
    "trainable_token_indices": "trained token embeddings",
    "target_parameters": "adapters on parameters instead of linear layers",
    "arrow_config": "Arrow routing",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "kasa_config": "KaSA",
    "use_bdlora": "block-diagonal LoRA",
}
"""Keys of adapter_config.json for variants that no adapter method supports."""


def load_peft(folder: Path, labels: Sequence[str] = (), backbone: str = "") -> tuple[Artifact, Backbone]:
    """Load a PEFT adapter and its backbone.

    Args:
        folder: folder with adapter_config.json and adapter_model.safetensors (or .bin).
        labels: label names in the order of the logits; if empty, from the base's config (``id2label``), else LABEL_0,
            LABEL_1, ...
        backbone: the base model; as named in the adapter's config if empty. PEFT records no fingerprint, so the base is
            not verified.

    Raises:
        RunError: the files are missing or broken, or the adapter is not supported; all reasons are listed.
        CheckpointError, HubError: the base cannot be loaded.
    """
    config = _read_config(folder)
    problems = list(_refusals(config))
    name = backbone or str(config.get("base_model_name_or_path") or "")
    if not name:
        problems.append("base_model_name_or_path is empty; give the base model with --backbone")
    if problems:
        raise _error(folder, problems)
    base = load_backbone(name)
    parts = _Parts(method_of(config))
    for key, tensor in _read_tensors(folder).items():
        parts.sort(key, tensor.float(), base)
    return _assemble(folder, config, base, parts, labels), base


def method_of(config: Mapping[str, object]) -> AdapterMethod:
    """The adapter method of a PEFT configuration: the most specific method whose entries all match."""
    fitting = [
        m for m in METHODS.values() if all(config.get(key) == value for key, value in m.format.peft_config.items())
    ]
    return max(fitting, key=lambda method: len(method.format.peft_config))


@dataclass
class _Parts:
    """The tensors of the file, sorted by kind.

    Args:
        method: the adapter method.
        modules: tensors of the adapter, by PEFT's module path and by the method's names.
        head: tensors of the head, by slot name.
        strange: names of all other tensors.
    """

    method: AdapterMethod
    modules: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    head: dict[str, Tensor] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)

    def sort(self, key: str, tensor: Tensor, base: Backbone) -> None:
        """Add a tensor of the file."""
        name = re.sub(r"\.(modules_to_save\.)?default\b|\.modules_to_save\b", "", key.removeprefix(PEFT_PREFIX))
        slots = base.family.head.tensors()
        prefixed = base.family.prefix + name.removeprefix(base.family.prefix)
        for part, theirs in self.method.format.peft_names.items():
            if name.endswith(f".{theirs}"):
                self.modules.setdefault(name.removesuffix(f".{theirs}"), {})[part] = tensor
                return
        if slot := slots.get(name) or slots.get(prefixed):
            self.head[slot] = tensor
        else:
            self.strange.append(name)


def _read_config(folder: Path) -> dict[str, object]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{folder / CONFIG}: not valid JSON ({error})") from error
    if not isinstance(config, dict):
        raise RunError(f"{folder / CONFIG}: a PEFT configuration must be a JSON object")
    return config


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if path is None:
        raise RunError(f"{folder}: no weights found; expected {' or '.join(WEIGHTS)} next to {CONFIG}")
    try:
        return (
            load_file(path)
            if path.suffix == ".safetensors"
            else dict(torch.load(path, map_location="cpu", weights_only=True))
        )
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError) as error:
        raise RunError(
            f"{path}: cannot be read as weights ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error


def _refusals(config: Mapping[str, object]) -> Iterator[str]:
    """Reasons why a configuration is not supported."""
    kind = config.get("peft_type")
    if kind != "LORA":
        yield f"peft_type is {kind}; only LORA is supported"
        return
    if config.get("task_type") not in ("SEQ_CLS", None):
        yield f"task_type is {config['task_type']}; only SEQ_CLS is supported"
    if config.get("bias", "none") != "none":
        yield f"bias is {config['bias']!r}; only 'none' is supported"
    yield from (f"{key}: {what} is not supported" for key, what in UNSUPPORTED.items() if config.get(key))
    start = config.get("init_lora_weights", True)
    if start not in BASE_AS_IT_IS:
        yield (
            f"init_lora_weights is {start!r}, which changes the base's weights; "
            "convert the adapter to plain LoRA with PEFT first"
        )
    if config.get("revision") not in (None, "main"):
        yield (
            f"revision is {config['revision']}; download that revision of the base model "
            "and give its folder with --backbone"
        )


def _assemble(
    folder: Path, config: Mapping[str, object], base: Backbone, parts: _Parts, labels: Sequence[str]
) -> Artifact:
    names = base.family.head
    pooler = set(names.pooling.tensors(base.table.width))
    wanted = CLASSIFIER if names.in_encoder else CLASSIFIER | pooler
    head = parts.head if wanted <= set(parts.head) else read_head(base) | parts.head
    problems = [
        f"{name} is neither an adapted linear layer of the encoder nor part of the classifier"
        for name in parts.strange[:5]
    ]
    problems += _head_problems(head, base, pooler)
    problems += [
        f"the classifier of its base has {key} {base.config[key]!r}; loralet computes {value!r}"
        for key, value in base.family.hf_config.items()
        if base.config.get(key, value) != value
    ]
    adapters: dict[str, Mapping[str, Tensor]] = {}
    on_pooler: dict[str, Tensor] | None = None
    for module, own in parts.modules.items():
        if set(own) != set(parts.method.format.peft_names):
            problems.append(f"{module} has only some of the adapter's tensors ({', '.join(sorted(own))})")
            continue
        own = parts.method.scaled(own, _scale(config, module, parts.method.rank(own)))
        bare = module.removeprefix(base.family.prefix)
        try:
            linear = base.family.linear(bare)
        except KeyError:
            if names.pooler in (module, f"{base.family.prefix}{bare}"):
                on_pooler = own
            else:
                problems.append(f"{module} is not a linear layer of the encoder")
            continue
        adapters[linear] = own
    problems += _size_problems(adapters, base, parts.method)
    if problems:
        raise _error(folder, problems)
    if on_pooler is not None:
        head = {slot: base.weights[slot] for slot in pooler if slot in base.weights} | head
        head["pooler.weight"] = parts.method.merge(head["pooler.weight"], on_pooler, 1.0)
    return _artifact(folder, config, base, parts.method, adapters, head, labels)


def _scale(config: Mapping[str, object], module: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r), with alpha from the first pattern that matches the end of the module's name."""
    patterns = config.get("alpha_pattern")
    found = config.get("lora_alpha", 8)
    for key, alpha in (patterns if isinstance(patterns, dict) else {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            found = alpha
            break
    return float(str(found)) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _head_problems(head: Mapping[str, Tensor], base: Backbone, pooler: set[str]) -> list[str]:
    names = base.family.head
    if not set(head) >= CLASSIFIER:
        return ["adapter and base have no classifier; save it with modules_to_save=['classifier']"]
    if not names.in_encoder and not set(head) >= pooler:
        return [
            f"adapter and base have no {names.pooler}; save it with modules_to_save=['{names.pooler}', 'classifier']"
        ]
    if "pooler.weight" not in head and not base.has_pooler:
        return ["adapter and base have no pooler; add 'pooler' to modules_to_save"]
    if head["classifier.weight"].shape[1] != base.table.width:
        return [
            f"the classifier has {head['classifier.weight'].shape[1]} inputs, but the base has width {base.table.width}"
        ]
    if head["classifier.weight"].shape[0] < 2:
        return ["the classifier has one output: regression is not supported"]
    return []


def _size_problems(
    adapters: Mapping[str, Mapping[str, Tensor]], base: Backbone, method: AdapterMethod
) -> Iterator[str]:
    for linear, own in adapters.items():
        wanted = method.format.shapes(base.table.linear(linear), method.rank(own))
        for part, tensor in own.items():
            if tuple(tensor.shape) != wanted[part] or int(linear.split(".")[1]) >= base.table.layers:
                yield (
                    f"{linear}: {part} has shape {list(tensor.shape)}, which does not fit the base "
                    f"({base.table.layers} layers, {list(wanted[part])} expected)"
                )


def _artifact(
    folder: Path,
    config: Mapping[str, object],
    base: Backbone,
    method: AdapterMethod,
    adapters: Mapping[str, Mapping[str, Tensor]],
    head: dict[str, Tensor],
    labels: Sequence[str],
) -> Artifact:
    adapted = {linear.split(".")[2] for linear in adapters}
    rank = max(map(method.rank, adapters.values()), default=0)
    targets = tuple(target for target in base.table.targets if target in adapted)
    dropout = float(str(config.get("lora_dropout", 0.0)))
    return Artifact(
        id=folder.resolve().name,
        role="lora" if rank else "linear-probe",
        labels=_labels(folder, base, head["classifier.weight"].shape[0], labels),
        adapter=AdapterSpec(method.name, rank, float(max(rank, 1)), dropout, targets, "alpha/r"),
        head="trained-pooler" if "pooler.weight" in head else "pooler",
        max_length=_max_length(folder, base),
        backbone=base.name,
        backbone_fingerprint=base.fingerprint,
        architecture=base.family.model_type,
        data_fingerprint="",
        tensors=_filled(adapters, base, targets, method, rank) | head,
        pooling=base.family.head.pooling,
    )


def _filled(
    adapters: Mapping[str, Mapping[str, Tensor]],
    base: Backbone,
    targets: Sequence[str],
    method: AdapterMethod,
    rank: int,
) -> dict[str, Tensor]:
    """Tensors of all targets of all layers, padded with zeros to one rank; neutral for layers without an adapter."""
    filled: dict[str, Tensor] = {}
    for linear in (f"layers.{i}.{target}" for i in range(base.table.layers) for target in targets):
        shapes = method.format.shapes(base.table.linear(linear), rank)
        tensors = {part: torch.zeros(shape) for part, shape in shapes.items()}
        if linear not in adapters:
            method.neutral(tensors, base.weights[f"{linear}.weight"])
        for part, own in adapters.get(linear, {}).items():
            tensors[part][corner(tuple(own.shape))] = own
        filled |= {f"{linear}.{part}": tensor for part, tensor in tensors.items()}
    return filled


def _labels(folder: Path, base: Backbone, classes: int, given: Sequence[str]) -> tuple[str, ...]:
    if given:
        if len(given) != classes:
            raise RunError(
                f"{folder}: {len(given)} label names are given ({', '.join(given)}), "
                f"but the classifier has {classes} classes"
            )
        return tuple(given)
    names = base.config.get("id2label")
    if isinstance(names, dict) and set(names) == {str(i) for i in range(classes)}:
        return tuple(str(names[str(i)]) for i in range(classes))
    return tuple(f"LABEL_{i}" for i in range(classes))


def _max_length(folder: Path, base: Backbone) -> int:
    """The maximum length from the adapter's tokenizer_config.json, limited by the position table."""
    try:
        length = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["model_max_length"]
        return int(min(length, base.table.longest))
    except (OSError, ValueError, KeyError, TypeError):
        return base.table.longest


def _error(folder: Path, problems: Sequence[str]) -> RunError:
    return RunError(
        "\n".join([f"{folder}: this PEFT adapter cannot be loaded:", *(f"  - {problem}" for problem in problems)])
    )
