"""Adapters that the kernels compute separately from the frozen product, and dropout masks in the kernels' format."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from loralet.adapters.adapter import Adapter
from loralet.adapters.counters import dropout_keys
from loralet.backends.native.bindings import Number, Place, Structure
from loralet.backends.native.encoder import PARTS
from loralet.models.pooling import Read
from loralet.models.table import EncoderTable

RANK_MULTIPLE = 16
"""Ranks are padded to a multiple of this, the values per vector of the widest instruction set."""
MERGED = 128 * 128
"""Adapters without dropout on linear layers of up to this many weights are merged."""


def mask_fields(probability: float, keys: tuple[int, int]) -> dict[str, int | float | Sequence[int]]:
    """The fields of a ``Mask``. The mask equals that of :func:`loralet.adapters.dropout.keep_factors`."""
    return {"keys": keys, "threshold": int(probability * 2**32), "factor": 1 / (1 - probability)}


def head_masks(adapters: Sequence[Adapter], probability: float, step: int | None) -> Structure | None:
    """The masks of the head in one step, one per adapter; None without dropout."""
    if not probability or step is None:
        return None
    masks = Structure("Mask", len(adapters))
    for i, adapter in enumerate(adapters):
        masks.set(i, **mask_fields(probability, dropout_keys(adapter.seed, step)))
    return masks


def padded_rank(rank: int) -> int:
    """A rank, rounded up to a multiple of :data:`RANK_MULTIPLE`."""
    return -(-rank // RANK_MULTIPLE) * RANK_MULTIPLE


def branch_is_cheaper(rank: int, d_in: int, d_out: int) -> bool:
    """Whether a branch is cheaper than merged weights in training; evaluation of a pack follows the same rule.

    A branch costs ``3 r (d_in + d_out)`` multiply-adds per token: A and B in the forward pass, in the gradient of the
    input, and in their own gradients. A merged adapter costs the gradient of the dense weight, ``d_in d_out``, and
    packing in every step. Up to :data:`MERGED` weights, merging is faster although it counts more operations
    (dev/LOG.md). In evaluation, a branch costs up to a tenth of the time, but no memory of the size of the weight. The
    rule does not depend on the other adapters, so an adapter has the same logits alone and in a pack.
    """
    return d_in * d_out > MERGED and 3 * padded_rank(rank) * (d_in + d_out) < d_in * d_out


def always_merged(table: EncoderTable, read: Read) -> list[str]:
    """Key and value of the last layer, if only first tokens are read: cls_attention.h needs their full weights."""
    return [f"layers.{table.layers - 1}.{name}" for name in ("key", "value") if read == "first"]


class Branches:
    """Which adapters of a pack are computed as branches, and their masks.

    Args:
        adapters: the adapters of the pack.
        dropout: whether adapters with dropout apply it.
        merge: whether adapters without dropout are merged on all linear layers.
        merged: linear layers on which they are always merged.
    """

    def __init__(self, adapters: Sequence[Adapter], dropout: bool, merge: bool, merged: Collection[str] = ()) -> None:
        self.adapters, self.merge, self.merged = adapters, merge, merged
        self.dropped = [i for i, a in enumerate(adapters) if dropout and a.dropout and a.rank]

    def on(self, name: str, d_in: int, d_out: int) -> dict[int, int]:
        """The padded rank of each adapter with a branch on one linear layer.

        Args:
            name: full name of the linear layer.
            d_in, d_out: its sizes.
        """
        cheaper = not self.merge and name not in self.merged
        return {
            i: padded_rank(adapter.rank)
            for i, adapter in enumerate(self.adapters)
            if name in adapter.linears
            and (i in self.dropped or (cheaper and adapter.rank and branch_is_cheaper(adapter.rank, d_in, d_out)))
        }

    def structure(self, ranks: Mapping[int, int], size: int, packed: Place, grad: Place | None) -> Structure | None:
        """The ``Branch`` of each adapter on one linear layer, without masks; None if there is none.

        Args:
            ranks: see :meth:`on`.
            size: ``d_in + d_out``.
            packed, grad: memory of their packed matrices, ``2 rank size`` values each, and of their gradients,
                ``PARTS rank size`` values each.
        """
        if not ranks:
            return None
        found, begin = Structure("Branch", len(self.adapters)), 0
        for i, rank in ranks.items():
            found.set(i, rank=rank)
            found.point(i, packed=packed.after(2 * begin), grad=None if grad is None else grad.after(PARTS * begin))
            begin += rank * size
        return found

    def masks(self, step: int) -> dict[int, Number]:
        """The ``Mask`` of each adapter with dropout.

        Args:
            step: number of optimiser steps taken before this one.
        """
        chosen = ((i, self.adapters[i]) for i in self.dropped)
        return {i: mask_fields(adapter.dropout, dropout_keys(adapter.seed, step)) for i, adapter in chosen}
