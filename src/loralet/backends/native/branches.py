"""Dropout in the kernels' format: mask parameters, and memory for adapters with dropout."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from loralet.adapters.base import Adapter
from loralet.adapters.dropout import dropout_keys
from loralet.backends.native.bindings import Number, Place, Structure

RANK_MULTIPLE = 16
"""Ranks are padded to a multiple of this, the values per vector of the widest instruction set."""


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


class Branches:
    """The adapters with dropout of a pack in one step: their linear layers and the memory that they need.

    Args:
        adapters: the adapters of the pack.
        step: number of optimiser steps taken before this one; None: no dropout.
        parts: number of partial sums of the gradients.
    """

    def __init__(self, adapters: Sequence[Adapter], step: int | None, parts: int) -> None:
        self.parts = parts
        self.adapters = adapters
        self.dropped = [] if step is None else [i for i, a in enumerate(adapters) if a.dropout and a.rank]
        self.ranks = {i: -(-adapters[i].rank // RANK_MULTIPLE) * RANK_MULTIPLE for i in self.dropped}
        self.masks: dict[int, Number] = {
            i: mask_fields(adapters[i].dropout, dropout_keys(adapters[i].seed, step or 0)) for i in self.dropped
        }

    @property
    def rank(self) -> int:
        """The largest padded rank; 0 if no adapter has dropout."""
        return max(self.ranks.values(), default=0)

    def on(self, name: str, d_in: int, d_out: int, dtype: torch.dtype) -> Structure | None:
        """The ``Dropout`` of each adapter on one linear layer, with its memory; None if no adapter has dropout there.

        Args:
            name: full name of the linear layer.
            d_in, d_out: its sizes.
            dtype: arithmetic type.
        """
        here = [i for i in self.dropped if name in self.adapters[i].linears]
        if not here:
            return None
        total = sum(self.ranks[i] for i in here) * (d_in + d_out)
        packed, grad = torch.empty(2 * total, dtype=dtype), torch.empty(self.parts * total)
        found, begin = Structure("Dropout", len(self.adapters)), 0
        for i in here:
            found.set(i, rank=self.ranks[i], mask=self.masks[i])
            found.point(i, packed=Place(packed, 2 * begin), grad=Place(grad, self.parts * begin))
            begin += self.ranks[i] * (d_in + d_out)
        return found
