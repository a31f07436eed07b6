"""An encoder's frozen weights in the kernels' format, packed once and shared by all packs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from loralet.backends.batch import Batch
from loralet.backends.native.bindings import Kernels, Structure
from loralet.models.forward import Weights
from loralet.models.table import EncoderTable

LINEARS = ("query", "key", "value", "attention-output", "intermediate", "output")
"""The linear layers of an encoder layer, in the kernels' order."""
NORMS = ("attention-norm", "output-norm")
TYPES = {torch.float32: 0, torch.bfloat16: 1}
"""``FP32`` and ``BF16`` in ``csrc/api.h``."""
PARTS = 2
"""Partial sums of the gradients, one thread each. The number is fixed, so results do not depend on the threads."""

Packed = tuple[Tensor, Tensor | None]
"""A linear layer's packed weights for the forward and the backward pass."""


class Spare:
    """Buffers that steps reuse. Allocating new pages in every step would cost a tenth of its time."""

    def __init__(self) -> None:
        self._free: dict[tuple[str, torch.dtype], list[Tensor]] = {}

    def take(self, purpose: str, size: int, dtype: torch.dtype) -> Tensor:
        """An uninitialised buffer of at least ``size`` values."""
        free = self._free.setdefault((purpose, dtype), [])
        found = free.pop() if free else None
        return found if found is not None and len(found) >= size else torch.empty(size * 5 // 4, dtype=dtype)

    def give(self, purpose: str, memory: Tensor) -> None:
        """Return a buffer, which must not be used any more."""
        self._free.setdefault((purpose, memory.dtype), []).append(memory)


class PackedEncoder:
    """An encoder's frozen weights in the kernels' format.

    Args:
        kernels: the compiled kernels.
        weights: the frozen tensors on the CPU, all of the arithmetic type.
        table: the encoder's layer table.
    """

    def __init__(self, kernels: Kernels, weights: Weights, table: EncoderTable) -> None:
        self.kernels, self.weights, self.table = kernels, weights, table
        self.dtype = weights["embeddings.word"].dtype
        self.linears = {f"layers.{i}.{linear.name}": linear for i in range(table.layers) for linear in table.linears}
        self.pooler = {name: self._fp32(name) for name in weights if name.startswith("pooler.")}
        self.spare = Spare()
        self._packed: dict[str, Packed] = {}
        self.layers = self._layers()
        self.encoder = self._encoder()

    def _layers(self) -> Structure:
        """Biases and norms of the layers, in fp32."""
        layers = Structure("Layer", self.table.layers)
        for i in range(self.table.layers):
            for j, name in enumerate(LINEARS):
                layers.point(i, j, bias=self._fp32(f"layers.{i}.{name}.bias"))
            for j, name in enumerate(NORMS):
                weight, bias = (self._fp32(f"layers.{i}.{name}.{kind}") for kind in ("weight", "bias"))
                layers.point(i, j, norm_weight=weight, norm_bias=bias)
        return layers

    def _fp32(self, name: str) -> Tensor:
        return self.weights[name].float().contiguous()

    def _encoder(self) -> Structure:
        """The fields of an ``Encoder`` that are the same for all batches."""
        table, encoder = self.table, Structure("Encoder")
        sizes = {name: getattr(table, name) for name in ("layers", "width", "heads", "feed_forward", "epsilon")}
        encoder.set(type=TYPES[self.dtype], positions=table.longest, parts=PARTS, **sizes)
        if not table.embedding_width:
            encoder.point(
                word_embeddings=self.weights["embeddings.word"].contiguous(),
                position_embeddings=self._position_embeddings().contiguous(),
                embedding_norm=torch.stack([self.weights[f"embeddings.norm.{kind}"] for kind in ("weight", "bias")]),
            )
        return encoder

    def _position_embeddings(self) -> Float[Tensor, "types t d"]:
        """Position embeddings plus each type embedding, added in fp32 and rounded once."""
        positions = self.weights["embeddings.position"][self.table.first_position :].float()[None]
        if self.table.token_types:
            positions = positions + self.weights["embeddings.type"].float()[:, None]
        return positions.to(self.dtype)

    def frozen(self, name: str, backward: bool) -> Packed:
        """The packed weights of a frozen linear layer, packed at first use."""
        found = self._packed.get(name)
        if found is None or (backward and found[1] is None):
            size = self.weights[f"{name}.weight"].numel()
            forward, back = torch.empty(size, dtype=self.dtype), torch.empty(size if backward else 0, dtype=self.dtype)
            found = (forward, back if backward else None)
            packing = Structure("WeightPacking")
            self.describe(packing, 0, name, 1)
            packing.point(forward=forward, backward=found[1])
            self.kernels.pack_weights(packing)
            self._packed[name] = found
        return found

    def describe(self, packings: Structure, index: int, name: str, adapters: int) -> None:
        """Fill a ``WeightPacking`` for a linear layer."""
        linear = self.linears[name]
        packings.set(index, type=TYPES[self.dtype], adapters=adapters, d_out=linear.d_out, d_in=linear.d_in)
        packings.point(index, weight=self.weights[f"{name}.weight"].contiguous())

    def needs_backward(self, name: str) -> bool:
        """Whether the forward pass needs the weights packed for backward: the last layer's key (cls_attention.h)."""
        return name == f"layers.{self.table.layers - 1}.key"

    def require_known(self, batch: Batch) -> None:
        """Check the indices of a batch, because the kernels do not.

        Raises:
            IndexError: a token id or type is not in its table, a row has no tokens or too many, or the offsets do not
                match the ids.
        """
        if not len(batch) or int(batch.offsets[0]) or int(batch.offsets[-1]) != len(batch.ids):
            raise IndexError(f"the offsets of a batch of {len(batch)} rows do not match its {len(batch.ids)} token ids")
        shortest, longest = (int(x) for x in batch.lengths.aminmax())
        if shortest < 1 or longest > self.table.longest:
            raise IndexError(f"rows have {shortest} to {longest} tokens; they must have 1 to {self.table.longest}")
        _require_range("token ids", batch.ids, self.table.vocabulary)
        if batch.types is not None and self.table.token_types:
            _require_range("token types", batch.types, self.table.token_types)


def _require_range(what: str, values: Tensor, count: int) -> None:
    low, high = (int(x) for x in values.aminmax())
    if low < 0 or high >= count:
        raise IndexError(f"{what} range from {low} to {high}; they must be from 0 to {count - 1}")
