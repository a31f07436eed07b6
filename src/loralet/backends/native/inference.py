"""Logits of k adapters in C, without torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from loralet.adapters.layout import Layout
from loralet.backends.info import BackendInfo
from loralet.backends.native.adapted import AdaptedEncoder, EncoderPass, low_rank_of
from loralet.backends.native.arrays import BF16, FP32
from loralet.backends.native.bindings import load_kernels
from loralet.backends.native.encoder import PackedEncoder
from loralet.backends.native.head import NativeHead, kernel_has
from loralet.backends.native.support import bf16_is_faster, unsupported
from loralet.backends.rows import FlatRows
from loralet.runtime import thread_count


class NativeInference:
    """The forward pass of a pack with fixed parameters. Threads may use it at the same time.

    A single adapter is merged into the weights, because that is faster. Several share the frozen weights, as in
    training.

    Args:
        arrays: the encoder's frozen tensors in fp32.
        layout: the parameter layout.
        parameters: the parameters.
        precision: ``fp32``, ``bf16``, or ``auto``: the faster of the two.

    Raises:
        NativeUnavailable: there are no kernels.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        layout: Layout,
        parameters: Float[np.ndarray, "k n"],
        precision: str,
    ) -> None:
        self.kernels, self.layout = load_kernels(), layout
        self.bf16 = precision == "bf16" or (precision == "auto" and bf16_is_faster(self.kernels.instructions))
        dtype = BF16 if self.bf16 else FP32
        weights = {name: self.kernels.convert(array, dtype) for name, array in arrays.items()}
        encoder = PackedEncoder(self.kernels, weights, layout.shape.table)
        tensors = layout.split_array(parameters)
        matrices, merge = low_rank_of(layout, tensors), len(layout.adapters) == 1
        self.adapted = AdaptedEncoder(encoder, layout.adapters, matrices, layout.shape.read, merge=merge)
        self.adapted.pack()
        self.head = NativeHead(self.kernels, layout.shape.head, tensors, encoder.pooler)

    @staticmethod
    def supports(layout: Layout, method: str) -> bool:
        """Whether the kernels compute this pack, its head included."""
        shape = layout.shape
        return unsupported(shape.table, method) is None and kernel_has(shape.head, shape.pooling)

    @property
    def info(self) -> BackendInfo:
        """The backend's entry in a record."""
        dtype = "bf16" if self.bf16 else "fp32"
        return BackendInfo("native", "cpu", self.kernels.words, dtype, thread_count())

    def logits(self, rows: FlatRows) -> Float[np.ndarray, "k b c"]:
        """Logits of the rows.

        Raises:
            IndexError: a token id is not in the vocabulary, or a row has no tokens or too many.
            MemoryError: not enough memory.
        """
        states = EncoderPass(self.adapted, rows).forward()
        return self.head.on(rows, self.layout.shape.table).forward(states)
