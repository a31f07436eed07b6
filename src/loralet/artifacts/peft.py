"""Adapters that PEFT itself trained, read as one of our artifacts.

PEFT (``LoraConfig``) lets rank and alpha differ from module to module; our stacks have one rank and one scale an adapter. So each
module's scale is multiplied into its B, and A and B are filled up with zeros to the largest rank: the same numbers, one path.
"""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from loralet.artifacts.folder import PEFT_PREFIX, Artifact
from loralet.config import TARGETS
from loralet.errors import RunError
from loralet.hub.backbone import Backbone, load_backbone, read_head
from loralet.models.families import HEADS, head_names

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
CLASSIFIER, POOLER = {"classifier.weight", "classifier.bias"}, {"pooler.weight", "pooler.bias"}
"""Slots of the two parts of a head. BERT's pooler is the base's own; the other types' stands in the classification head."""
BASE_AS_IT_IS = (True, False, "gaussian", "eva", "orthogonal")
"""Values of ``init_lora_weights`` that leave the base's own weights alone."""
UNSUPPORTED = {
    "use_dora": "DoRA",
    "lora_bias": "a bias on B",
    "use_qalora": "QALoRA",
    "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "replicated layers",
    "trainable_token_indices": "trained token embeddings",
    "target_parameters": "adapters on parameters instead of linear maps",
    "arrow_config": "Arrow routing",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "kasa_config": "KaSA",
    "use_bdlora": "block-diagonal LoRA",
}
"""Keys of adapter_config.json which, when set, change the arithmetic to something that we do not compute."""


def is_peft_folder(folder: Path) -> bool:
    """Whether PEFT wrote this folder, and we did not."""
    return (folder / CONFIG).exists() and not (folder / "loralet.json").exists()


def load_peft(folder: Path, labels: Sequence[str] = (), backbone: str = "") -> tuple[Artifact, Backbone]:
    """An adapter that PEFT trained, and its backbone.

    Args:
        folder: holds adapter_config.json and adapter_model.safetensors (or .bin).
        labels: label names in the order of the logits; from the base's config (``id2label``), else LABEL_0, LABEL_1, ..., when empty.
        backbone: the base model; what the adapter's config names when empty. PEFT notes no fingerprint, so nothing can be compared.

    Raises:
        RunError: the files are missing or broken, or the adapter does what we do not compute; every reason is listed.
        CheckpointError, HubError: the base cannot be loaded.
    """
    config = _read_config(folder)
    problems = list(_refusals(config))
    name = backbone or str(config.get("base_model_name_or_path") or "")
    if not name:
        problems.append("it names no base model; give one with --backbone")
    if problems:
        raise _error(folder, problems)
    base = load_backbone(name)
    parts = _Parts()
    for key, tensor in _read_tensors(folder).items():
        parts.sort(key, tensor.float(), base)
    return _assemble(folder, config, base, parts, labels), base


@dataclass
class _Parts:
    """The tensors of the file by what they are. ``modules`` has A and B by the module's name as PEFT's patterns see it."""

    modules: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    head: dict[str, Tensor] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)

    def sort(self, key: str, tensor: Tensor, base: Backbone) -> None:
        name = re.sub(r"\.(modules_to_save\.)?default\b|\.modules_to_save\b", "", key.removeprefix(PEFT_PREFIX))
        found = re.fullmatch(r"(.+)\.lora_([AB])\.weight", name)
        bare, kind = name.removeprefix(base.architecture.prefix), base.architecture.model_type
        if found:
            self.modules.setdefault(found[1], {})[found[2]] = tensor
        elif slot := head_names(kind).get(name) or head_names(kind).get(f"{base.architecture.prefix}{bare}"):
            self.head[slot] = tensor
        else:
            self.strange.append(name)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{folder / CONFIG}: not valid JSON ({error})") from error
    if not isinstance(config, dict):
        raise RunError(f"{folder / CONFIG}: a PEFT configuration is a JSON object")
    return config


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if path is None:
        raise RunError(f"{folder}: {CONFIG} has no weights beside it; wanted {' or '.join(WEIGHTS)}")
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


def _refusals(config: Mapping[str, Any]) -> Iterator[str]:
    """Why an adapter of this configuration cannot be computed here, in words."""
    kind = config.get("peft_type")
    if kind != "LORA":
        yield f"its peft_type is {kind}; loralet computes LORA"
        return
    if config.get("task_type") not in ("SEQ_CLS", None):
        yield f"its task_type is {config['task_type']}; loralet classifies whole texts (SEQ_CLS)"
    if config.get("bias", "none") != "none":
        yield f"it trained biases (bias {config['bias']!r}); loralet reads adapters with bias 'none'"
    yield from (f"it uses {what} ({key})" for key, what in UNSUPPORTED.items() if config.get(key))
    start = config.get("init_lora_weights", True)
    if start not in BASE_AS_IT_IS:
        yield f"it was begun with init_lora_weights {start!r}, which changes the base's weights; convert it to plain LoRA with PEFT first"
    if config.get("revision") not in (None, "main"):
        yield f"it was trained on revision {config['revision']} of its base; download that revision and name its folder with --backbone"


def _assemble(
    folder: Path, config: Mapping[str, Any], base: Backbone, parts: _Parts, labels: Sequence[str]
) -> Artifact:
    kind = base.architecture.model_type
    wanted = CLASSIFIER if kind == "bert" else CLASSIFIER | POOLER
    head = parts.head if wanted <= set(parts.head) else read_head(base) | parts.head
    problems = [
        f"it trains {name}, which is not one of the encoder's linear maps nor the classifier"
        for name in parts.strange[:5]
    ]
    problems += _head_problems(head, base)
    slots: dict[str, Tensor] = {}
    deltas: dict[str, Tensor] = {}
    for module, pair in parts.modules.items():
        if set(pair) != {"A", "B"}:
            problems.append(f"{module} has only half of its adapter")
            continue
        scaled = pair["B"] * _scale(config, module, pair["A"].shape[0])
        bare = module.removeprefix(base.architecture.prefix)
        try:
            linear = base.architecture.linear(bare)
        except KeyError:
            if HEADS[kind].pooler in (module, f"{base.architecture.prefix}{bare}"):
                deltas["pooler.weight"] = scaled @ pair["A"]
            else:
                problems.append(f"it adapts {module}, which is not one of the encoder's linear maps")
            continue
        slots |= {f"{linear}.A": pair["A"], f"{linear}.B": scaled}
    problems += _size_problems(slots, base)
    if problems:
        raise _error(folder, problems)
    for name, delta in deltas.items():
        head = {slot: base.weights[slot] for slot in POOLER if slot in base.weights} | head
        head[name] = head[name] + delta
    return _artifact(folder, config, base, slots, head, labels)


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r), with the alpha of the first pattern that matches the end of the module's name."""
    patterns = config.get("alpha_pattern") or {}
    own = next(
        (alpha for key, alpha in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), config.get("lora_alpha", 8)
    )
    return float(own) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _head_problems(head: Mapping[str, Tensor], base: Backbone) -> list[str]:
    kind = base.architecture.model_type
    if not set(head) >= CLASSIFIER:
        return ["it has no classifier, and neither has its base; save it with modules_to_save=['classifier']"]
    if kind != "bert" and not set(head) >= POOLER:
        return [
            f"it has no {HEADS[kind].pooler}, and neither has its base; save it with modules_to_save=['{HEADS[kind].pooler}', 'classifier']"
        ]
    if "pooler.weight" not in head and not base.has_pooler:
        return ["its base has no pooler, and the adapter saves none; add 'pooler' to modules_to_save"]
    if head["classifier.weight"].shape[1] != base.shape.width:
        return [f"its classifier reads {head['classifier.weight'].shape[1]} features, the base has {base.shape.width}"]
    if head["classifier.weight"].shape[0] < 2:
        return ["its classifier has one output, which is a regression"]
    return []


def _size_problems(slots: Mapping[str, Tensor], base: Backbone) -> Iterator[str]:
    for name, tensor in slots.items():
        linear, _, matrix = name.rpartition(".")
        _, number, target = linear.split(".")
        d_in, d_out = base.shape.linear_sizes(target)
        found, wanted = (tensor.shape[1], d_in) if matrix == "A" else (tensor.shape[0], d_out)
        if found != wanted or int(number) >= base.shape.layers:
            yield f"{linear}: {matrix} is {list(tensor.shape)}, which does not fit the base ({base.shape.layers} layers, {wanted} features)"


def _artifact(
    folder: Path,
    config: Mapping[str, Any],
    base: Backbone,
    slots: dict[str, Tensor],
    head: dict[str, Tensor],
    labels: Sequence[str],
) -> Artifact:
    adapted = {name.split(".")[2] for name in slots}
    rank = max((tensor.shape[0] for name, tensor in slots.items() if name.endswith(".A")), default=0)
    targets = tuple(target for target in TARGETS if target in adapted)
    return Artifact(
        id=folder.resolve().name,
        role="lora" if rank else "linear-probe",
        labels=_labels(folder, base, head["classifier.weight"].shape[0], labels),
        head="trained-pooler" if "pooler.weight" in head else "pooler",
        max_length=_max_length(folder, base),
        rank=rank,
        alpha=float(max(rank, 1)),
        dropout=float(config.get("lora_dropout", 0.0)),
        targets=targets,
        scaling="alpha/r",
        backbone=base.name,
        backbone_fingerprint=base.fingerprint,
        architecture=base.architecture.model_type,
        data_fingerprint="",
        head_activation=HEADS[base.architecture.model_type].activation,
        tensors=_filled(slots, base, targets, rank) | head,
    )


def _filled(slots: Mapping[str, Tensor], base: Backbone, targets: Sequence[str], rank: int) -> dict[str, Tensor]:
    """A and B of every layer's targets at one rank, with zeros where the adapter has less."""
    filled: dict[str, Tensor] = {}
    for linear, target in ((f"layers.{i}.{target}", target) for i in range(base.shape.layers) for target in targets):
        d_in, d_out = base.shape.linear_sizes(target)
        for name, shape in ((f"{linear}.A", (rank, d_in)), (f"{linear}.B", (d_out, rank))):
            filled[name] = torch.zeros(shape)
            if name in slots:
                own = slots[name]
                filled[name][: own.shape[0], : own.shape[1]] = own
    return filled


def _labels(folder: Path, base: Backbone, classes: int, given: Sequence[str]) -> tuple[str, ...]:
    if given:
        if len(given) != classes:
            raise RunError(
                f"{folder}: {len(given)} label names are given ({', '.join(given)}), the classifier has {classes} classes"
            )
        return tuple(given)
    names = base.config.get("id2label")
    if isinstance(names, dict) and set(names) == {str(i) for i in range(classes)}:
        return tuple(str(names[str(i)]) for i in range(classes))
    return tuple(f"LABEL_{i}" for i in range(classes))


def _max_length(folder: Path, base: Backbone) -> int:
    """What a tokenizer_config.json beside the adapter says, where it says less than the position table holds."""
    try:
        told = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["model_max_length"]
        return int(min(told, base.shape.longest))
    except (OSError, ValueError, KeyError, TypeError):
        return base.shape.longest


def _error(folder: Path, problems: Sequence[str]) -> RunError:
    return RunError(
        "\n".join([f"{folder}: this PEFT adapter cannot be loaded:", *(f"  - {problem}" for problem in problems)])
    )
