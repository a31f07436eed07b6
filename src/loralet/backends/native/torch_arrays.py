"""Conversion between torch tensors and the kernels' arrays. Both share memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from loralet.backends.batch import Batch
from loralet.backends.native.arrays import BF16, FP32
from loralet.backends.rows import FlatRows

ARRAY_TYPES = {torch.float32: FP32, torch.bfloat16: BF16}
"""Arithmetic types in torch, and the kernels' element types."""


def array_of(tensor: Tensor) -> np.ndarray:
    """A CPU tensor as an array; bf16 as its bits."""
    plain = tensor.detach()
    found: np.ndarray = (plain.view(torch.uint16) if plain.dtype == torch.bfloat16 else plain).numpy()
    return found


def tensor_of(array: np.ndarray) -> Tensor:
    """The inverse of :func:`array_of`."""
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if array.dtype == BF16 else tensor


def rows_of(batch: Batch) -> FlatRows:
    """The rows of a batch."""
    others = (batch.types, batch.first_tokens, batch.row_numbers)
    return FlatRows(
        batch.ids.numpy(), batch.offsets.numpy(), *(None if other is None else other.numpy() for other in others)
    )
