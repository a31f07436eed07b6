"""Floating point operations of LoRA training and inference, and the rate of large matrix products on this machine."""

from __future__ import annotations

import time

import numpy as np
import torch

from loralet.adapters.pack import Pack
from loralet.models.table import EncoderTable, LinearLayer, Ownership

SIZE = 2048
"""Rows and columns of the large matrices."""


def flops(pack: Pack, lengths: np.ndarray, backward: bool) -> float:
    """Operations of a pack on texts of these lengths, from the encoder's layer table. An addition counts as one.

    Only matrix products count: T tokens through a linear layer are ``2 T d_in d_out``. The model is that of LoRA as
    branches, whatever the backend computes, on real tokens without padding, for a head on the first token:

    * a linear layer: ``2 T d_in d_out`` forward; the same backward, for the gradient of its input;
    * an adapter of rank r: ``2 T r (d_in + d_out)`` forward; backward the same for A and B, and the same for its input;
    * attention on a text of n tokens: ``2 n^2 d`` for the scores and for the context; backward twice as many;
    * pooler and classifier, for one token of each text.

    In the last layer, all but key and value are computed for the first token of each text. Values that no adapter
    changes are computed once for the whole pack, and have no gradient. Frozen weights have no gradient.

    Args:
        pack: the adapters, with the frozen pooler as head.
        lengths: tokens of each text.
        backward: include the backward pass.
    """
    table, total = pack.shape.table, 0.0
    for i, ownership in enumerate(table.ownership(pack.adapted)):
        last = i == table.layers - 1
        total += _attention(table, ownership, lengths, last, len(pack.adapters), backward)
        for linear in table.linears:
            tokens = int(lengths.sum()) if not last or linear.reads == "input" else len(lengths)
            tokens = len(lengths) if last and linear.name == "query" else tokens
            total += _linear(pack, f"layers.{i}.{linear.name}", linear, ownership, tokens, backward)
    return total + _head(pack, len(lengths), backward)


def _linear(pack: Pack, name: str, linear: LinearLayer, ownership: Ownership, tokens: int, backward: bool) -> float:
    """Operations of a linear layer and its adapters."""
    own_input = ownership.input if linear.reads == "input" else linear.reads in ownership.own
    ranks = sum(adapter.rank for adapter in pack.adapters if name in adapter.linears)
    base, branch = 2.0 * tokens * linear.d_in * linear.d_out, 2.0 * tokens * ranks
    adapters = len(pack.adapters)
    total = base * (adapters if own_input else 1) + branch * (linear.d_in + linear.d_out)
    if backward:
        total += branch * (linear.d_in + 2 * linear.d_out)  # A; B, and the input of B
        total += (base * adapters + branch * linear.d_in) if own_input else 0.0
    return total


def _attention(
    table: EncoderTable, ownership: Ownership, lengths: np.ndarray, last: bool, adapters: int, backward: bool
) -> float:
    """Operations of one layer's scores and context."""
    pairs = lengths.sum() if last else np.square(lengths.astype(np.float64)).sum()
    product, own = 2.0 * float(pairs) * table.width, ownership.own
    scores = bool({"query", "key"} & own)
    total = product * ((adapters if scores else 1) + (adapters if "context" in own else 1))
    if backward:
        total += product * adapters * (scores + sum(name in own for name in ("query", "key", "value")))
    return total


def _head(pack: Pack, texts: int, backward: bool) -> float:
    """Operations of pooler and classifier."""
    table, adapters = pack.shape.table, len(pack.adapters)
    own = bool(pack.adapted)
    pooler = 2.0 * texts * table.width**2
    classifier = 2.0 * texts * table.width * pack.shape.outputs * adapters
    total = pooler * (adapters if own else 1) + classifier
    if backward:
        total += classifier + (pooler * adapters + classifier if own else 0.0)
    return total


def matmul_rates() -> dict[str, float]:
    """GFLOP/s of large matrix products with torch, by precision."""
    return {"fp32": _rate(torch.float32), "bf16": _rate(torch.bfloat16)}


def _rate(dtype: torch.dtype) -> float:
    """The best of the products of one second, at least of one."""
    a, b = (torch.randn(SIZE, SIZE).to(dtype) for _ in range(2))
    started, times = time.perf_counter(), [float("inf")]
    while time.perf_counter() - started < 1:
        before = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - before)
    return 2 * SIZE**3 / min(times) / 1e9
