"""Dropout masks as a pure function of counters: every backend draws the same masks, and no mask is stored.

A hash of the adapter's seed, the step, the linear layer, the token and the feature decides whether an element is
dropped. Tokens are counted over the whole batch, so a mask does not depend on padding, on the split of a batch, or on
the other adapters of the pack. The native backend computes the same hash in C (``csrc/mask.h``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loralet.adapters.adapter import Adapter
from loralet.adapters.counters import GOLDEN, WORD, dropout_keys, head_index, linear_index
from loralet.models.table import EncoderTable


def keep_factors(
    probability: float, keys: tuple[int, int], index: int, tokens: Int[Tensor, "*axes"], width: int
) -> Float[Tensor, "*axes width"]:
    """0 for a dropped feature, else 1 / (1 - probability) (Srivastava et al. 2014, inverted), in fp32.

    Args:
        probability: probability of dropping a feature.
        keys: keys of the adapter and step (:func:`dropout_keys`).
        index: index of the linear layer (:func:`linear_index`) or of the head.
        tokens: index of each token in the batch (for the head: of each row).
        width: features per token.
    """
    features = torch.arange(width, device=tokens.device, dtype=torch.int32)
    place = tokens.to(torch.int32)[..., None] * width + features
    drawn = _scramble(_scramble(place ^ _signed(keys[0])) + _signed(keys[1] + GOLDEN * index))
    # Flipping the sign bit turns the unsigned comparison into a signed one.
    kept = (drawn ^ _signed(1 << 31)) >= _signed(int(probability * 2**32) ^ (1 << 31))
    return kept.float() * (1 / (1 - probability))


def _scramble(x: Int[Tensor, "*axes"]) -> Int[Tensor, "*axes"]:
    """Wellons's lowbias32, a 32-bit hash; int32 products wrap around, and shifts are masked to be unsigned."""
    x = (x ^ ((x >> 16) & 0xFFFF)) * _signed(0x7FEB352D)
    x = (x ^ ((x >> 15) & 0x1FFFF)) * _signed(0x846CA68B)
    return x ^ ((x >> 16) & 0xFFFF)


def _signed(x: int) -> int:
    x &= WORD
    return x - (1 << 32) if x >> 31 else x


@dataclass(frozen=True)
class Dropout:
    """The dropout of a pack in one step.

    Args:
        table: the encoder's layer table.
        adapters: adapters of the pack.
        step: optimiser steps taken before this one.
        head: dropout probability of the head, the same for all adapters.
    """

    table: EncoderTable
    adapters: Sequence[Adapter]
    step: int
    head: float = 0.0

    def applies(self, name: str) -> bool:
        """Whether an adapter of the pack has dropout on this linear layer."""
        return any(adapter.dropout and adapter.rank and name in adapter.linears for adapter in self.adapters)

    def factors(self, name: str, tokens: Int[Tensor, "b t"], width: int) -> Float[Tensor, "k b t d"]:
        """Factors of a linear layer's input for each adapter; 1 without dropout.

        Args:
            name: the linear layer.
            tokens: index of each token in the batch.
            width: features of the input.
        """
        index, ones = linear_index(self.table, name), torch.ones(*tokens.shape, width, device=tokens.device)
        return torch.stack(
            [
                keep_factors(a.dropout, dropout_keys(a.seed, self.step), index, tokens, width)
                if a.dropout and a.rank and name in a.linears
                else ones
                for a in self.adapters
            ]
        )

    def head_factors(self, rows: Int[Tensor, "b"], width: int) -> Float[Tensor, "k b d"] | None:
        """Factors of the classifier's input for each adapter; None if the head has no dropout.

        Args:
            rows: index of each row in the batch.
            width: features of the classifier's input.
        """
        if not self.head:
            return None
        index = head_index(self.table)
        return torch.stack(
            [keep_factors(self.head, dropout_keys(a.seed, self.step), index, rows, width) for a in self.adapters]
        )
