"""A batch as every backend takes it: rows without padding, one after another."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from loralet.models.forward import Padded


@dataclass(frozen=True)
class Batch:
    """Some rows of a data set, on the CPU.

    Args:
        ids: token ids of all rows, one after another, int64.
        offsets: row i is ``ids[offsets[i]:offsets[i + 1]]``, int64.
        types: token types; None: all 0 (single texts).
        targets: what the task's loss compares the logits with, row by row; None where only logits are wanted.
        row_weights: weight of each row in each adapter's loss; None: all 1.
        first_tokens: number of each row's first token in the whole batch of the step; None: ``offsets[:-1]``. Dropout
            counts tokens by it, so that a part of a batch has the masks of the whole.
        row_numbers: number of each row in the whole batch of the step; None: 0, 1, ...
    """

    ids: Int[Tensor, "n"]
    offsets: Int[Tensor, "b_1"]
    types: Int[Tensor, "n"] | None = None
    targets: Tensor | None = None
    row_weights: Float[Tensor, "k b"] | None = None
    first_tokens: Int[Tensor, "b"] | None = None
    row_numbers: Int[Tensor, "b"] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Int[Tensor, "b"]:
        """Tokens of each row."""
        return self.offsets.diff()

    @property
    def shares(self) -> Float[Tensor, "j b"]:
        """Share of each row in its adapter's mean loss; j is 1 where all adapters weigh the rows alike.

        A row without weight has no share; an adapter of which no row has a weight has no loss in this batch.
        """
        if self.row_weights is None:
            return torch.full((1, len(self)), 1 / len(self))
        return self.row_weights / self.row_weights.sum(1, keepdim=True).clamp(min=1e-12)

    def take(self, rows: Int[Tensor, "m"]) -> Batch:
        """A part of the batch, which keeps the tokens' and rows' numbers of the whole."""
        lengths = self.lengths[rows]
        offsets = F.pad(lengths.cumsum(0), (1, 0))
        places = torch.arange(int(offsets[-1])) + (self.offsets[rows] - offsets[:-1]).repeat_interleave(lengths)
        first = self.offsets[:-1] if self.first_tokens is None else self.first_tokens
        return replace(
            self,
            ids=self.ids[places],
            offsets=offsets,
            types=None if self.types is None else self.types[places],
            targets=None if self.targets is None else self.targets[rows],
            row_weights=None if self.row_weights is None else self.row_weights[:, rows],
            first_tokens=first[rows],
            row_numbers=rows if self.row_numbers is None else self.row_numbers[rows],
        )

    def padded(self, multiple: int = 1, longest: int | None = None, device: torch.device | None = None) -> Padded:
        """The batch padded on the right with id 0.

        Args:
            multiple: the number of columns is rounded up to a multiple of this,
            longest: but to no more than this.
            device: where the result is wanted.
        """
        lengths = self.lengths
        columns = -(-int(lengths.max()) // multiple) * multiple
        columns = columns if longest is None else max(int(lengths.max()), min(columns, longest))
        inside = torch.arange(columns) < lengths[:, None]
        ids = torch.zeros(inside.shape, dtype=torch.long).masked_scatter_(inside, self.ids)
        types = None
        if self.types is not None:
            types = torch.zeros(inside.shape, dtype=torch.long).masked_scatter_(inside, self.types).to(device)
        return Padded(ids.to(device), lengths.to(device), types)

    def token_numbers(self, columns: int) -> Int[Tensor, "b t"]:
        """Number of each token in the whole batch of the step, of padding too (which is never read)."""
        first = self.offsets[:-1] if self.first_tokens is None else self.first_tokens
        return first[:, None] + torch.arange(columns)

    def numbers(self) -> Int[Tensor, "b"]:
        """Number of each row in the whole batch of the step."""
        return torch.arange(len(self)) if self.row_numbers is None else self.row_numbers


def batch_of(ids: Int[Tensor, "b t"], lengths: Int[Tensor, "b"], targets: Tensor | None = None) -> Batch:
    """A batch from padded rows."""
    inside = torch.arange(ids.shape[1]) < lengths[:, None]
    return Batch(ids[inside].long(), F.pad(lengths.long().cumsum(0), (1, 0)), targets=targets)
