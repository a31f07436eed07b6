"""The layout of a pack: k adapters and heads on one encoder, with all trained parameters in one matrix ``[k n]``.

:class:`loralet.adapters.pack.Pack` adds what needs torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from loralet.adapters.adapter import Adapter
from loralet.adapters.registry import METHODS
from loralet.adapters.spec import Method
from loralet.models.pooling import HeadKind, Pooling, Read
from loralet.models.table import EncoderTable

SHOWN = 8
"""Largest number of tensors listed in one message."""


@dataclass(frozen=True)
class Slot:
    """A part of the trained parameters: a tensor of this name and shape for each adapter."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class PackShape:
    """Properties shared by all adapters of a pack.

    Args:
        table: the encoder's layer table.
        outputs: logits per row.
        head: input of the classifier.
        head_dropout: dropout of the classifier's input.
        full: also train every tensor of the encoder (the pack then holds one run).
        pooling: form of the pooler.
    """

    table: EncoderTable
    outputs: int
    head: HeadKind = "pooler"
    head_dropout: float = 0.0
    full: bool = False
    pooling: Pooling = Pooling()

    @property
    def read(self) -> Read:
        """Tokens whose states the head reads: the first token, or all."""
        return "all" if self.head == "mean" else "first"


class Layout:
    """The layout of k classifiers on one frozen encoder. It holds no parameters.

    Args:
        shape: properties shared by the adapters.
        adapters: the k configurations.
        method: the adapter method.

    Raises:
        ValueError: several adapters with ``shape.full``.

    Attributes:
        adapted: full names of the adapted linear layers, in the encoder's order.
        rank: the largest rank, to which the others are padded.
        slots: the parts of a row of the parameters.
    """

    def __init__(self, shape: PackShape, adapters: Sequence[Adapter], method: Method = "lora") -> None:
        if shape.full and len(adapters) != 1:
            raise ValueError(f"a pack of full fine-tuning holds one run, not {len(adapters)}")
        self.shape = shape
        self.adapters = tuple(adapters)
        self.format = METHODS[method].format
        names = {name for adapter in adapters if adapter.rank for name in adapter.linears}
        every = (f"layers.{i}.{linear.name}" for i in range(shape.table.layers) for linear in shape.table.linears)
        self.adapted = tuple(name for name in every if name in names)
        self.rank = max((adapter.rank for adapter in adapters), default=0)
        self.slots = tuple(self._slots())

    def _slots(self) -> Iterator[Slot]:
        table, width = self.shape.table, self.shape.table.width
        yield Slot("classifier.weight", (self.shape.outputs, width))
        yield Slot("classifier.bias", (self.shape.outputs,))
        if self.shape.head == "trained-pooler":
            yield from (Slot(name, size) for name, size in self.shape.pooling.tensors(width).items())
        for name in self.adapted:
            shapes = self.shapes(name, self.rank)
            yield from (Slot(f"{name}.{part}", size) for part, size in shapes.items())
        if self.shape.full:
            yield from (Slot(name, size) for name, size in table.tensors().items())
            if self.shape.head == "pooler":
                yield from (Slot(name, size) for name, size in self.shape.pooling.tensors(width).items())

    @property
    def size(self) -> int:
        """Parameters of one row of the matrix, padding included."""
        return sum(slot.size for slot in self.slots)

    def shapes(self, name: str, rank: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of an adapter's tensors on the linear layer of this full name."""
        return self.format.shapes(self.shape.table.linear(name), rank)

    def trainable(self, i: int) -> int:
        """Number of trained parameters of adapter i, without padding."""
        return sum(math.prod(size) for size in self.own_shapes(i).values())

    def own_shapes(self, i: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of adapter i's tensors, without padding and without linear layers that it does not cover."""
        adapter, shapes = self.adapters[i], {slot.name: slot.shape for slot in self.slots}
        for name in self.adapted:
            for part, size in self.shapes(name, adapter.rank).items():
                if adapter.rank and name in adapter.linears:
                    shapes[f"{name}.{part}"] = size
                else:
                    del shapes[f"{name}.{part}"]
        return shapes

    def split_array(self, parameters: Float[np.ndarray, "k n"]) -> dict[str, np.ndarray]:
        """Split the parameters into arrays ``[k *shape]`` by slot name; views."""
        ends = np.cumsum([slot.size for slot in self.slots])
        pieces = np.split(parameters, ends[:-1], axis=1)
        return {slot.name: piece.reshape(-1, *slot.shape) for slot, piece in zip(self.slots, pieces, strict=True)}

    def require_tensors(self, i: int, tensors: Mapping[str, np.ndarray]) -> None:
        """Check names and shapes of adapter i's tensors.

        Raises:
            ValueError: see :meth:`fill_array`.
        """
        _require_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, self.own_shapes(i))

    def fill_array(self, tensors: Sequence[Mapping[str, np.ndarray]]) -> Float[np.ndarray, "k n"]:
        """The parameter matrix from each adapter's tensors, padded with zeros.

        Raises:
            ValueError: an adapter's tensors do not match its configuration; the message lists the differences.
        """
        parameters = np.zeros((len(self.adapters), self.size), np.float32)
        begins = np.cumsum([0, *(slot.size for slot in self.slots)])
        places = {slot.name: (begin, slot) for begin, slot in zip(begins.tolist(), self.slots, strict=False)}
        for i, (row, own) in enumerate(zip(parameters, tensors, strict=True)):
            self.require_tensors(i, own)
            for name, tensor in own.items():
                begin, slot = places[name]
                row[begin : begin + slot.size].reshape(slot.shape)[corner(tuple(tensor.shape))] = tensor
        return parameters


def _require_shapes(own: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Check an adapter's tensors.

    Raises:
        ValueError: see :meth:`Layout.fill_array`.
    """
    problems = [f"{name} is missing" for name in wanted.keys() - own.keys()]
    problems += [f"{name} is not expected" for name in own.keys() - wanted.keys()]
    problems += [
        f"{name} has shape {list(own[name])}, expected {list(wanted[name])}"
        for name in own.keys() & wanted.keys()
        if own[name] != wanted[name]
    ]
    if problems:
        shown = sorted(problems)[:SHOWN] + ([f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else [])
        raise ValueError("; ".join(shown))


def corner(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The part of a padded tensor that has this shape."""
    return tuple(slice(0, size) for size in shape)
