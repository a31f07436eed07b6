"""Attention in C, compared with torch: forward, gradients, and cases computed by torch."""

from __future__ import annotations

import pytest
import torch
from backends import each_native, each_native_and_type
from torch import Tensor

from loralet.backends.native.backend import NativeBackend
from loralet.models.forward import attention

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1.6e-2}
"""Relative for results above 1. fp32: different summation order. bf16: two last digits, as the kernel also rounds the
probabilities."""
LENGTHS = torch.tensor([37, 3, 20, 16, 1])


def apart(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, relative for values above 1."""
    return float(((ours - theirs).float().abs() / theirs.float().abs().clamp(min=1)).detach().max())


def operands(
    axes: tuple[int, int, int], width: int, dtype: torch.dtype, queries: int, tokens: int = 37
) -> list[Tensor]:
    """Query, key and value of five rows. Those shared by all adapters require no gradient."""
    generator = torch.Generator().manual_seed(0)
    sizes = zip(axes, (queries, tokens, tokens), strict=True)
    found = [torch.randn(k, 5, count, width, generator=generator).to(dtype) for k, count in sizes]
    return [x.requires_grad_(x.shape[0] == max(axes)) for x in found]


@each_native_and_type
@pytest.mark.parametrize(("heads", "size"), [(2, 16), (2, 64), (1, 48)])
@pytest.mark.parametrize("axes", [(1, 1, 1), (3, 1, 3), (3, 3, 3), (1, 3, 1)], ids=str)
@pytest.mark.parametrize("queries", [1, 37])
def test_forward_and_gradients_match_torch(
    queries: int, axes: tuple[int, int, int], heads: int, size: int, dtype: torch.dtype, backend: NativeBackend
) -> None:
    q, k, v = operands(axes, heads * size, dtype, queries)
    inside = (torch.arange(queries) < LENGTHS[:, None])[None, :, :, None]
    ours, theirs = backend.attention(q, k, v, LENGTHS, heads), attention(q, k, v, LENGTHS, heads)
    assert ours.dtype == dtype
    assert type(ours.grad_fn).__name__ == "_AttentionBackward"
    assert apart(ours * inside, theirs * inside) <= TOLERANCE[dtype]
    assert (theirs - attention(q, k, v, torch.full((5,), 37), heads)).abs().max() > TOLERANCE[dtype]
    wanted = [x for x in (q, k, v) if x.requires_grad]
    grad = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1)).to(dtype) * inside
    found = torch.autograd.grad(ours, wanted, grad), torch.autograd.grad(theirs, wanted, grad)
    for own, reference in zip(*found, strict=True):
        assert apart(own, reference) <= TOLERANCE[dtype]
        assert reference.abs().max() > 10 * TOLERANCE[dtype]


@each_native
def test_operands_and_gradients_need_not_be_contiguous(backend: NativeBackend) -> None:
    """The copies read by the kernel stay alive until it returns, even if other tensors are allocated meanwhile."""
    q, k, v = operands((2, 2, 2), 64, torch.float32, 37)
    inside = (torch.arange(37) < LENGTHS[:, None])[None, :, :, None]
    grad = torch.randn(2, 5, 64, 37, generator=torch.Generator().manual_seed(1)).transpose(2, 3) * inside
    turned = [x.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_() for x in (q, k, v)]
    assert not any(x.is_contiguous() for x in (grad, *turned))
    lengths = torch.stack([LENGTHS, LENGTHS], 1)[:, 0]
    ours = torch.autograd.grad(backend.attention(*turned, lengths, 2), turned, grad)
    theirs = torch.autograd.grad(attention(q, k, v, LENGTHS, 2), (q, k, v), grad)
    for own, reference in zip(ours, theirs, strict=True):
        assert apart(own, reference) <= TOLERANCE[torch.float32]


@each_native
def test_nan_does_not_spread_to_other_heads(backend: NativeBackend) -> None:
    q, k, v = (torch.randn(1, 2, 20, 32) for _ in range(3))
    k[0, 0, 7, 3] = torch.nan
    out = backend.attention(q, k, v, torch.tensor([20, 20]), 2)
    assert out[0, 0, :, :16].isnan().all()
    assert out[0, 0, :, 16:].isfinite().all()
    assert out[0, 1].isfinite().all()


@each_native
def test_lengths_beyond_the_tokens_are_clipped(backend: NativeBackend) -> None:
    q, k, v = (torch.randn(1, 2, 20, 32) for _ in range(3))
    whole = backend.attention(q, k, v, torch.tensor([20, 20]), 2)
    assert torch.equal(backend.attention(q, k, v, torch.tensor([1000, 20], dtype=torch.int32), 2), whole)
    assert not torch.equal(backend.attention(q, k, v, torch.tensor([19, 20]), 2), whole)


@each_native
@pytest.mark.parametrize("what", ["bias", "head size", "types", "shared gradient", "float64"])
def test_unsupported_cases_use_torch(what: str, backend: NativeBackend) -> None:
    q, k, v = operands((2, 2, 2), 48, torch.float32, 37)
    heads, bias = 3, None
    if what == "bias":
        bias = torch.randn(1, 3, 37, 37)
    elif what == "head size":
        heads = 4
    elif what == "types":
        v = v.detach().bfloat16()
    elif what == "shared gradient":
        k = k.detach()[:1].requires_grad_()
    else:
        q, k, v = (x.detach().double() for x in (q, k, v))
    ours, theirs = backend.attention(q, k, v, LENGTHS, heads, bias), attention(q, k, v, LENGTHS, heads, bias)
    assert torch.equal(ours, theirs)
    assert type(ours.grad_fn).__name__ != "_AttentionBackward"
    if bias is not None:
        assert not torch.equal(ours, attention(q, k, v, LENGTHS, heads))
