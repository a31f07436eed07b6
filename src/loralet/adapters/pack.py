"""The layout of a pack: k adapters and heads on one encoder, with all trained parameters in one matrix ``[k n]``."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from loralet.adapters.adapter import Adapter
from loralet.adapters.base import AdapterMethod, Stack
from loralet.adapters.registry import METHODS
from loralet.models.forward import Weights
from loralet.models.pooling import HeadKind, Pooling, Read
from loralet.models.table import EncoderTable

INITIALIZER_RANGE = 0.02
"""Standard deviation of a new classifier's weights, as in BERT."""


@dataclass(frozen=True)
class Slot:
    """A part of the trained parameters: a tensor of this name and shape for each adapter."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def stream(seed: int, purpose: str) -> torch.Generator:
    """A random generator for one purpose; different purposes of one seed draw different numbers."""
    digest = hashlib.sha256(f"{purpose}/{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


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


class Pack:
    """The layout of k classifiers on one frozen encoder. It holds no parameters and computes no logits.

    Args:
        shape: properties shared by the adapters.
        adapters: the k configurations.
        method: name of the adapter method (:data:`loralet.adapters.registry.METHODS`).

    Raises:
        ValueError: several adapters with ``shape.full``.

    Attributes:
        adapted: full names of the adapted linear layers, in the encoder's order.
        rank: the largest rank, to which the others are padded.
        slots: the parts of a row of the parameters.
    """

    def __init__(self, shape: PackShape, adapters: Sequence[Adapter], method: str = "lora") -> None:
        if shape.full and len(adapters) != 1:
            raise ValueError(f"a pack of full fine-tuning holds one run, not {len(adapters)}")
        self.shape = shape
        self.adapters = tuple(adapters)
        self.method: AdapterMethod = METHODS[method]
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
            shapes = self.method.shapes(table.linear(name), self.rank)
            yield from (Slot(f"{name}.{part}", size) for part, size in shapes.items())
        if self.shape.full:
            yield from (Slot(name, size) for name, size in table.tensors().items())
            if self.shape.head == "pooler":
                yield from (Slot(name, size) for name, size in self.shape.pooling.tensors(width).items())

    @property
    def size(self) -> int:
        """Parameters of one row of the matrix, padding included."""
        return sum(slot.size for slot in self.slots)

    def split(self, parameters: Float[Tensor, "k n"]) -> dict[str, Tensor]:
        """Split the parameters into tensors ``[k *shape]`` by slot name; views, so gradients reach the matrix."""
        pieces = torch.split(parameters, [slot.size for slot in self.slots], dim=1)
        return {slot.name: piece.view(-1, *slot.shape) for slot, piece in zip(self.slots, pieces, strict=True)}

    def stacks(self, tensors: Mapping[str, Tensor]) -> dict[str, Stack]:
        """The adapters' tensors by the full name of their linear layer."""
        parts = {name: self.method.shapes(self.shape.table.linear(name), self.rank) for name in self.adapted}
        return {
            name: Stack({part: tensors[f"{name}.{part}"] for part in shapes}, self._scales(name, tensors))
            for name, shapes in parts.items()
        }

    def _scales(self, name: str, tensors: Mapping[str, Tensor]) -> Float[Tensor, "k"]:
        device = tensors["classifier.weight"].device
        return torch.tensor([a.scale if name in a.linears else 0.0 for a in self.adapters], device=device)

    def start(self, weights: Weights) -> Float[Tensor, "k n"]:
        """Initial values. Each adapter draws from its seed, as in a pack of one.

        The adapter method initialises the adapters. The classifier is N(0, 0.02) with bias zero. A trained pooler
        starts from the checkpoint's pooler, or from N(0, 0.02) if the checkpoint has none; its norm starts from 1.

        Args:
            weights: the frozen tensors, including ``pooler.*`` if the checkpoint has a pooler.
        """
        parameters = torch.zeros(len(self.adapters), self.size)
        tensors = self.split(parameters)
        for i, adapter in enumerate(self.adapters):
            generator = stream(adapter.seed, "init")
            tensors["classifier.weight"][i].normal_(0, INITIALIZER_RANGE, generator=generator)
            if self.shape.head == "trained-pooler" and "pooler.weight" not in weights:
                tensors["pooler.weight"][i].normal_(0, INITIALIZER_RANGE, generator=generator)
            for name in self.adapted:
                if adapter.rank and name in adapter.linears:
                    weight = weights[f"{name}.weight"].float().cpu()
                    self.method.start(self._own(tensors, name, i), weight, generator)
        if "pooler.norm.weight" in tensors:
            tensors["pooler.norm.weight"].fill_(1.0)
        for name in tensors.keys() & weights.keys():
            tensors[name].copy_(weights[name].float())
        return parameters.to(weights["embeddings.word"].device)

    def _own(self, tensors: Mapping[str, Tensor], name: str, i: int) -> dict[str, Tensor]:
        """Adapter i's tensors on a linear layer, without padding; views."""
        shapes = self.method.shapes(self.shape.table.linear(name), self.adapters[i].rank)
        return {part: tensors[f"{name}.{part}"][i][_corner(size)] for part, size in shapes.items()}

    def decay(self, weight_decay: float) -> Float[Tensor, "n"]:
        """Weight decay of each parameter; 0 for biases and norms."""
        return self._each(lambda slot: 0.0 if slot.name.endswith("bias") or "norm" in slot.name else weight_decay)

    def lr_factors(self, ratios: Sequence[float]) -> Float[Tensor, "k n"] | None:
        """Learning rate factor of each parameter (LoRA+, Hayou et al. 2024); None if all are 1.

        The groups are those of PEFT's ``create_loraplus_optimizer``: the ratio applies to B and to every vector
        (biases, DoRA's magnitudes), and not to A and the other matrices.

        Args:
            ratios: ratio of each adapter.
        """
        if all(ratio == 1 for ratio in ratios):
            return None
        faster = self._each(lambda slot: float(slot.name.endswith(".B") or len(slot.shape) == 1))
        return 1 + faster * (torch.tensor(ratios)[:, None] - 1)

    def _each(self, value: Callable[[Slot], float]) -> Float[Tensor, "n"]:
        return torch.cat([torch.full((slot.size,), value(slot)) for slot in self.slots])

    def trainable(self, i: int) -> int:
        """Number of trained parameters of adapter i, without padding."""
        return sum(math.prod(size) for size in self._own_shapes(i).values())

    def _own_shapes(self, i: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of adapter i's tensors, without padding and without linear layers that it does not cover."""
        adapter, shapes = self.adapters[i], {slot.name: slot.shape for slot in self.slots}
        for name in self.adapted:
            own = self.method.shapes(self.shape.table.linear(name), adapter.rank)
            for part, size in own.items():
                if adapter.rank and name in adapter.linears:
                    shapes[f"{name}.{part}"] = size
                else:
                    del shapes[f"{name}.{part}"]
        return shapes

    def extract(self, parameters: Float[Tensor, "k n"], i: int) -> dict[str, Tensor]:
        """Copies of adapter i's tensors, without padding (:meth:`_own_shapes`)."""
        tensors = self.split(parameters)
        return {name: tensors[name][i][_corner(size)].clone() for name, size in self._own_shapes(i).items()}

    def carry(self, parameters: Float[Tensor, "k n"], rows: Sequence[int], to: Pack) -> Float[Tensor, "j m"]:
        """Convert rows of this pack's matrix to the matrix of a smaller pack of those adapters."""
        return to.fill([self.extract(parameters, i) for i in rows]).to(parameters.device)

    def fill(self, tensors: Sequence[Mapping[str, Tensor]]) -> Float[Tensor, "k n"]:
        """The parameter matrix from each adapter's tensors; the inverse of :meth:`extract`.

        Raises:
            ValueError: an adapter's tensors do not match its configuration; the message lists all differences.
        """
        parameters = torch.zeros(len(self.adapters), self.size)
        stacked = self.split(parameters)
        for i, own in enumerate(tensors):
            wanted = self._own_shapes(i)
            problems = [f"{name} is missing" for name in wanted.keys() - own.keys()]
            problems += [f"{name} is not expected" for name in own.keys() - wanted.keys()]
            problems += [
                f"{name} has shape {list(own[name].shape)}, expected {list(wanted[name])}"
                for name in own.keys() & wanted.keys()
                if tuple(own[name].shape) != wanted[name]
            ]
            if problems:
                raise ValueError("; ".join(sorted(problems)))
            for name, tensor in own.items():
                stacked[name][i][_corner(tuple(tensor.shape))] = tensor
        return parameters


def _corner(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(0, size) for size in shape)
