"""Arrays of the kernels. They are numpy arrays, so that prediction needs no torch.

numpy has no bf16: such values are stored as their 16 bits, in uint16.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

BF16 = np.dtype(np.uint16)
FP32 = np.dtype(np.float32)

Arrays = Mapping[str, np.ndarray]
"""An encoder's tensors by name."""

ALIGNMENT = 64
"""Bytes of a cache line, and of the widest vector."""


def empty(shape: int | tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array, aligned to a cache line."""
    shape = shape if isinstance(shape, tuple) else (shape,)
    size = math.prod(shape) * dtype.itemsize
    block = np.empty(size + ALIGNMENT, np.uint8)
    start = -block.__array_interface__["data"][0] % ALIGNMENT
    return block[start : start + size].view(dtype).reshape(shape)
