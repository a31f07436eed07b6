"""The encoder in C with the adapters of a pack: weight packing, and forward and backward pass of a batch.

Rows are computed without padding, in chunks; see ``csrc/README.md``. The torch backend is the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from loralet.adapters.adapter import Adapter
from loralet.adapters.layout import Layout
from loralet.backends.native.arrays import FP32, empty
from loralet.backends.native.bindings import Place, Structure
from loralet.backends.native.branches import Branches, always_merged
from loralet.backends.native.encoder import LINEARS, PARTS, PackedEncoder
from loralet.backends.rows import FlatRows
from loralet.models.pooling import Read
from loralet.runtime import thread_count

VALUES = ("query", "key", "value", "context", "attended", "inner", "output")
"""The values that a layer computes, in the kernels' order."""
CHUNK_TOKENS = 224
"""Approximate number of tokens per chunk. The values of one layer of a chunk fit into the level 2 cache."""
BYTE = np.dtype(np.uint8)


@dataclass(frozen=True)
class LowRank:
    """The LoRA matrices of k adapters on one linear layer, fp32; ranks are padded with zeros to the largest.

    Args:
        a, b: the matrices; views whose first axis may have any stride.
        scale: scale of each adapter; 0 if the adapter does not cover this layer.
    """

    a: Float[np.ndarray, "k r i"]
    b: Float[np.ndarray, "k o r"]
    scale: Float[np.ndarray, "k"]


def low_rank_of(layout: Layout, arrays: Mapping[str, np.ndarray]) -> dict[str, LowRank]:
    """The matrices of each adapted linear layer.

    Args:
        layout: the parameter layout.
        arrays: the parameters by slot name.
    """
    scales = {
        name: np.array([a.scale if name in a.linears else 0.0 for a in layout.adapters], np.float32)
        for name in layout.adapted
    }
    return {name: LowRank(arrays[f"{name}.A"], arrays[f"{name}.B"], scale) for name, scale in scales.items()}


class AdaptedEncoder:
    """An encoder with the adapters of a pack. :meth:`pack` reads the matrices; call it after every change of them.

    Args:
        encoder: the frozen encoder.
        adapters: the adapters of the pack.
        matrices: their matrices by linear layer; the arrays must stay where they are.
        read: the tokens whose last states are wanted.
        dropout: whether adapters with dropout apply it.
        backward: whether backward passes follow; the object then computes one batch at a time.
        merge: whether adapters without dropout are merged on all linear layers, which takes memory of the size of the
            layers per adapter; else :func:`branch_is_cheaper` decides.
    """

    def __init__(
        self,
        encoder: PackedEncoder,
        adapters: Sequence[Adapter],
        matrices: Mapping[str, LowRank],
        read: Read,
        dropout: bool = False,
        backward: bool = False,
        merge: bool = False,
    ) -> None:
        self.encoder, self.matrices, self.read, self.backward = encoder, matrices, read, backward and bool(matrices)
        self.names = list(matrices)
        self.adapters = len(adapters) if matrices else 1
        self.lowest = min((int(name.split(".")[1]) for name in matrices), default=encoder.table.layers)
        self.low_rank = Structure("LowRank", max(1, len(matrices)))
        self.branches = Branches(adapters, dropout, merge, always_merged(encoder.table, read))
        self.ranks = {name: self.branches.on(name, *self._shape(name)) for name in self.names}
        self.merged = {
            name: any(name in adapter.linears and i not in self.ranks[name] for i, adapter in enumerate(adapters))
            for name in self.names
        }
        self.branch: dict[str, Structure | None] = {}
        self.layers = encoder.layers.copy()
        self._activations = empty(0, BYTE)
        self._describe()
        self._point_to_layers()

    @property
    def branch_rank(self) -> int:
        """The largest padded rank of a branch; 0 if there is none."""
        return max((rank for ranks in self.ranks.values() for rank in ranks.values()), default=0)

    def pack(self, step: int | None = None) -> None:
        """Pack all adapted linear layers in one call.

        Args:
            step: number of optimiser steps taken before this one, if adapters apply dropout.
        """
        if step is not None:
            masks = self.branches.masks(step)
            for name, branch in self.branch.items():
                for i in self.ranks[name].keys() & masks.keys() if branch else ():
                    branch.set(i, mask=masks[i])  # type: ignore[union-attr]
        if self.names:
            self.encoder.kernels.pack_weights(self.packings)

    def activations(self, size: int) -> np.ndarray:
        """Memory for the activations of a batch. The next call invalidates it."""
        if len(self._activations) < size:
            self._activations = empty(size * 5 // 4, BYTE)
        return self._activations

    def _shape(self, name: str) -> tuple[int, int]:
        linear = self.encoder.linears[name]
        return linear.d_in, linear.d_out

    def _merged_size(self, name: str) -> int:
        """Number of weights of one linear layer with merged adapters, for all adapters; 0 if none is merged."""
        d_in, d_out = self._shape(name)
        return self.adapters * d_in * d_out if self.merged[name] else 0

    def _branch_size(self, name: str) -> int:
        """Number of values of the branches' matrices on one linear layer."""
        return sum(self.ranks[name].values()) * sum(self._shape(name))

    def _describe(self) -> None:
        """Allocate packed weights, branches and their gradients, and point all structures to them."""
        encoder = self.encoder
        merged, branches = sum(map(self._merged_size, self.names)), sum(map(self._branch_size, self.names))
        self._packed, self._packed_branches = empty(2 * merged, encoder.dtype), empty(2 * branches, encoder.dtype)
        self._grad = empty(PARTS * merged if self.backward else 0, FP32)
        self._branch_grad = empty(PARTS * branches if self.backward else 0, FP32)
        self.packings, begin, branch_begin = Structure("WeightPacking", max(1, len(self.names))), 0, 0
        for i, name in enumerate(self.names):
            self._describe_adapters(i, name, Place(self._packed_branches, 2 * branch_begin), PARTS * branch_begin)
            encoder.describe(self.packings, i, name, self.adapters)
            self.packings.point(i, low_rank=Place(self.low_rank, i), branch=self.branch[name])
            size = self._merged_size(name)
            if size:
                forward, back = Place(self._packed, 2 * begin), Place(self._packed, 2 * begin + size)
                backward = back if self.backward or encoder.needs_backward(name) else None
                self.packings.point(i, forward=forward, backward=backward)
                grad = Place(self._grad, PARTS * begin) if self.backward else None
                self.layers.point(*_place(name), forward=forward, backward=backward, weight_grad=grad)
            self.layers.point(*_place(name), branch=self.branch[name])
            begin, branch_begin = begin + size, branch_begin + self._branch_size(name)

    def _describe_adapters(self, i: int, name: str, packed: Place, grad_begin: int) -> None:
        """Set the adapters' matrices and branches of one linear layer."""
        own = self.matrices[name]
        self.low_rank.set(i, a_stride=_stride(own.a), b_stride=_stride(own.b), rank=own.a.shape[1])
        self.low_rank.point(i, a=Place(own.a, strided=True), b=Place(own.b, strided=True), scale=own.scale)
        grad = Place(self._branch_grad, grad_begin) if self.backward else None
        self.branch[name] = self.branches.structure(self.ranks[name], sum(self._shape(name)), packed, grad)

    def _point_to_layers(self) -> None:
        """Point the layers to the frozen linear layers, and mark what differs between adapters."""
        encoder, layers = self.encoder, self.layers
        for i, ownership in enumerate(encoder.table.ownership(self.names)):
            names = [f"layers.{i}.{name}" for name in LINEARS]
            layers.set(
                i,
                adapted=[int(name in self.matrices) for name in names],
                merged=[int(self.merged.get(name, False)) for name in names],
                per_adapter=[int(name in ownership.own) for name in VALUES],
                keys_needed=int(any(self.ranks.get(f"layers.{i}.{name}") for name in ("key", "value"))),
            )
            for j, name in enumerate(names):
                if not self.merged.get(name):
                    backward = (self.backward and i >= self.lowest) or encoder.needs_backward(name)
                    forward, back = encoder.frozen(name, backward)
                    layers.point(i, j, forward=forward, backward=back)

    def gradients(self, into: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Structure:
        """Where :meth:`EncoderPass.backward` writes the gradients.

        Args:
            into: gradients of A and B of each adapted linear layer, laid out like :class:`LowRank`.
        """
        gradients, begin = Structure("LowRankGradients", max(1, len(into))), 0
        for i, name in enumerate(self.names):
            (grad_a, grad_b), (d_in, d_out), size = into[name], self._shape(name), self._merged_size(name)
            gradients.set(i, adapters=self.adapters, d_out=d_out, d_in=d_in, parts=PARTS)
            gradients.set(i, grad_a_stride=_stride(grad_a), grad_b_stride=_stride(grad_b))
            gradients.point(
                i,
                low_rank=Place(self.low_rank, i),
                branch=self.branch[name],
                weight_grad=Place(self._grad, PARTS * begin) if size else None,
                grad_a=Place(grad_a, strided=True),
                grad_b=Place(grad_b, strided=True),
            )
            begin += size
        return gradients


class EncoderPass:
    """The forward pass of one batch, and the backward pass if the weights are packed for it.

    Args:
        adapted: the encoder with its adapters.
        rows: the rows.

    Raises:
        IndexError: see :meth:`PackedEncoder.require_known`.
    """

    def __init__(self, adapted: AdaptedEncoder, rows: FlatRows) -> None:
        encoder = adapted.encoder
        encoder.require_known(rows)
        self.adapted, self.kernels, self.backward_follows = adapted, encoder.kernels, adapted.backward
        self.states = len(rows) if adapted.read == "first" else len(rows.ids)
        self.structure = encoder.encoder.copy()
        self.structure.set(
            adapters=adapted.adapters,
            rows=len(rows),
            threads=_threads(len(rows.ids), adapted.backward),
            cls_only=int(adapted.read == "first"),
            backward=int(adapted.backward),
            lowest_adapted=adapted.lowest,
            chunk_tokens=_chunk_tokens(len(rows.ids)),
            branch_rank=adapted.branch_rank,
        )
        self.structure.point(layer=adapted.layers, offsets=np.ascontiguousarray(rows.offsets))
        self._point_to_tokens(rows)

    def _point_to_tokens(self, rows: FlatRows) -> None:
        encoder, table = self.adapted.encoder, self.adapted.encoder.table
        if table.embedding_width:
            self.structure.point(input=encoder.embed(rows))
        else:
            types = np.ascontiguousarray(rows.types) if rows.types is not None and table.token_types else None
            room = empty((len(rows.ids), table.width), encoder.dtype)
            self.structure.point(ids=np.ascontiguousarray(rows.ids), types=types, input=room)
        if rows.first_tokens is not None and self.adapted.branches.dropped:
            numbers = np.repeat(rows.first_tokens, rows.lengths) + rows.positions
            self.structure.point(token_numbers=np.ascontiguousarray(numbers))

    def forward(self) -> Shaped[np.ndarray, "k n d"]:
        """The last states of the first tokens or of all tokens, concatenated; k is 1 if all adapters share them."""
        encoder = self.adapted.encoder
        out = empty((self.adapted.adapters, self.states, encoder.table.width), encoder.dtype)
        self.activations = None
        if self.backward_follows:
            self.activations = self.adapted.activations(self.kernels.encoder_bytes(self.structure))
        self.kernels.encoder_forward(self.structure, out, self.activations)
        return out

    def backward(self, grad: Shaped[np.ndarray, "k n d"], into: Structure) -> None:
        """Write the gradients of each adapter's A and B, given the gradient of the last states.

        Args:
            grad: the gradient, in the arithmetic type.
            into: see :meth:`AdaptedEncoder.gradients`.
        """
        assert self.activations is not None
        self.kernels.encoder_backward(self.structure, np.ascontiguousarray(grad), self.activations)
        self.kernels.low_rank_gradients(into)


def _place(name: str) -> tuple[int, int]:
    """A linear layer's place in the kernels' structures: its encoder layer, and its place among :data:`LINEARS`."""
    _, layer, linear = name.split(".")
    return int(layer), LINEARS.index(linear)


def _stride(array: np.ndarray) -> int:
    """Values between two adapters."""
    return array.strides[0] // array.itemsize


def _threads(tokens: int, backward: bool) -> int:
    """Number of threads: one for a few tokens without a backward pass, as waking another takes longer."""
    return 1 if tokens < CHUNK_TOKENS // 2 and not backward else thread_count()


def _chunk_tokens(tokens: int) -> int:
    """Tokens per chunk, such that all parts have the same number of chunks of about the same size."""
    chunks = PARTS * max(1, round(tokens / (PARTS * CHUNK_TOKENS)))
    return max(1, -(-tokens // chunks))
