"""The average of several adapters as one adapter.

Runs of different seeds start from different A, so the product of the mean B and the mean A is not the mean of the
products. For LoRA, the mean of the updates ``1/n sum_i s_i B_i A_i`` is exactly a low-rank update of rank
``sum_i r_i``: the A are stacked, and the B are concatenated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor

from loralet.adapters.registry import METHODS
from loralet.adapters.spec import METHOD_NAMES, AdapterSpec
from loralet.artifacts.artifact import Artifact, Provenance, is_head, without_words
from loralet.errors import RunError

Value = TypeVar("Value")

COMPARED: dict[str, Callable[[Artifact], object]] = {
    "kind": lambda artifact: artifact.role,
    "backbone": lambda artifact: artifact.backbone_fingerprint,
    "labels": lambda artifact: artifact.labels,
    "head": lambda artifact: artifact.head,
    "pooler": lambda artifact: artifact.pooling,
    "max length": lambda artifact: artifact.max_length,
    "method": lambda artifact: artifact.adapter.method,
    "targets": lambda artifact: artifact.adapter.targets,
}
"""Properties that adapters must share to be averaged."""


def differences(members: Mapping[str, Artifact]) -> list[str]:
    """Messages about each difference from the first adapter that prevents averaging."""
    (reference, first), *others = members.items()
    problems = [
        f"{name} is a fully fine-tuned model, which has no adapter"
        for name, member in members.items()
        if member.role == "full"
    ]
    for name, other in others:
        for word, value in COMPARED.items():
            if value(other) != value(first):
                problems.append(f"{word}: {reference} has {_shown(first, word)}, {name} has {_shown(other, word)}")
    return problems


def _shown(artifact: Artifact, word: str) -> str:
    value = COMPARED[word](artifact)
    if word == "backbone":
        return f"{artifact.backbone} (fingerprint {artifact.backbone_fingerprint[:12]})"
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def average(members: Mapping[str, Artifact], id: str) -> Artifact:
    """Average the updates and the heads (and trained poolers) of several adapters.

    Of a hybrid, only the encoder is averaged: the result has no linear model on words.

    Args:
        members: two or more artifacts, by the name used in messages. Ranks, alphas and scalings may differ.
        id: id of the average.

    Raises:
        RunError: the adapters cannot be averaged; all differences are listed.
    """
    problems = differences(members)
    if problems:
        raise RunError("\n".join(["these adapters cannot be averaged:", *(f"  - {problem}" for problem in problems)]))
    artifacts = [without_words(artifact) for artifact in members.values()]
    first = artifacts[0]
    return replace(
        first,
        id=id,
        adapter=_mean_spec([artifact.adapter for artifact in artifacts]),
        data_fingerprint=_same([artifact.data_fingerprint for artifact in artifacts], ""),
        tensors=_mean_tensors(artifacts),
        label_type=_same([artifact.label_type for artifact in artifacts], "str"),
        provenance=_common([artifact.provenance for artifact in artifacts], [artifact.id for artifact in artifacts]),
        temperature=1.0,
        metrics={},
    )


def _mean_spec(specs: Sequence[AdapterSpec]) -> AdapterSpec:
    """A spec whose scale is the first scale divided by the number of members."""
    rank = sum(spec.rank for spec in specs)
    return replace(
        specs[0],
        rank=rank,
        alpha=specs[0].scale * rank / len(specs) if rank else specs[0].alpha,
        dropout=_same([spec.dropout for spec in specs], 0.0),
        scaling="alpha/r",
    )


def _mean_tensors(artifacts: Sequence[Artifact]) -> dict[str, Tensor]:
    method, scales = METHODS[artifacts[0].adapter.method], [artifact.adapter.scale for artifact in artifacts]
    tensors = {n: torch.stack([a.tensors[n] for a in artifacts]).mean(0) for n in artifacts[0].tensors if is_head(n)}
    for linear in dict.fromkeys(name.rpartition(".")[0] for name in artifacts[0].tensors if not is_head(name)):
        parts = [{part: a.tensors[f"{linear}.{part}"] for part in method.format.peft_names} for a in artifacts]
        mean = method.mean(parts, scales)
        if mean is None:
            raise RunError(
                f"{METHOD_NAMES[method.name]} adapters cannot be averaged into a single adapter; "
                "average their probabilities instead (loralet predict --runs or --also)"
            )
        tensors |= {f"{linear}.{part}": tensor for part, tensor in mean.items()}
    return tensors


def _common(members: Sequence[Provenance], ids: Sequence[str]) -> Provenance:
    """The part of the provenance that all members share."""
    empty = Provenance(lr_ratio=None)
    shared = {
        name: _same([getattr(member, name) for member in members], getattr(empty, name)) for name in empty.__dict__
    }
    return replace(Provenance(**shared), averaged_from=tuple(ids))


def _same(values: Sequence[Value], otherwise: Value) -> Value:
    return values[0] if all(value == values[0] for value in values) else otherwise
