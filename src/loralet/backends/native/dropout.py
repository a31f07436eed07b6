"""Dropout as the kernels take it: the numbers that masks are drawn from, and the adapters that are computed apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from loralet.adapters.base import Adapter
from loralet.adapters.dropout import dropout_keys
from loralet.backends.native.library import Number, Place, Structure

RANK_MULTIPLE = 16
"""Ranks are padded to a multiple of this, the widest vector of any instruction set."""


def mask_fields(probability: float, keys: tuple[int, int]) -> dict[str, int | float | Sequence[int]]:
    """The fields of a ``Mask``, from which :func:`loralet.adapters.dropout.keep_factors` draws the same mask."""
    return {"keys": keys, "threshold": int(probability * 2**32), "factor": 1 / (1 - probability)}


def head_masks(adapters: Sequence[Adapter], probability: float, step: int | None) -> Structure | None:
    """The masks of the head in one step, one for each adapter; None where it has no dropout."""
    if not probability or step is None:
        return None
    masks = Structure("Mask", len(adapters))
    for i, adapter in enumerate(adapters):
        masks.set(i, **mask_fields(probability, dropout_keys(adapter.seed, step)))
    return masks


class Branches:
    """The adapters with dropout of a pack in one step: which linear layers they sit on, and the memory they need.

    Args:
        adapters: of the pack.
        step: optimiser steps taken before this one; None: no adapter has dropout.
        parts: parts that the gradients' sums are split into.
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
        """The largest padded rank; 0 where no adapter has dropout."""
        return max(self.ranks.values(), default=0)

    def on(self, name: str, d_in: int, d_out: int, dtype: torch.dtype) -> Structure | None:
        """The ``Dropout`` of each adapter on one linear layer, with its memory; None where none has dropout there.

        Args:
            name: full name of the linear layer.
            d_in, d_out: its sizes.
            dtype: type of the arithmetic.
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
