"""Attention: in C where that is built, else in torch. The same result to rounding; the twins are compared in the tests.

The C kernel takes fp32 or bf16 tensors on the processor and heads whose size is a multiple of 16. Everything else takes torch's way.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from loralet.backends.native.build import Kernels, library

LANES = 16
"""Numbers that the kernel takes at once; a head's size must be a multiple."""


def attention(
    query: Float[Tensor, "kq b s d"],
    key: Float[Tensor, "kk b t d"],
    value: Float[Tensor, "kv b t d"],
    lengths: Int[Tensor, "b"],
    heads: int,
) -> Float[Tensor, "k b s d"]:
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2) in fp32, heads side by side in d.

    Args:
        query, key, value: with an axis k of their own, or of 1 where all adapters share them.
        lengths: tokens of each row that may be attended to.
        heads: number of heads; divides d.

    Returns:
        In the type of query. Positions of s beyond a row's length are unspecified, but finite.
    """
    tensors = (query, key, value)
    sets = max(x.shape[0] for x in tensors)
    shared_gradient = any(x.requires_grad and x.shape[0] < sets for x in tensors)
    alike = all(x.dtype == query.dtype and x.device == query.device for x in tensors)
    if (query.shape[-1] // heads) % LANES == 0 and not shared_gradient and alike and kernels(query) is not None:
        out: Tensor = _Attention.apply(query, key, value, lengths, heads)  # type: ignore[no-untyped-call]  # torch's own
        return out
    return attention_twin(query, key, value, lengths, heads)


def attention_twin(query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, heads: int) -> Tensor:
    """:func:`attention` written out in torch."""
    d_head = query.shape[-1] // heads
    q, k, v = (x.float().view(*x.shape[:-1], heads, d_head).transpose(2, 3) for x in (query, key, value))
    scores = torch.matmul(q * (1 / math.sqrt(d_head)), k.transpose(-1, -2))
    padding = torch.arange(key.shape[2], device=lengths.device) >= lengths[:, None]
    scores = scores.masked_fill(padding[:, None, None], -torch.inf)
    return torch.matmul(scores.softmax(-1), v).transpose(2, 3).flatten(-2).to(query.dtype)


def kernels(like: Tensor) -> Kernels | None:
    """The kernels for tensors like this one, or None: it is not on the processor, of another type, or nothing is compiled."""
    kind = {torch.float32: "fp32", torch.bfloat16: "bf16"}.get(like.dtype)
    built = library() if kind and like.device.type == "cpu" else None
    return built[kind] if built and kind else None


def pointers(*arguments: Any) -> list[Any]:
    """Arguments of a kernel: of a tensor, where its numbers begin."""
    return [x.data_ptr() if isinstance(x, Tensor) else x for x in arguments]


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, heads: int) -> Tensor:
        query, key, value, lengths = (
            query.contiguous(),
            key.contiguous(),
            value.contiguous(),
            lengths.long().contiguous(),
        )
        sets = max(x.shape[0] for x in (query, key, value))
        rows, reads, width = query.shape[1:]
        tokens = key.shape[2]
        out = query.new_empty(sets, rows, reads, width)
        padded = -(-tokens // LANES) * LANES
        wanted = any(ctx.needs_input_grad)
        kept = query.new_empty(sets * rows * heads * reads * padded) if wanted else None
        sizes = (sets, rows, reads, tokens, heads, width // heads)
        owned = [argument for x in (query, key, value) for argument in (x, int(x.shape[0] == sets))]
        found = kernels(query)
        assert found is not None
        found["attention_forward"](*pointers(*owned, lengths, out, kept, *sizes, torch.get_num_threads()))
        if kept is not None:
            ctx.save_for_backward(query, key, value, lengths, kept)
            ctx.sizes = sizes
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, lengths, kept = ctx.saved_tensors
        grads = [
            torch.empty_like(x) if wanted else None
            for x, wanted in zip((query, key, value), ctx.needs_input_grad, strict=False)
        ]
        owned = [argument for x in (query, key, value) for argument in (x, int(x.shape[0] == ctx.sizes[0]))]
        found = kernels(query)
        assert found is not None
        found["attention_backward"](
            *pointers(*owned, lengths, kept, grad.contiguous(), *grads, *ctx.sizes, torch.get_num_threads())
        )
        return (*grads, None, None)
