"""Differentiable attention in C; cases that the kernel does not support are computed in torch."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from loralet.backends.native.bindings import Kernels, Structure
from loralet.backends.native.encoder import TYPES
from loralet.backends.native.torch_arrays import ARRAY_TYPES, array_of
from loralet.models.forward import attention
from loralet.runtime import thread_count

LANES = 16
"""Values per vector of the widest instruction set. Head sizes must be multiples; probabilities are padded to one."""


class NativeAttention:
    """See :func:`loralet.models.forward.attention`.

    That function is used for cases that the kernel does not support: a bias, head sizes that are not a multiple of 16,
    tensors of mixed types or not on the CPU, and gradients of tensors that adapters share.

    Args:
        kernels: the compiled kernels.
    """

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels

    def __call__(
        self,
        query: Float[Tensor, "kq b s d"],
        key: Float[Tensor, "kk b t d"],
        value: Float[Tensor, "kv b t d"],
        lengths: Int[Tensor, "b"],
        heads: int,
        bias: Float[Tensor, "j h s t"] | None = None,
    ) -> Float[Tensor, "k b s d"]:
        if bias is not None or not _supported(query, key, value, heads):
            return attention(query, key, value, lengths, heads, bias)
        out = _Attention.apply(query, key, value, lengths, heads, self.kernels)  # type: ignore[no-untyped-call]
        return cast(Tensor, out)


def _supported(query: Tensor, key: Tensor, value: Tensor, heads: int) -> bool:
    tensors = (query, key, value)
    adapters = max(x.shape[0] for x in tensors)
    alike = all(x.dtype == query.dtype and x.device.type == "cpu" for x in tensors) and query.dtype in ARRAY_TYPES
    shared_gradient = any(x.requires_grad and x.shape[0] < adapters for x in tensors)
    return alike and not shared_gradient and (query.shape[-1] // heads) % LANES == 0


class _Attention(torch.autograd.Function):
    """The kernel as an autograd function. ``ctx`` is torch's context object, which accepts any attribute."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, heads: int, kernels: Kernels
    ) -> Tensor:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        lengths = lengths.long().clamp(0, key.shape[2]).contiguous()
        structure = _structure(query, key, value, lengths, heads)
        adapters = max(x.shape[0] for x in (query, key, value))
        out = query.new_empty(adapters, *query.shape[1:])
        structure.point(out=array_of(out))
        if any(ctx.needs_input_grad):
            padded = -(-key.shape[2] // LANES) * LANES
            probabilities = query.new_empty(adapters, query.shape[1], heads, query.shape[2], padded)
            structure.point(probabilities=array_of(probabilities))
            ctx.save_for_backward(query, key, value, lengths, probabilities)
            ctx.heads, ctx.kernels = heads, kernels
        kernels.attention_forward(structure)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, lengths, probabilities = ctx.saved_tensors
        structure = _structure(query, key, value, lengths, ctx.heads)
        structure.point(probabilities=array_of(probabilities), grad_out=array_of(grad.contiguous()))
        grads = [
            torch.empty_like(x) if wanted else None
            for x, wanted in zip((query, key, value), ctx.needs_input_grad, strict=False)
        ]
        names = ("grad_query", "grad_key", "grad_value")
        pointers = {name: array_of(x) for name, x in zip(names, grads, strict=True) if x is not None}
        structure.point(**pointers)
        ctx.kernels.attention_backward(structure)
        return (*grads, None, None, None)


def _structure(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, heads: int) -> Structure:
    adapters = max(x.shape[0] for x in (query, key, value))
    _, rows, queries, width = query.shape
    structure = Structure("Attention")
    structure.set(
        type=TYPES[ARRAY_TYPES[query.dtype]],
        adapters=adapters,
        rows=rows,
        queries=queries,
        tokens=key.shape[2],
        heads=heads,
        head_size=width // heads,
        threads=thread_count(),
    )
    for name, x in (("query", query), ("key", key), ("value", value)):
        structure.set(**{f"{name}_per_adapter": int(len(x) == adapters)})
    structure.point(query=array_of(query), key=array_of(key), value=array_of(value), lengths=array_of(lengths))
    return structure
