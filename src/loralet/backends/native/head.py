"""Head and classifier of a batch in C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np
from jaxtyping import Float, Shaped

from loralet.adapters.adapter import Adapter
from loralet.adapters.counters import head_index
from loralet.backends.native.arrays import FP32, empty
from loralet.backends.native.bindings import Kernels, Place, Structure
from loralet.backends.native.branches import head_masks
from loralet.backends.rows import FlatRows
from loralet.models.pooling import HeadKind, Pooling
from loralet.models.table import EncoderTable
from loralet.runtime import thread_count

POOLING: Mapping[str, frozenset[object] | None] = {
    "activation": frozenset({"tanh"}),
    "bias": frozenset({True}),
    "norm": frozenset({False}),
    "epsilon": None,  # that of the norm
}
"""For every field of a pooler that the kernels know, the supported values; None: any. Other fields are rejected."""
HEADS: frozenset[HeadKind] = frozenset({"mean", "pooler", "trained-pooler"})


def kernel_has(head: HeadKind, pooling: Pooling) -> bool:
    """Whether the kernels support a head: the mean over tokens, or a BERT pooler."""
    if head not in HEADS:
        return False
    return head == "mean" or all(
        field.name in POOLING and _allows(POOLING[field.name], getattr(pooling, field.name))
        for field in fields(pooling)
    )


def _allows(values: frozenset[object] | None, value: object) -> bool:
    return values is None or value in values


class NativeHead:
    """Head and classifier of k adapters, which :func:`kernel_has` must support.

    Args:
        kernels: the compiled kernels.
        kind: input of the classifier.
        parameters: the adapters' ``classifier.*``, and ``pooler.*`` if it is trained: fp32 views of one matrix
            ``[k n]``.
        frozen: ``pooler.*`` in fp32, for a frozen pooler.
    """

    def __init__(
        self,
        kernels: Kernels,
        kind: HeadKind,
        parameters: Mapping[str, np.ndarray],
        frozen: Mapping[str, np.ndarray],
    ) -> None:
        self.kernels, self.kind, self.parameters = kernels, kind, parameters
        weight = parameters["classifier.weight"]
        self.adapters, self.outputs, width = weight.shape
        self.structure = Structure("Head")
        self.structure.set(adapters=self.adapters, width=width, outputs=self.outputs)
        self.structure.set(parameter_stride=weight.strides[0] // weight.itemsize)
        self.structure.point(**_places("classifier", parameters, strided=True))
        if kind != "mean":
            trained = "pooler.weight" in parameters
            pooler = parameters if trained else frozen
            stride = pooler["pooler.weight"].strides[0] // FP32.itemsize if trained else 0
            self.structure.set(pooler_stride=stride)
            self.structure.point(**_places("pooler", pooler, strided=trained))

    def on(
        self,
        rows: FlatRows,
        table: EncoderTable,
        adapters: Sequence[Adapter] = (),
        dropout: float = 0.0,
        step: int | None = None,
    ) -> HeadPass:
        """The head on one batch.

        Args:
            rows: the rows.
            table: the encoder's layer table.
            adapters, dropout: the adapters, and the dropout of the classifier's input.
            step: number of optimiser steps taken before this one; None: no dropout.
        """
        structure = self.structure.copy()
        structure.set(rows=len(rows), threads=thread_count())
        if self.kind == "mean":
            structure.point(offsets=np.ascontiguousarray(rows.offsets))
        masks = head_masks(adapters, dropout, step)
        if masks is not None:
            structure.set(dropout_index=head_index(table))
            numbers = None if rows.row_numbers is None else np.ascontiguousarray(rows.row_numbers)
            structure.point(dropout=masks, row_numbers=numbers)
        return HeadPass(self, structure, len(rows))


class HeadPass:
    """Forward and backward pass of a head on one batch."""

    def __init__(self, head: NativeHead, structure: Structure, rows: int) -> None:
        self.head, self.structure, self.rows = head, structure, rows

    def forward(self, states: Shaped[np.ndarray, "j n d"]) -> Float[np.ndarray, "k b c"]:
        """Logits.

        Args:
            states: one per row, or, for the mean, one per token, concatenated; j is 1 if all adapters share them.
        """
        head, values = self.head, self.head.kernels.convert(states, FP32)
        self.values, self.state_type = values, states.dtype
        features = empty((head.adapters, self.rows, values.shape[-1]), FP32)
        logits = empty((head.adapters, self.rows, head.outputs), FP32)
        stride = values.shape[1] * values.shape[2] if len(values) == head.adapters else 0
        self.structure.set(state_stride=stride)
        self.structure.point(states=values, features=features, logits=logits)
        head.kernels.head_forward(self.structure)
        return logits

    def backward(
        self, grad: Float[np.ndarray, "k b c"], gradients: Mapping[str, np.ndarray], wanted: bool
    ) -> Shaped[np.ndarray, "k n d"] | None:
        """The gradient of the states, in their type, or None.

        Args:
            grad: gradient of the logits.
            gradients: gradients of the trained tensors, views of one matrix ``[k n]``; the head's are written.
            wanted: whether to compute the gradient of the states, which are then per-adapter.
        """
        grad_states = empty(self.values.shape, FP32) if wanted else None
        self.structure.point(grad_logits=np.ascontiguousarray(grad), grad_states=grad_states)
        for part in ("classifier", "pooler"):
            if f"{part}.weight" in gradients:
                self.structure.point(**_places(part, gradients, strided=True, prefix="grad_"))
        self.head.kernels.head_backward(self.structure)
        return None if grad_states is None else self.head.kernels.convert(grad_states, self.state_type)


def _places(part: str, arrays: Mapping[str, np.ndarray], strided: bool, prefix: str = "") -> dict[str, Place]:
    """Weight and bias of a linear layer, by their field names in ``Head``."""
    return {f"{prefix}{part}_{kind}": Place(arrays[f"{part}.{kind}"], 0, strided) for kind in ("weight", "bias")}
