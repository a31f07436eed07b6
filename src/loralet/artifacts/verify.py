"""Verification that a saved classifier computes the same logits as the trained one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from loralet.adapters.pack import Pack
from loralet.artifacts.artifact import Artifact
from loralet.artifacts.layout import layout_of, settled, unfitting
from loralet.backends.batch import Batch, batch_of
from loralet.backends.torch import TorchProgram
from loralet.errors import CheckError
from loralet.hub.backbone import Backbone, load_backbone
from loralet.models.forward import Weights
from loralet.models.table import EncoderTable

LENGTHS = (8, 5, 3)
"""Tokens of the test rows; different lengths, so that the check covers padding."""


def pack_of(artifacts: Sequence[Artifact], table: EncoderTable) -> tuple[Pack, Float[Tensor, "k n"]]:
    """The pack and parameters of artifacts that share head, label count and adapter method.

    Raises:
        RunError: an artifact's tensors do not match its configuration.
    """
    pack = Pack(*layout_of(artifacts, table))
    try:
        return pack, pack.fill([artifact.tensors for artifact in artifacts])
    except ValueError as error:
        raise unfitting(artifacts, error) from error


def load_full(folder: Path, artifact: Artifact) -> tuple[Artifact, Backbone]:
    """Load a fully fine-tuned run: its folder's checkpoint, with trained encoder and pooler, as a frozen backbone."""
    return settled(artifact), load_backbone(str(folder))


def verify(folder: Path, loaded: Artifact, artifact: Artifact, backbone: Backbone) -> None:
    """Check that an artifact read from a folder equals the one in memory: description, linear model, bitwise logits.

    Args:
        folder: the folder.
        loaded: the artifact read from the folder.
        artifact: the artifact in memory.
        backbone: the backbone that the artifact was trained on.

    Raises:
        CheckError: description, linear model or logits differ.
    """
    if json.loads(json.dumps(loaded.describe())) != json.loads(json.dumps(artifact.describe())):
        raise CheckError(f"{artifact.id}: loralet.json differs after reading it back; nothing was kept")
    if loaded.words != artifact.words:
        raise CheckError(f"{artifact.id}: the linear model on words differs after reading it back; nothing was kept")
    if artifact.role == "full":
        expected = _logits(settled(artifact), backbone.weights | dict(artifact.tensors), backbone.table)
        head, own = load_full(folder, loaded)
        found = _logits(head, own.weights, own.table)
    else:
        expected, found = (_logits(a, backbone.weights, backbone.table) for a in (artifact, loaded))
    if found.shape != expected.shape or not torch.equal(found.view(torch.int32), expected.view(torch.int32)):
        same = found.shape == expected.shape
        apart = f"{(found - expected).abs().max():.3g}" if same else f"{list(found.shape)} for {list(expected.shape)}"
        raise CheckError(
            f"{artifact.id}: the saved files give other logits than the trained run (largest difference {apart}); "
            "nothing was kept"
        )


def trial_rows(table: EncoderTable) -> Batch:
    """A batch of fixed token ids that is valid for an encoder of this table."""
    lengths = torch.tensor(LENGTHS).clamp(max=table.longest)
    count = len(LENGTHS) * int(lengths.max())
    ids = (torch.arange(count) * 7919 + 11) % table.vocabulary  # 7919 is prime, so the ids are spread out
    return batch_of(ids.view(len(LENGTHS), -1), lengths)


def _logits(artifact: Artifact, weights: Weights, table: EncoderTable) -> Float[Tensor, "k b c"]:
    # Copies, because rounding of matrix products may depend on the memory alignment.
    pack, parameters = pack_of([artifact], table)
    program = TorchProgram(pack, {name: tensor.cpu().clone() for name, tensor in weights.items()})
    return program.logits(parameters)(trial_rows(table))
