"""The mean of several adapters as one adapter.

Runs of unlike seeds begin with unlike A, so the mean of the A times the mean of the B is not the mean of the products. The mean of the updates
``1/n sum_i s_i B_i A_i`` is again a low-rank update, of rank ``sum_i r_i``: the A one below the other, the B side by side, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from loralet.adapters.lora import scale_of
from loralet.artifacts.card import MADE_OF
from loralet.artifacts.folder import HEAD_SLOTS, Artifact
from loralet.errors import RunError

COMPARED = {
    "role": "kind",
    "backbone_fingerprint": "backbone",
    "labels": "labels",
    "head": "head",
    "head_activation": "activation of the head",
    "max_length": "max length",
    "targets": "targets",
}
"""What adapters must share to have a mean, by the word for it."""


def differences(members: Mapping[str, Artifact]) -> list[str]:
    """What keeps adapters from having a mean, in words: each difference from the first; empty where nothing does."""
    (reference, first), *others = members.items()
    problems = [
        f"{name} is a full fine-tuning, which has no adapter"
        for name, member in members.items()
        if member.role == "full"
    ]
    for name, other in others:
        unlike = [(field, word) for field, word in COMPARED.items() if getattr(other, field) != getattr(first, field)]
        problems += [
            f"{word}: {reference} has {_told(first, field)}, {name} has {_told(other, field)}" for field, word in unlike
        ]
    return problems


def _told(artifact: Artifact, field: str) -> str:
    value = getattr(artifact, field)
    if field == "backbone_fingerprint":
        return f"{artifact.backbone} (fingerprint {value[:12]})"
    return ", ".join(value) or "none" if isinstance(value, tuple) else str(value)


def average(members: Mapping[str, Artifact], id: str) -> Artifact:
    """The mean of the updates and of the heads (and poolers, where they were trained) of several adapters.

    Args:
        members: two or more, by a name for messages. Ranks, alphas and scalings may differ.
        id: the average's own name.

    Raises:
        RunError: they have no mean; every difference is listed.
    """
    problems = differences(members)
    if problems:
        raise RunError("\n".join(["these adapters have no mean:", *(f"  - {problem}" for problem in problems)]))
    artifacts = list(members.values())
    first, rank = artifacts[0], sum(artifact.rank for artifact in artifacts)
    scales = [scale_of(artifact.rank, artifact.alpha, artifact.scaling) for artifact in artifacts]
    common = {
        name: value
        for name, value in first.training.items()
        if all(name in a.training and a.training[name] == value for a in artifacts)
    }
    return Artifact(
        id=id,
        role=first.role,
        labels=first.labels,
        head=first.head,
        max_length=first.max_length,
        rank=rank,
        # alpha / rank is then the first one's scale over n, which is in place for all where they share it.
        alpha=scales[0] * rank / len(artifacts) if rank else first.alpha,
        dropout=_same([artifact.dropout for artifact in artifacts], 0.0),
        targets=first.targets,
        scaling="alpha/r",
        backbone=first.backbone,
        backbone_fingerprint=first.backbone_fingerprint,
        architecture=first.architecture,
        data_fingerprint=_same([artifact.data_fingerprint for artifact in artifacts], ""),
        head_activation=first.head_activation,
        tensors=_mean_tensors(artifacts, scales),
        label_type=_same([artifact.label_type for artifact in artifacts], "str"),
        training=common | {MADE_OF: [artifact.id for artifact in artifacts]},
        data=_same([artifact.data for artifact in artifacts], {}),
    )


def _mean_tensors(artifacts: Sequence[Artifact], scales: Sequence[float]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name in artifacts[0].tensors:
        own = [artifact.tensors[name] for artifact in artifacts]
        if name in HEAD_SLOTS:
            tensors[name] = torch.stack(own).mean(0)
        elif name.endswith(".A"):
            tensors[name] = torch.cat(own)
        else:
            tensors[name] = torch.cat([b * (scale / scales[0]) for b, scale in zip(own, scales, strict=True)], dim=1)
    return tensors


def _same(values: Sequence[Any], otherwise: Any) -> Any:
    return values[0] if all(value == values[0] for value in values) else otherwise
