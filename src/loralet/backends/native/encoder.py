"""An encoder's frozen weights in the kernels' format, packed once and shared by all packs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Shaped

from loralet.backends.native.arrays import BF16, FP32, Arrays, empty
from loralet.backends.native.bindings import Kernels, Structure
from loralet.backends.rows import FlatRows
from loralet.models.table import EncoderTable

LINEARS = ("query", "key", "value", "attention-output", "intermediate", "output")
"""The linear layers of an encoder layer, in the kernels' order."""
NORMS = ("attention-norm", "output-norm")
TYPES = {FP32: 0, BF16: 1}
"""``FP32`` and ``BF16`` in ``csrc/api.h``."""
PARTS = 2
"""Partial sums of the gradients, one thread each. The number is fixed, so results do not depend on the threads."""

Packed = tuple[np.ndarray, "np.ndarray | None"]
"""A linear layer's packed weights for the forward and the backward pass."""


class PackedEncoder:
    """An encoder's frozen weights in the kernels' format.

    Args:
        kernels: the compiled kernels.
        weights: the frozen tensors, all fp32 or all bf16.
        table: the encoder's layer table.
    """

    def __init__(self, kernels: Kernels, weights: Arrays, table: EncoderTable) -> None:
        self.kernels, self.weights, self.table = kernels, weights, table
        self.dtype = weights["embeddings.word"].dtype
        self.linears = {f"layers.{i}.{linear.name}": linear for i in range(table.layers) for linear in table.linears}
        self.pooler = {name: self._fp32(name) for name in weights if name.startswith("pooler.")}
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

    def _fp32(self, name: str) -> np.ndarray:
        return self.kernels.convert(self.weights[name], FP32)

    def _encoder(self) -> Structure:
        """The fields of an ``Encoder`` that are the same for all batches."""
        table, encoder = self.table, Structure("Encoder")
        sizes = {name: getattr(table, name) for name in ("layers", "width", "heads", "feed_forward", "epsilon")}
        encoder.set(type=TYPES[self.dtype], positions=table.longest, parts=PARTS, **sizes)
        if not table.embedding_width:
            encoder.point(
                word_embeddings=np.ascontiguousarray(self.weights["embeddings.word"]),
                position_embeddings=self._position_embeddings(),
                embedding_norm=np.stack([self.weights[f"embeddings.norm.{kind}"] for kind in ("weight", "bias")]),
            )
        return encoder

    def _position_embeddings(self) -> np.ndarray:
        """Position embeddings plus each type embedding, ``[types, positions, width]``, added in fp32, rounded once."""
        positions = self._fp32("embeddings.position")[None, self.table.first_position :]
        if self.table.token_types:
            positions = positions + self._fp32("embeddings.type")[:, None]
        return self.kernels.convert(positions, self.dtype)

    def embed(self, rows: FlatRows) -> Shaped[np.ndarray, "n d"]:
        """Embeddings with a projection (ELECTRA), which the kernels do not compute, rounded after every operation.

        See :func:`loralet.models.forward.embed`.
        """
        table = self.table
        positions = rows.positions + table.first_position
        x = self.kernels.convert(self.weights["embeddings.word"][rows.ids], FP32)
        if table.token_types and rows.types is None:
            x = x + self._rounded(self._fp32("embeddings.position") + self._fp32("embeddings.type")[0])[positions]
        else:
            x = x + self._fp32("embeddings.position")[positions]
        if table.token_types and rows.types is not None:
            x = self._rounded(x) + self._fp32("embeddings.type")[rows.types]
        x = self._rounded(x)
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(table.epsilon))
        x = self._rounded(x * self._fp32("embeddings.norm.weight") + self._fp32("embeddings.norm.bias"))
        return self.kernels.convert(self._projected(x), self.dtype)

    def _projected(self, x: np.ndarray) -> np.ndarray:
        """The projection, in the kernels: numpy's product has threads of its own and depends on the other rows."""
        out, product = empty((len(x), self.table.width), FP32), Structure("Product")
        product.set(type=TYPES[FP32], m=len(x), n=self.table.width, k=self.table.embedding_width)
        weight = np.ascontiguousarray(self._fp32("embeddings.projection.weight").T)
        product.point(a=np.ascontiguousarray(x), b=weight, out=out)
        self.kernels.product(product)
        out += self._fp32("embeddings.projection.bias")
        return out

    def _rounded(self, values: np.ndarray) -> np.ndarray:
        """fp32 values, rounded to the arithmetic type."""
        return self.kernels.convert(self.kernels.convert(values, self.dtype), FP32)

    def frozen(self, name: str, backward: bool) -> Packed:
        """The packed weights of a frozen linear layer, packed at first use."""
        found = self._packed.get(name)
        if found is None or (backward and found[1] is None):
            size = self.weights[f"{name}.weight"].size
            found = empty(size, self.dtype), empty(size, self.dtype) if backward else None
            packing = Structure("WeightPacking")
            self.describe(packing, 0, name, 1)
            packing.point(forward=found[0], backward=found[1])
            self.kernels.pack_weights(packing)
            self._packed[name] = found
        return found

    def describe(self, packings: Structure, index: int, name: str, adapters: int) -> None:
        """Fill a ``WeightPacking`` for a linear layer."""
        linear = self.linears[name]
        packings.set(index, type=TYPES[self.dtype], adapters=adapters, d_out=linear.d_out, d_in=linear.d_in)
        packings.point(index, weight=np.ascontiguousarray(self.weights[f"{name}.weight"]))

    def needs_backward(self, name: str) -> bool:
        """Whether the forward pass needs the weights packed for backward: the last layer's key (cls_attention.h)."""
        return name == f"layers.{self.table.layers - 1}.key"

    def require_known(self, rows: FlatRows) -> None:
        """Check the indices of a batch, because the kernels do not.

        Raises:
            IndexError: a token id or type is not in its table, a row has no tokens or too many, or the offsets do not
                match the ids.
        """
        if len(rows) < 1 or rows.offsets[0] or rows.offsets[-1] != len(rows.ids):
            raise IndexError(f"the offsets of a batch of {len(rows)} rows do not match its {len(rows.ids)} token ids")
        lengths = rows.lengths
        shortest, longest = int(lengths.min()), int(lengths.max())
        if shortest < 1 or longest > self.table.longest:
            raise IndexError(f"rows have {shortest} to {longest} tokens; they must have 1 to {self.table.longest}")
        _require_range("token ids", rows.ids, self.table.vocabulary)
        if rows.types is not None and self.table.token_types:
            _require_range("token types", rows.types, self.table.token_types)


def _require_range(what: str, values: np.ndarray, count: int) -> None:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= count:
        raise IndexError(f"{what} range from {low} to {high}; they must be from 0 to {count - 1}")
