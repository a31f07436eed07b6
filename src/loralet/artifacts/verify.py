"""What is in a folder computes what was in memory: the one check that a saved classifier is the trained one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from loralet.adapters.base import Adapter
from loralet.adapters.pack import Pack, PackShape
from loralet.artifacts.artifact import Artifact
from loralet.backends.batch import Batch, batch_of
from loralet.backends.torch import TorchProgram
from loralet.errors import CheckError, RunError
from loralet.hub.backbone import Backbone, load_backbone
from loralet.models.forward import Weights
from loralet.models.table import EncoderTable

LENGTHS = (8, 5, 3)
"""Tokens of the rows that a saved folder is tried on: different lengths, so that padding is part of the check."""


def pack_of(artifacts: Sequence[Artifact], table: EncoderTable) -> tuple[Pack, Float[Tensor, "k n"]]:
    """The pack of artifacts that share head, label count and adapter method, and its parameters.

    Raises:
        RunError: an artifact's tensors are not those of its configuration.
    """
    adapters = [Adapter(a.adapter.rank, a.adapter.scale, 0.0, _linears(a, table), seed=0) for a in artifacts]
    first = artifacts[0]
    shape = PackShape(table, first.as_task().outputs, first.head, pooling=first.pooling)
    pack = Pack(shape, adapters, first.adapter.method)
    try:
        return pack, pack.fill([artifact.tensors for artifact in artifacts])
    except ValueError as error:
        raise RunError(f"{', '.join(a.id for a in artifacts)}: the tensors do not fit the adapter: {error}") from error


def _linears(artifact: Artifact, table: EncoderTable) -> tuple[str, ...]:
    return tuple(f"layers.{i}.{target}" for i in range(table.layers) for target in artifact.adapter.targets)


def beside(folder: Path, artifact: Artifact) -> tuple[Artifact, Backbone]:
    """A full fine-tuning as it is in its folder: the checkpoint there holds the trained encoder and pooler, frozen now."""
    return _settled(artifact), load_backbone(str(folder))


def _settled(artifact: Artifact) -> Artifact:
    head = {name: tensor for name, tensor in artifact.tensors.items() if name.startswith("classifier")}
    return replace(artifact, head="mean" if artifact.head == "mean" else "pooler", tensors=head)


def verify(folder: Path, loaded: Artifact, artifact: Artifact, backbone: Backbone) -> None:
    """Compare what was read back from a folder with what was to be written: description and logits, bit for bit.

    Args:
        folder: the folder.
        loaded: as read from it.
        artifact: as it is in memory.
        backbone: what the artifact was trained on.

    Raises:
        CheckError: they differ.
    """
    if json.loads(json.dumps(loaded.describe())) != json.loads(json.dumps(artifact.describe())):
        raise CheckError(f"{artifact.id}: loralet.json reads back as something else; nothing was kept")
    if artifact.role == "full":
        expected = _logits(_settled(artifact), backbone.weights | dict(artifact.tensors), backbone.table)
        settled, own = beside(folder, loaded)
        found = _logits(settled, own.weights, own.table)
    else:
        expected, found = (_logits(a, backbone.weights, backbone.table) for a in (artifact, loaded))
    if found.shape != expected.shape or not torch.equal(found.view(torch.int32), expected.view(torch.int32)):
        same = found.shape == expected.shape
        apart = f"{(found - expected).abs().max():.3g}" if same else f"{list(found.shape)} for {list(expected.shape)}"
        raise CheckError(
            f"{artifact.id}: the files written do not give the trained logits (largest difference {apart}); "
            "nothing was kept"
        )


def trial_rows(table: EncoderTable) -> Batch:
    """A few rows of fixed token ids that an encoder of this table can read."""
    lengths = torch.tensor(LENGTHS).clamp(max=table.longest)
    count = len(LENGTHS) * int(lengths.max())
    ids = (torch.arange(count) * 7919 + 11) % table.vocabulary  # 7919: a prime, so that the ids spread
    return batch_of(ids.view(len(LENGTHS), -1), lengths)


def _logits(artifact: Artifact, weights: Weights, table: EncoderTable) -> Float[Tensor, "k b c"]:
    # Copies, because matrix products may round differently by where in memory a matrix begins.
    pack, parameters = pack_of([artifact], table)
    program = TorchProgram(pack, {name: tensor.cpu().clone() for name, tensor in weights.items()})
    return program.logits(parameters)(trial_rows(table))
