"""The batch format of all backends: concatenated rows without padding."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from loralet.models.forward import Padded


@dataclass(frozen=True)
class Batch:
    """Rows of a data set, on the CPU.

    Args:
        ids: token ids of all rows, concatenated, int64.
        offsets: row i is ``ids[offsets[i]:offsets[i + 1]]``, int64.
        types: token types; None: all 0 (single texts).
        targets: targets of the rows, for the task's loss; None if only logits are needed.
        row_weights: weight of each row in each adapter's loss; None: all 1.
        first_tokens: index of each row's first token in the whole batch of the step; None: ``offsets[:-1]``. Dropout
            uses it, so that a part of a batch has the same masks as the whole batch.
        row_numbers: index of each row in the whole batch of the step; None: 0, 1, ...
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
        """Number of tokens of each row."""
        return self.offsets.diff()

    @property
    def shares(self) -> Float[Tensor, "j b"]:
        """Share of each row in each adapter's mean loss; j is 1 if all adapters weight the rows equally.

        The share of a row with weight 0 is 0. The loss of an adapter whose rows all have weight 0 is 0.
        """
        if self.row_weights is None:
            return torch.full((1, len(self)), 1 / len(self))
        return self.row_weights / self.row_weights.sum(1, keepdim=True).clamp(min=1e-12)

    def take(self, rows: Int[Tensor, "m"]) -> Batch:
        """A part of the batch. Tokens and rows keep their indices in the whole batch."""
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
            multiple: the number of columns is rounded up to a multiple of this.
            longest: upper limit of the rounded number of columns.
            device: device of the result.
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
        """Index of each token in the whole batch of the step. Values for padding are never read."""
        first = self.offsets[:-1] if self.first_tokens is None else self.first_tokens
        return first[:, None] + torch.arange(columns)

    def numbers(self) -> Int[Tensor, "b"]:
        """Index of each row in the whole batch of the step."""
        return torch.arange(len(self)) if self.row_numbers is None else self.row_numbers


def batch_of(ids: Int[Tensor, "b t"], lengths: Int[Tensor, "b"], targets: Tensor | None = None) -> Batch:
    """Make a batch from padded rows."""
    inside = torch.arange(ids.shape[1]) < lengths[:, None]
    return Batch(ids[inside].long(), F.pad(lengths.long().cumsum(0), (1, 0)), targets=targets)
