"""Which rows form a batch, and the batch itself."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from loralet.backends.batch import Batch
from loralet.data.order import flat_rows
from loralet.data.tokens import Tokens

GROUP = 50
"""Batches per group of rows sorted by length: enough for little padding, few enough to keep the order random."""


def epoch_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of one epoch: every row once, rows of similar length together, in random order.

    This is a pure function of its arguments, so one number describes the position in training. One batch of an epoch
    may be smaller.

    Args:
        lengths: tokens of each row.
        batch_size: rows per batch.
        seed: seed of the order.
        epoch: from 0; every epoch has a different order.

    Returns:
        Row numbers of each batch.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    size = batch_size * GROUP
    grouped = [order[i : i + size] for i in range(0, len(order), size)]
    order = np.concatenate([group[np.argsort(lengths[group], kind="stable")] for group in grouped])
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [batches[i] for i in generator.permutation(len(batches))]


class BatchOrder:
    """The batches of all epochs, by step.

    Args:
        lengths: tokens of each row.
        batch_size: rows per batch.
        seed: seed of the order.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed
        self._epoch: tuple[int, list[np.ndarray]] = (-1, [])

    def at(self, step: int) -> np.ndarray:
        """Row numbers of the batch of a step, counted from 0 over all epochs."""
        epoch, place = divmod(step, -(-len(self.lengths) // self.batch_size))
        if epoch != self._epoch[0]:
            self._epoch = (epoch, epoch_batches(self.lengths, self.batch_size, self.seed, epoch))
        return self._epoch[1][place]


def gather(tokens: Tokens, rows: np.ndarray, targets: Tensor | None = None) -> Batch:
    """Make a batch of the given rows, in this order.

    Args:
        tokens: token ids of all rows.
        rows: row numbers.
        targets: targets of all rows, for the task's loss; None if only logits are needed.
    """
    flat = flat_rows(tokens, rows)
    types = None if flat.types is None else torch.from_numpy(flat.types)
    chosen = None if targets is None else targets[torch.from_numpy(rows)]
    return Batch(torch.from_numpy(flat.ids), torch.from_numpy(flat.offsets), types, chosen)
