"""Which rows make a batch, and the batch itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from loralet.data.tokens import Tokens

MULTIPLE = 8
"""Token counts of batches are rounded up to this: the matrix library keeps a prepared kernel, about half a megabyte, for every size it has met."""

GROUP = 50
"""Batches whose rows are sorted by length together: enough for almost no padding, few enough to keep the order random."""


def epoch_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of one epoch: every row once, rows of like length together, in random order.

    A pure function of its arguments, so the place in training is one number. The last batch of the epoch may be smaller.

    Args:
        lengths: tokens of each row.
        batch_size: rows of a batch.
        seed: of the order.
        epoch: from 0; every epoch has its own order.

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
    """The batches of a whole training, by step.

    Args:
        lengths: tokens of each row.
        batch_size: rows of a batch.
        seed: of the order.
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


def sorted_batches(lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """All rows, longest first, in batches of at most ``tokens`` tokens, padding counted; for evaluation, where order is free."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, tokens // int(lengths[order[start]]))
        yield order[start : start + rows]
        start += rows


def collate(tokens: Tokens, rows: np.ndarray) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b"]]:
    """The ids of these rows, padded on the right with 0, and each row's length.

    The length of the batch is its longest row's, rounded up to a multiple of 8, but never more than the longest of all rows.
    """
    starts, lengths = tokens.starts[rows], tokens.starts[rows + 1] - tokens.starts[rows]
    rounded = -(-int(lengths.max()) // MULTIPLE) * MULTIPLE
    columns = np.arange(min(rounded, tokens.longest))
    inside = columns < lengths[:, None]
    places = np.minimum(starts[:, None] + columns, len(tokens.ids) - 1)
    ids = np.where(inside, tokens.ids[places], 0).astype(np.int64)
    return torch.from_numpy(ids), torch.from_numpy(lengths)
