"""Conversion of PEFT adapters to artifacts.

In PEFT (``LoraConfig``), rank and alpha may differ between modules; a pack has one rank and one scale per adapter. If
they differ, each module's scale is multiplied into its B, and its tensors are padded with zeros to the largest rank.
The function computed is the same.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from loralet.adapters.base import AdapterMethod
from loralet.adapters.layout import corner
from loralet.adapters.spec import AdapterSpec
from loralet.artifacts.artifact import Artifact
from loralet.artifacts.checking import AGAIN
from loralet.artifacts.foreign import head_config_problems, label_names, longest_text
from loralet.artifacts.peft_config import method_of, read_config, refusals, scale_of
from loralet.artifacts.reading import CONFIG, PEFT_PREFIX
from loralet.errors import RunError
from loralet.hub.backbone import Backbone, load_backbone, read_head
from loralet.hub.names import pinned
from loralet.hub.tensors import number_problems, read_tensors
from loralet.hub.tokenizer import has_tokenizer, load_tokenizer, same_tokens

LOGGER = logging.getLogger("loralet")
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
CLASSIFIER = {"classifier.weight", "classifier.bias"}
MATRICES = ("classifier.weight", "pooler.weight")
DIMENSIONS = {"magnitude": 1}
"""Number of axes of an adapter's tensors that are not matrices."""


def load_peft(folder: Path, labels: Sequence[str] = (), backbone: str = "") -> tuple[Artifact, Backbone]:
    """Load a PEFT adapter and its backbone.

    Args:
        folder: folder with adapter_config.json and adapter_model.safetensors (or .bin).
        labels: label names in the order of the logits; if empty, from the base's config (``id2label``), else LABEL_0,
            LABEL_1, ...
        backbone: the base model; as named in the adapter's config, with its revision, if empty. PEFT records no
            fingerprint, so the base is not verified.

    Raises:
        RunError: the files are missing or broken, or the adapter is not supported; all reasons are listed.
        CheckpointError, HubError: the base cannot be loaded.
    """
    config = read_config(folder)
    problems = list(refusals(config))
    name = backbone or pinned(*(str(config.get(key) or "") for key in ("base_model_name_or_path", "revision")))
    if not name:
        problems.append("base_model_name_or_path is empty; give the base model with --backbone")
    if problems:
        raise _error(folder, problems)
    base = _with_own_tokenizer(folder, load_backbone(name))
    parts = _Parts(method_of(config))
    for key, tensor in _read_tensors(folder).items():
        parts.sort(key, tensor.float(), base)
    return _assemble(folder, config, base, parts, labels), base


def _with_own_tokenizer(folder: Path, base: Backbone) -> Backbone:
    """The base with the tokenizer of the adapter's folder, if that has one with other tokens."""
    if not has_tokenizer(folder):
        return base
    tokenizer = load_tokenizer(folder, base.table.vocabulary, base.family.tokens)
    if same_tokens(tokenizer, base.tokenizer):
        return base
    LOGGER.warning("%s: its tokenizer differs from that of the base and is used instead", folder)
    return replace(base, tokenizer=tokenizer, own_tokenizer=True)


@dataclass
class _Parts:
    """The tensors of the file, sorted by kind.

    Args:
        method: the adapter method.
        modules: tensors of the adapter, by PEFT's module path and by the method's names.
        head: tensors of the head, by slot name.
        strange: names of all other tensors.
        adapters: names of the adapters that the file has, if its names contain them.
    """

    method: AdapterMethod
    modules: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    head: dict[str, Tensor] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)
    adapters: set[str] = field(default_factory=set)

    def _plain(self, key: str) -> str | None:
        """A tensor's name without that of the adapter, which full state dicts and files of older versions contain.

        None for the frozen original of a module that the adapter replaces.
        """
        if ".original_module." in key:
            return None
        parts = {theirs.partition(".")[0]: theirs for theirs in self.method.format.peft_names.values()}
        match = re.fullmatch(rf"(.+)\.({'|'.join(parts)}|modules_to_save)\.([^.]+)(\.weight|\.bias)?", key)
        if match is None or (match[3] in ("weight", "bias") and not match[4]):
            return key.replace(".modules_to_save.", ".")
        self.adapters.add(match[3])
        return f"{match[1]}.{parts[match[2]]}" if match[2] in parts else match[1] + (match[4] or "")

    def sort(self, key: str, tensor: Tensor, base: Backbone) -> None:
        """Add a tensor of the file."""
        name = self._plain(key.removeprefix(PEFT_PREFIX))
        if name is None:
            return
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


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of an adapter in fp32.

    Raises:
        RunError: there are none, they cannot be read, or they have values that are not finite.
    """
    path = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if path is None:
        raise RunError(f"{folder}: no weights found; expected {' or '.join(WEIGHTS)} next to {CONFIG}")
    try:
        arrays = read_tensors(path)
    except ValueError as error:
        raise RunError(f"{path}: cannot be read as weights ({error})") from error
    if problems := list(number_problems(arrays)):
        raise RunError(f"{path}: {'; '.join(problems[:5])}; {AGAIN}")
    return {name: torch.tensor(array, dtype=torch.float32) for name, array in arrays.items()}


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
    if len(parts.adapters) > 1:
        problems.append(f"the file has several adapters ({', '.join(sorted(parts.adapters))}); save one of them")
    problems += _head_problems(head, base, pooler)
    problems += [f"its base: {one}" for one in head_config_problems(base.config, base.family)]
    adapters: dict[str, Mapping[str, Tensor]] = {}
    scales: dict[str, float] = {}
    on_pooler: dict[str, Tensor] | None = None
    for module, own in parts.modules.items():
        if set(own) != set(parts.method.format.peft_names):
            problems.append(f"{module} has only some of the adapter's tensors ({', '.join(sorted(own))})")
            continue
        if any(tensor.ndim != DIMENSIONS.get(part, 2) or not tensor.numel() for part, tensor in own.items()):
            shown = ", ".join(f"{part} {list(tensor.shape)}" for part, tensor in own.items())
            problems.append(f"{module} has tensors of wrong shapes ({shown})")
            continue
        bare = module.removeprefix(base.family.prefix)
        try:
            linear = base.family.linear(bare)
        except KeyError:
            if names.pooler in (module, f"{base.family.prefix}{bare}"):
                on_pooler = parts.method.scaled(own, scale_of(config, module, parts.method.rank(own)))
            else:
                problems.append(f"{module} is not a linear layer of the encoder")
            continue
        adapters[linear], scales[linear] = own, scale_of(config, module, parts.method.rank(own))
    problems += _size_problems(adapters, base, parts.method)
    if problems:
        raise _error(folder, problems)
    if on_pooler is not None:
        head = {slot: base.weights[slot] for slot in pooler if slot in base.weights} | head
        head["pooler.weight"] = parts.method.merge(head["pooler.weight"], on_pooler, 1.0)
    return _artifact(folder, config, base, parts.method, adapters, scales, head, labels)


def _head_problems(head: Mapping[str, Tensor], base: Backbone, pooler: set[str]) -> list[str]:
    names = base.family.head
    if wrong := [name for name, tensor in head.items() if tensor.ndim != (2 if name in MATRICES else 1)]:
        return [f"{name} has shape {list(head[name].shape)}" for name in wrong]
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
    wanted = {"classifier.bias": (head["classifier.weight"].shape[0],)} | names.pooling.tensors(base.table.width)
    return [
        f"{name} has shape {list(head[name].shape)}, expected {list(shape)}"
        for name, shape in wanted.items()
        if name in head and tuple(head[name].shape) != shape
    ]


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
    scales: Mapping[str, float],
    head: dict[str, Tensor],
    labels: Sequence[str],
) -> Artifact:
    adapted = {linear.split(".")[2] for linear in adapters}
    targets = tuple(target for target in base.table.targets if target in adapted)
    spec = _spec(config, method, targets, [method.rank(own) for own in adapters.values()])
    if any(scale != spec.scale or method.rank(adapters[linear]) != spec.rank for linear, scale in scales.items()):
        adapters = {linear: method.scaled(own, scales[linear]) for linear, own in adapters.items()}
        spec = replace(spec, alpha=float(spec.rank), scaling="alpha/r")
    return Artifact(
        id=folder.resolve().name,
        role="lora" if spec.rank else "linear-probe",
        labels=label_names(folder, base.config, head["classifier.weight"].shape[0], labels),
        adapter=spec,
        head="trained-pooler" if "pooler.weight" in head else "pooler",
        max_length=longest_text(folder, base.table.longest),
        backbone=base.name,
        backbone_fingerprint=base.fingerprint,
        architecture=base.family.model_type,
        data_fingerprint="",
        tensors=_filled(adapters, base, targets, method, spec.rank) | head,
        pooling=base.family.head.pooling,
    )


def _spec(
    config: Mapping[str, object], method: AdapterMethod, targets: tuple[str, ...], ranks: Sequence[int]
) -> AdapterSpec:
    """The largest rank, and alpha as PEFT has it: that of every module without a pattern of its own."""
    rank = max(ranks, default=0)
    dropout = float(str(config.get("lora_dropout") or 0.0))
    alpha = float(str(config.get("lora_alpha") or 8)) if rank else 1.0
    return AdapterSpec(method.name, rank, alpha, dropout, targets, "rslora" if config.get("use_rslora") else "alpha/r")


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


def _error(folder: Path, problems: Sequence[str]) -> RunError:
    return RunError(
        "\n".join([f"{folder}: this PEFT adapter cannot be loaded:", *(f"  - {problem}" for problem in problems)])
    )
