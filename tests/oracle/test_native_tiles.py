"""Matrix products alone, compared with torch, for all sizes up to several tiles; and tiles shared with oneDNN."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from backends import EMULATED, NATIVE, each_native, each_native_and_type
from packs import compute, evaluate, make_case
from torch import Tensor

from loralet.backends.native import build
from loralet.backends.native.backend import NativeBackend
from loralet.backends.native.bindings import Kernels, Structure, load_kernels
from loralet.backends.native.build import INSTRUCTION_SETS, SANITIZE
from loralet.backends.native.encoder import TYPES
from loralet.backends.native.torch_arrays import ARRAY_TYPES, array_of
from loralet.cpu import cpu_features

ROWS = {True: range(1, 41), False: (1, 5, 6, 7, 40)}
"""Numbers of rows: with tiles, and without."""
COLUMNS = (16, 32, 48, 64, 80, 144)
"""One to four vectors, and more than one panel."""


def product(kernels: Kernels, a: Tensor, b: Tensor, out: Tensor | None = None, transposed: bool = False) -> Tensor:
    """The kernels' ``a b``, or ``a^T b`` if ``transposed``; added to ``out`` if that is given."""
    m, k = reversed(a.shape) if transposed else a.shape
    result, structure = torch.empty(m, b.shape[1]) if out is None else out.clone(), Structure("Product")
    structure.set(
        type=TYPES[ARRAY_TYPES[a.dtype]], m=m, n=b.shape[1], k=k, transposed=int(transposed), add=int(out is not None)
    )
    structure.point(a=array_of(a.contiguous()), b=array_of(b), out=array_of(result))
    kernels.product(structure)
    return result


def integers(*size: int, dtype: torch.dtype) -> Tensor:
    """Small random integers: sums of their products are exact in fp32, in any order."""
    return torch.randint(-8, 9, size, generator=torch.Generator().manual_seed(sum(size))).to(dtype)


def check_products(kernels: Kernels, m: int, dtype: torch.dtype) -> None:
    """Products of m rows and up to 50 units, with both layouts of the left operand; half of them are added to sums."""
    pair, rows = (2 if dtype == torch.bfloat16 else 1), -(-m // 16) * 16
    for units in range(1, 51):
        k, n = units * pair, COLUMNS[(m + units) % len(COLUMNS)]
        left, right, sums = (integers(*size, dtype=dtype) for size in ((rows, k), (k, n), (rows, n)))
        out = sums.float() if (m + units // 7) % 2 else None
        start = 0 if out is None else out
        exact = left.float() @ right.float() + start
        assert torch.equal(product(kernels, left[:m], right, None if out is None else out[:m]), exact[:m]), (m, k)
        if units % 2:  # the last pair is half of one
            left, right = left[:, : k - pair + 1].contiguous(), right[: k - pair + 1]
            exact = left.float() @ right.float() + start
        assert torch.equal(product(kernels, left.t(), right, out, transposed=True), exact), (m, k)
    assert exact.abs().max() > 100


@each_native_and_type
def test_products_match_torch(dtype: torch.dtype, backend: NativeBackend) -> None:
    tiles = dtype == torch.bfloat16 and "amx" in backend.kernels.instructions
    for m in ROWS[tiles]:
        check_products(backend.kernels, m, dtype)


@pytest.mark.skipif(not cpu_features().issuperset(INSTRUCTION_SETS["avx512-bf16"].features), reason="no AVX-512 BF16")
@pytest.mark.skipif(not NATIVE, reason="no C compiler on this machine")
@pytest.mark.skipif(os.environ.get(SANITIZE) == "1", reason="the compiler must not run with the sanitizers' runtime")
def test_emulated_tiles_with_vectors_of_avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    """The instructions of AVX-512 that transpose and pad operands for AMX."""
    plain = INSTRUCTION_SETS[EMULATED]
    flags = (*INSTRUCTION_SETS["avx512-bf16"].flags, *plain.flags)
    monkeypatch.setitem(build.INSTRUCTION_SETS, EMULATED, replace(plain, flags=flags))
    kernels = load_kernels(EMULATED)
    for m in (1, 15, 16, 17, 33, 48):
        check_products(kernels, m, torch.bfloat16)


@each_native_and_type
@pytest.mark.parametrize("k", [2, 30, 32, 34, 100])
def test_a_row_of_a_product_does_not_depend_on_the_other_rows(
    k: int, dtype: torch.dtype, backend: NativeBackend
) -> None:
    generator = torch.Generator().manual_seed(k)
    a, b = torch.randn(40, k, generator=generator).to(dtype), torch.randn(k, 80, generator=generator).to(dtype)
    out = torch.randn(40, 80, generator=generator)
    whole, added = product(backend.kernels, a, b), product(backend.kernels, a, b, out)
    for first in range(40):
        for last in {first + 1, (first + 40) // 2 + 1, 40} - {first}:
            part = slice(first, min(last, 40))
            assert torch.equal(product(backend.kernels, a[part], b), whole[part])
            assert torch.equal(product(backend.kernels, a[part], b, out[part]), added[part])
    assert not torch.equal(whole[0], whole[1])


@each_native
def test_memory_next_to_an_operand_does_not_matter(backend: NativeBackend) -> None:
    """The packed operands, the left operand and the result are followed by NaN."""
    nan, sizes = torch.full((64, 64), torch.nan), ((5, 38), (38, 48), (5, 48))
    assert product(backend.kernels, nan.bfloat16(), nan.bfloat16()).isnan().all()
    left, right, out = (
        torch.full((4096,), torch.nan, dtype=dtype) for dtype in (torch.bfloat16,) * 2 + (torch.float32,)
    )
    a, b, c = (x[: m * n].view(m, n) for x, (m, n) in zip((left, right, out), sizes, strict=True))
    for x in (a, b, c):
        x.copy_(integers(*x.shape, dtype=x.dtype))
    exact = a.float() @ b.float()
    assert torch.equal(product(backend.kernels, a, b), exact)
    structure = Structure("Product")
    structure.set(type=TYPES[ARRAY_TYPES[a.dtype]], m=5, n=48, k=38, add=1)
    structure.point(a=array_of(a), b=array_of(b), out=array_of(c))
    exact += c
    backend.kernels.product(structure)
    assert torch.equal(c, exact)
    assert out[c.numel() :].isnan().all()


@each_native
def test_onednn_may_use_tiles_between_two_kernels(backend: NativeBackend) -> None:
    """On a CPU with AMX, torch's products configure and release the tiles of the same threads."""
    case = make_case(dtype=torch.bfloat16)
    logits, gradient = evaluate(backend, case), compute(backend, case).gradient
    a, b = torch.randn(96, 256).bfloat16(), torch.randn(256, 160).bfloat16()
    between = a @ b
    assert torch.equal(evaluate(backend, case), logits)
    assert torch.equal(a @ b, between)
    assert torch.equal(compute(backend, case).gradient, gradient)
    assert torch.equal(a @ b, between)
