"""Rows in batches for evaluation, without torch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from loralet.backends.rows import FlatRows
from loralet.data.tokens import Tokens

BATCH_TOKENS = 8192
"""Tokens of one evaluation batch, summed over all adapters: enough for full speed, few enough for the CPU cache."""


def sorted_batches(lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """All rows, longest first, in batches of at most ``tokens`` tokens, padding included."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, tokens // int(lengths[order[start]]))
        yield order[start : start + rows]
        start += rows


def flat_rows(tokens: Tokens, rows: np.ndarray) -> FlatRows:
    """The given rows, in this order."""
    lengths = tokens.starts[rows + 1] - tokens.starts[rows]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    places = np.arange(offsets[-1]) + np.repeat(tokens.starts[rows] - offsets[:-1], lengths)
    types = None if tokens.types is None else tokens.types[places].astype(np.int64)
    return FlatRows(tokens.ids[places].astype(np.int64), offsets, types)
