"""What lies in a folder computes what was in memory: the one check that a saved classifier is the trained one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loralet.adapters.lora import Adapter, scale_of
from loralet.adapters.pack import Pack, PackShape
from loralet.errors import CheckError
from loralet.hub.backbone import Backbone, load_backbone
from loralet.models.encoder import EncoderShape, Weights

if TYPE_CHECKING:
    from loralet.artifacts.folder import Artifact

LENGTHS = (8, 5, 3)
"""Tokens of the rows that a saved folder is tried on: unlike lengths, so that padding is part of the check."""


def pack_of(artifacts: Sequence[Artifact], weights: Weights, shape: EncoderShape) -> Pack:
    """The pack that computes with artifacts of one head and class count over these weights (whose type is the type of the arithmetic)."""
    adapters = [
        Adapter(
            a.rank,
            scale_of(a.rank, a.alpha, a.scaling),
            0.0,
            tuple(f"layers.{i}.{t}" for i in range(shape.layers) for t in a.targets),
            0,
        )
        for a in artifacts
    ]
    first = artifacts[0]
    return Pack(weights, PackShape(shape, len(first.labels), first.head, activation=first.head_activation), adapters)


def beside(folder: Path, artifact: Artifact) -> tuple[Artifact, Backbone]:
    """A full fine-tuning as it lies in its folder: the checkpoint there holds the trained encoder and pooler, which are frozen now."""
    return _settled(artifact), load_backbone(str(folder))


def _settled(artifact: Artifact) -> Artifact:
    head = {name: tensor for name, tensor in artifact.tensors.items() if name.startswith("classifier")}
    return replace(artifact, head="mean" if artifact.head == "mean" else "pooler", tensors=head)


def verify(folder: Path, loaded: Artifact, artifact: Artifact, backbone: Backbone) -> None:
    """Compare what was read back from a folder with what was to be written, description and logits, bit for bit.

    Args:
        folder: the folder.
        loaded: as read from it.
        artifact: as it is in memory.
        backbone: what the artifact was trained on.

    Raises:
        CheckError: they differ.
    """
    if json.loads(json.dumps(loaded.describe())) != json.loads(json.dumps(artifact.describe())):
        raise CheckError(
            f"{artifact.id}: what was written to loralet.json reads back as something else; nothing was kept"
        )
    if artifact.role == "full":
        expected = _logits(_settled(artifact), backbone.weights | artifact.tensors, backbone.shape)
        settled, own = beside(folder, loaded)
        found = _logits(settled, own.weights, own.shape)
    else:
        expected, found = (_logits(a, backbone.weights, backbone.shape) for a in (artifact, loaded))
    if found.shape != expected.shape or not torch.equal(found.view(torch.int32), expected.view(torch.int32)):
        apart = (
            f"{(found - expected).abs().max():.3g}"
            if found.shape == expected.shape
            else f"{list(found.shape)} for {list(expected.shape)}"
        )
        raise CheckError(
            f"{artifact.id}: the files written do not give the trained logits (largest difference {apart}); nothing was kept"
        )


def trial_rows(shape: EncoderShape) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b"]]:
    """Fixed token ids, and their lengths, that an encoder of this shape can read."""
    lengths = torch.tensor(LENGTHS).clamp(max=shape.longest)
    count = len(LENGTHS) * int(lengths.max())
    ids = (
        torch.arange(count) * 7919 + 11
    ) % shape.vocabulary  # 7919: a prime, so that the ids spread over the vocabulary
    return ids.view(len(LENGTHS), -1), lengths


@torch.no_grad()
def _logits(artifact: Artifact, weights: Weights, shape: EncoderShape) -> Float[Tensor, "k b c"]:
    # Copies, because matrix products may round differently by where in memory a matrix begins.
    pack = pack_of([artifact], {name: tensor.cpu().clone() for name, tensor in weights.items()}, shape)
    return pack.logits(pack.fill([artifact.tensors]))(*trial_rows(shape))
