"""Rows of a batch in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class FlatRows:
    """Rows of a batch, concatenated without padding; the fields of :class:`loralet.backends.batch.Batch` in numpy."""

    ids: Int[np.ndarray, "n"]
    offsets: Int[np.ndarray, "b_1"]
    types: Int[np.ndarray, "n"] | None = None
    first_tokens: Int[np.ndarray, "b"] | None = None
    row_numbers: Int[np.ndarray, "b"] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int[np.ndarray, "b"]:
        """Number of tokens of each row."""
        return np.diff(self.offsets)

    @property
    def positions(self) -> Int[np.ndarray, "n"]:
        """Position of each token in its row, from 0."""
        found: Int[np.ndarray, "n"] = np.arange(len(self.ids)) - np.repeat(self.offsets[:-1], self.lengths)
        return found
