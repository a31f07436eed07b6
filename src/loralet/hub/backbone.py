"""A frozen encoder, loaded from disk or from the hub."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from loralet.hub.checkpoint import Checkpoint, find_checkpoint, read_checkpoint, read_weights
from loralet.models.family import Family
from loralet.models.forward import Weights
from loralet.models.table import EncoderTable


@dataclass(frozen=True)
class Backbone:
    """A frozen encoder with its tokenizer.

    Args:
        name: the hub id or folder, as given by the user.
        family: its model family.
        table: its layer table.
        weights: canonical tensors in fp32; ``pooler.*`` only if the checkpoint has a pooler.
        tokenizer: without truncation or padding.
        fingerprint: hash of all tensors (:func:`loralet.hub.checkpoint.fingerprint_of`).
        config: the content of the checkpoint's config.json.
        own_tokenizer: whether the tokenizer is that of an adapter, and has other tokens than the checkpoint's.
        commit: commit of a backbone from a hub; empty for a folder.
        pools_mean: whether the encoder was trained for the mean over its tokens (sentence-transformers).
    """

    name: str
    family: Family
    table: EncoderTable
    weights: Weights
    tokenizer: Tokenizer
    fingerprint: str
    config: dict[str, object]
    own_tokenizer: bool = False
    commit: str = ""
    pools_mean: bool = False

    @property
    def has_pooler(self) -> bool:
        return "pooler.weight" in self.weights

    @property
    def parameters(self) -> int:
        """Number of parameters, pooler included."""
        return sum(tensor.numel() for tensor in self.weights.values())


def load_backbone(name: str) -> Backbone:
    """Load a BERT-family encoder; arguments and errors as for :func:`loralet.hub.checkpoint.read_checkpoint`."""
    return backbone_of(read_checkpoint(name))


def backbone_of(read: Checkpoint) -> Backbone:
    """The checkpoint with tensors instead of arrays."""
    weights = {
        name: torch.from_numpy(array if array.flags.writeable else array.copy()) for name, array in read.arrays.items()
    }
    facts = (read.tokenizer, read.fingerprint, read.config, read.own_tokenizer, read.commit, read.pools_mean)
    return Backbone(read.name, read.family, read.table, weights, *facts)


def read_head(backbone: Backbone) -> dict[str, Tensor]:
    """The checkpoint's tensors above the encoder, by slot name.

    These are ``classifier.*``, and ``pooler.*`` if the pooler is part of the classification head.
    """
    tensors, head = read_weights(find_checkpoint(backbone.name)), backbone.family.head
    wanted = {
        theirs: ours for theirs, ours in head.tensors().items() if not head.in_encoder or ours.startswith("classifier")
    }
    found = {ours: tensors[theirs] for theirs, ours in wanted.items() if theirs in tensors}
    return {name: torch.tensor(array, dtype=torch.float32) for name, array in found.items()}
