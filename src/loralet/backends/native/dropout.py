"""Dropout on the adapters' inputs, as the kernels take it: two keys an adapter and step, from which every mask is drawn where it is needed."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from loralet.adapters.lora import Adapter, Stack
from loralet.backends.native.attention import LANES


@dataclass(frozen=True)
class Draw:
    """One adapter's dropout in one step: its probability, and the keys of its masks."""

    dropout: float
    keys: tuple[int, int]


Draws = tuple[Draw | None, ...]
"""One for each adapter, None where it has no dropout."""


def draw(adapters: Sequence[Adapter], generators: Sequence[torch.Generator]) -> Draws:
    """Keys for one step, from each adapter's own generator; an adapter without dropout draws nothing."""
    return tuple(
        Draw(adapter.dropout, tuple(torch.randint(2**32, (2,), generator=generator).tolist()))
        if adapter.dropout and adapter.rank
        else None
        for adapter, generator in zip(adapters, generators, strict=True)
    )


class DropoutStruct(ctypes.Structure):
    """``Dropout`` of the kernels."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("down", "up", "down_back", "up_back", "grad_a", "grad_b")),
        ("rank", ctypes.c_int64),
        *((name, ctypes.c_uint32) for name in ("key", "second", "threshold")),
        ("kept", ctypes.c_float),
    ]


def dropout_struct(drawn: Draw, rank: int = 0) -> DropoutStruct:
    """One adapter's dropout without its matrices."""
    return DropoutStruct(
        None, None, None, None, None, None, rank, *drawn.keys, int(drawn.dropout * 2**32), 1 / (1 - drawn.dropout)
    )


class MapDropout:
    """The adapters with dropout on one linear map.

    Args:
        stack: all adapters' matrices on the map.
        low: the same as the kernels' ``LowRank``, with the scales as they are.
        draws: this step's keys; an adapter that does not sit on the map is passed over.
        weight: the frozen weight ``[o d]``, whose type is the type of the arithmetic.
        kernels: of that type.
        parts: parts that the gradients' sums are split into.
    """

    def __init__(self, stack: Stack, low: Any, draws: Draws, weight: Tensor, kernels: Any, parts: int) -> None:
        (o, d), rank = weight.shape, stack.a.shape[1]
        self.padded = -(-rank // LANES) * LANES
        self.scales = stack.scale.tolist()
        self.sets = [i for i, drawn in enumerate(draws) if drawn is not None and self.scales[i]]
        self.structs = (DropoutStruct * len(draws))()
        self.units = weight.new_empty(len(self.sets), 2, o + d, self.padded)
        self.grads = [(torch.zeros(parts, self.padded, d), torch.zeros(parts, o, self.padded)) for _ in self.sets]
        for units, grads, i in zip(self.units, self.grads, self.sets, strict=True):
            drawn = draws[i]
            assert drawn is not None
            self.structs[i] = dropout_struct(drawn, self.padded)
            pieces = [t.data_ptr() for way in units for t in way.flatten().split([d * self.padded, o * self.padded])]
            self.structs[i].down, self.structs[i].up, self.structs[i].down_back, self.structs[i].up_back = pieces
            self.structs[i].grad_a, self.structs[i].grad_b = (grad.data_ptr() for grad in grads)
            kernels["prepare_dropout"](ctypes.byref(low), i, self.scales[i], self.padded, o, d, *pieces)

    def put_gradients(self, grad_a: Float[Tensor, "k r d"], grad_b: Float[Tensor, "k o r"]) -> None:
        """Write these adapters' gradients over what stands in their place."""
        rank = grad_a.shape[1]
        for (a, b), i in zip(self.grads, self.sets, strict=True):
            grad_a[i], grad_b[i] = a.sum(0)[:rank], b.sum(0)[:, :rank] * self.scales[i]
