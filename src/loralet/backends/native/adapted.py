"""The encoder in C with the adapters of a pack: weight packing, and forward and backward pass of a batch.

Rows are computed without padding, in chunks; see ``csrc/README.md``. The torch backend is the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loralet.adapters.base import Adapter, Stack
from loralet.backends.batch import Batch
from loralet.backends.native.bindings import Place, Structure
from loralet.backends.native.branches import Branches
from loralet.backends.native.encoder import LINEARS, PARTS, PackedEncoder
from loralet.models.forward import Read, embed

VALUES = ("query", "key", "value", "context", "attended", "inner", "output")
"""The values that a layer computes, in the kernels' order."""
CHUNK_TOKENS = 224
"""Approximate number of tokens per chunk. The values of one layer of a chunk fit into the level 2 cache."""


class AdaptedEncoder:
    """An encoder with the adapters of a pack, packed for one set of parameters.

    Args:
        encoder: the frozen encoder.
        adapters: the adapters of the pack.
        stacks: their matrices by linear layer; they must not change before the backward pass.
        read: the tokens whose last states are wanted.
        step: number of optimiser steps taken before this one, for dropout; None: no dropout.
        backward: whether a backward pass follows; the object can then be used for one batch only.
    """

    def __init__(
        self,
        encoder: PackedEncoder,
        adapters: Sequence[Adapter],
        stacks: Mapping[str, Stack],
        read: Read,
        step: int | None = None,
        backward: bool = False,
    ) -> None:
        self.encoder, self.stacks, self.read, self.backward = encoder, stacks, read, backward and bool(stacks)
        self.names = list(stacks)
        self.adapters = len(adapters) if stacks else 1
        self.lowest = min((int(name.split(".")[1]) for name in stacks), default=encoder.table.layers)
        self.low_rank = Structure("LowRank", max(1, len(stacks)))
        self.branches = Branches(adapters, step, self.backward, self._always_merged())
        self.ranks = {name: self.branches.on(name, *self._shape(name)) for name in self.names}
        self.merged = {
            name: any(name in adapter.linears and i not in self.ranks[name] for i, adapter in enumerate(adapters))
            for name in self.names
        }
        self.branch: dict[str, Structure | None] = {}
        self.layers = encoder.layers.copy()
        self._memory: dict[str, Tensor] = {}
        if stacks:
            self._pack()
        self._point_to_layers()

    @property
    def branch_rank(self) -> int:
        """The largest padded rank of a branch; 0 if there is none."""
        return max((rank for ranks in self.ranks.values() for rank in ranks.values()), default=0)

    def take(self, purpose: str, size: int, dtype: torch.dtype) -> Tensor:
        """A buffer. If a backward pass follows, the buffer is returned to the encoder after it."""
        if not self.backward:
            return torch.empty(size, dtype=dtype)
        self._memory[purpose] = self.encoder.spare.take(purpose, size, dtype)
        return self._memory[purpose]

    def _always_merged(self) -> list[str]:
        """Key and value of the last layer, if only first tokens are read: cls_attention.h needs their full weights."""
        return [f"layers.{self.encoder.table.layers - 1}.{name}" for name in ("key", "value") if self.read == "first"]

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

    def _pack(self) -> None:
        """Pack all adapted linear layers in one call."""
        encoder = self.encoder
        merged, branches = sum(map(self._merged_size, self.names)), sum(map(self._branch_size, self.names))
        packed = self.take("packed", 2 * merged, encoder.dtype)
        packed_branches = self.take("packed branches", 2 * branches, encoder.dtype)
        if self.backward:
            self.take("grad", PARTS * merged, torch.float32)
            self.take("branch grad", PARTS * branches, torch.float32)
        packings, begin, branch_begin = Structure("WeightPacking", len(self.names)), 0, 0
        for i, name in enumerate(self.names):
            self._describe(i, name, Place(packed_branches, 2 * branch_begin), PARTS * branch_begin)
            encoder.describe(packings, i, name, self.adapters)
            packings.point(i, low_rank=Place(self.low_rank, i), branch=self.branch[name])
            size = self._merged_size(name)
            if size:
                forward, back = Place(packed, 2 * begin), Place(packed, 2 * begin + size)
                backward = back if self.backward or encoder.needs_backward(name) else None
                packings.point(i, forward=forward, backward=backward)
                grad = Place(self._memory["grad"], PARTS * begin) if self.backward else None
                self.layers.point(*_place(name), forward=forward, backward=backward, weight_grad=grad)
            self.layers.point(*_place(name), branch=self.branch[name])
            begin, branch_begin = begin + size, branch_begin + self._branch_size(name)
        encoder.kernels.pack_weights(packings)

    def _describe(self, i: int, name: str, packed: Place, grad_begin: int) -> None:
        """Set the adapters' matrices and branches of one linear layer."""
        stack = self.stacks[name]
        a, b = stack["A"], stack["B"]
        self.low_rank.set(i, a_stride=a.stride(0), b_stride=b.stride(0), rank=a.shape[1])
        self.low_rank.point(i, a=Place(a, strided=True), b=Place(b, strided=True), scale=stack.scale)
        grad = Place(self._memory["branch grad"], grad_begin) if self.backward else None
        self.branch[name] = self.branches.structure(self.ranks[name], sum(self._shape(name)), packed, grad)

    def _point_to_layers(self) -> None:
        """Point the layers to the frozen linear layers, and mark what differs between adapters."""
        encoder, layers = self.encoder, self.layers
        for i, ownership in enumerate(encoder.table.ownership(self.names)):
            names = [f"layers.{i}.{name}" for name in LINEARS]
            layers.set(
                i,
                adapted=[int(name in self.stacks) for name in names],
                merged=[int(self.merged.get(name, False)) for name in names],
                per_adapter=[int(name in ownership.own) for name in VALUES],
                keys_needed=int(any(self.ranks.get(f"layers.{i}.{name}") for name in ("key", "value"))),
            )
            for j, name in enumerate(names):
                if not self.merged.get(name):
                    backward = (self.backward and i >= self.lowest) or encoder.needs_backward(name)
                    forward, back = encoder.frozen(name, backward)
                    layers.point(i, j, forward=forward, backward=back)

    def low_rank_gradients(self, into: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Compute the gradients of A and B of each adapted linear layer."""
        gradients, begin = Structure("LowRankGradients", len(into)), 0
        for i, name in enumerate(self.names):
            (grad_a, grad_b), (d_in, d_out), size = into[name], self._shape(name), self._merged_size(name)
            gradients.set(
                i,
                adapters=self.adapters,
                d_out=d_out,
                d_in=d_in,
                parts=PARTS,
                grad_a_stride=grad_a.stride(0),
                grad_b_stride=grad_b.stride(0),
            )
            gradients.point(
                i,
                low_rank=Place(self.low_rank, i),
                branch=self.branch[name],
                weight_grad=Place(self._memory["grad"], PARTS * begin) if size else None,
                grad_a=Place(grad_a, strided=True),
                grad_b=Place(grad_b, strided=True),
            )
            begin += size
        self.encoder.kernels.low_rank_gradients(gradients)

    def release(self) -> None:
        """Return the step's buffers to the encoder."""
        for purpose, memory in self._memory.items():
            self.encoder.spare.give(purpose, memory)
        self._memory = {}


class EncoderPass:
    """The forward pass of one batch, and the backward pass if the weights are packed for it.

    Args:
        adapted: the encoder with its adapters.
        batch: the rows.

    Raises:
        IndexError: see :meth:`PackedEncoder.require_known`.
    """

    def __init__(self, adapted: AdaptedEncoder, batch: Batch) -> None:
        encoder = adapted.encoder
        encoder.require_known(batch)
        self.adapted, self.kernels, self.backward_follows = adapted, encoder.kernels, adapted.backward
        self.tokens, self.rows = len(batch.ids), len(batch)
        self.states = self.rows if adapted.read == "first" else self.tokens
        self.structure = encoder.encoder.copy()
        self.structure.set(
            adapters=adapted.adapters,
            rows=self.rows,
            threads=torch.get_num_threads(),
            cls_only=int(adapted.read == "first"),
            backward=int(adapted.backward),
            lowest_adapted=adapted.lowest,
            chunk_tokens=_chunk_tokens(self.tokens),
            branch_rank=adapted.branch_rank,
        )
        self.structure.point(layer=adapted.layers, offsets=batch.offsets.contiguous())
        self._point_to_tokens(batch)

    def _point_to_tokens(self, batch: Batch) -> None:
        encoder, table = self.adapted.encoder, self.adapted.encoder.table
        if table.embedding_width:
            positions = torch.arange(self.tokens) - batch.offsets[:-1].repeat_interleave(batch.lengths)
            self.structure.point(input=embed(encoder.weights, table, batch.ids, positions, batch.types).contiguous())
        else:
            types = batch.types.contiguous() if batch.types is not None and table.token_types else None
            room = torch.empty(self.tokens, table.width, dtype=encoder.dtype)
            self.structure.point(ids=batch.ids.contiguous(), types=types, input=room)
        if batch.first_tokens is not None and self.adapted.branches.masks:
            self.structure.point(token_numbers=_token_numbers(batch, batch.first_tokens))

    def forward(self) -> Float[Tensor, "k n d"]:
        """The last states of the first tokens or of all tokens, concatenated; k is 1 if all adapters share them."""
        encoder = self.adapted.encoder
        out = torch.empty(self.adapted.adapters, self.states, encoder.table.width, dtype=encoder.dtype)
        activations = None
        if self.backward_follows:
            size = self.kernels.encoder_bytes(self.structure)
            activations = self.adapted.take("activations", size, torch.uint8)
        self.kernels.encoder_forward(self.structure, out, activations)
        self.activations = activations
        return out

    def backward(self, grad: Float[Tensor, "k n d"], into: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Write the gradients of each adapter's A and B to ``into``, given the gradient of the last states.

        Can be called once, because it releases the activations.
        """
        activations = self.activations
        assert activations is not None
        self.kernels.encoder_backward(self.structure, grad.contiguous(), activations)
        self.adapted.low_rank_gradients(into)
        self.activations = None
        self.adapted.release()


def _place(name: str) -> tuple[int, int]:
    """A linear layer's place in the kernels' structures: its encoder layer, and its place among :data:`LINEARS`."""
    _, layer, linear = name.split(".")
    return int(layer), LINEARS.index(linear)


def _token_numbers(batch: Batch, first_tokens: Int[Tensor, "b"]) -> Int[Tensor, "n"]:
    lengths = batch.lengths
    places = torch.arange(len(batch.ids)) - batch.offsets[:-1].repeat_interleave(lengths)
    return first_tokens.repeat_interleave(lengths) + places


def _chunk_tokens(tokens: int) -> int:
    """Tokens per chunk, such that all parts have the same number of chunks of about the same size."""
    chunks = PARTS * max(1, round(tokens / (PARTS * CHUNK_TOKENS)))
    return max(1, -(-tokens // chunks))
