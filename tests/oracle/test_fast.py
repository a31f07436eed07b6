"""The C attention against its torch twin, and what happens without a compiler."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch

from loralet.backends.native import attention as fast
from loralet.backends.native import build
from loralet.backends.native.attention import attention, attention_twin

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1.6e-2}
"""As a share, of results above 1. fp32: another order of summation. bf16: two last digits, as the kernel rounds the probabilities too."""


def apart(ours: torch.Tensor, twin: torch.Tensor) -> float:
    """Largest difference, relative where numbers are above 1."""
    return float(((ours - twin).float().abs() / twin.float().abs().clamp(min=1)).detach().max())


needs_compiler = pytest.mark.skipif(not any(map(shutil.which, build.COMPILERS)), reason="no C compiler on this machine")


@needs_compiler
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["fp32", "bf16"])
@pytest.mark.parametrize(("heads", "size"), [(2, 16), (2, 64), (1, 48)])
@pytest.mark.parametrize("axes", [(1, 1, 1), (3, 1, 3), (3, 3, 3), (1, 3, 1)], ids=str)
@pytest.mark.parametrize("read", ["first", "all"])
def test_forward_and_gradients_are_the_twins(
    dtype: torch.dtype, heads: int, size: int, axes: tuple[int, int, int], read: str
) -> None:
    assert build.library() is not None
    torch.manual_seed(0)
    rows, tokens, sets = 5, 37, max(axes)
    reads = 1 if read == "first" else tokens
    q, k, v = (
        torch.randn(n, rows, m, heads * size).to(dtype) for n, m in zip(axes, (reads, tokens, tokens), strict=True)
    )
    for x in (q, k, v):
        x.requires_grad_(x.shape[0] == sets)
    lengths = torch.tensor([37, 3, 20, 16, 1])
    inside = (torch.arange(reads) < lengths[:, None])[None, :, :, None]
    ours, twin = attention(q, k, v, lengths, heads), attention_twin(q, k, v, lengths, heads)
    assert ours.dtype == dtype
    assert apart(ours * inside, twin * inside) <= TOLERANCE[dtype]
    assert (twin - attention_twin(q, k, v, torch.full((rows,), tokens), heads)).abs().max() > TOLERANCE[dtype]
    wanted = [x for x in (q, k, v) if x.requires_grad]
    grad = torch.randn(twin.shape).to(dtype) * inside
    for own, reference in zip(
        torch.autograd.grad(ours, wanted, grad), torch.autograd.grad(twin, wanted, grad), strict=True
    ):
        assert apart(own, reference) <= TOLERANCE[dtype]
        assert reference.abs().max() > 10 * TOLERANCE[dtype]


@needs_compiler
def test_a_loss_that_is_not_a_number_stays_one() -> None:
    q, k, v = (torch.randn(1, 2, 20, 32) for _ in range(3))
    k[0, 0, 7, 3] = torch.nan
    out = attention(q, k, v, torch.tensor([20, 20]), 2)
    assert out[0, 0, :, :16].isnan().all()
    assert out[0, 1].isfinite().all()


def test_without_the_library_the_twin_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (torch.randn(1, 2, 20, 32) for _ in range(3))
    lengths = torch.tensor([20, 4])
    native = attention(q, k, v, lengths, 2)
    monkeypatch.setattr(fast, "library", lambda: None)
    assert torch.equal(attention(q, k, v, lengths, 2), attention_twin(q, k, v, lengths, 2))
    assert (attention(q, k, v, lengths, 2) - native).abs()[:, 0].max() <= TOLERANCE[torch.float32]


@pytest.mark.parametrize("why", ["no compiler", "broken source", "turned off"])
def test_a_machine_that_cannot_build_goes_on(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LORALET_CACHE", str(tmp_path))
    build.library.cache_clear()
    if why == "no compiler":
        monkeypatch.setattr(build, "COMPILERS", ("a-compiler-that-is-not-there",))
    elif why == "broken source":
        (tmp_path / "kernels.c").write_text("this is not C")
        monkeypatch.setattr(build, "SOURCE", tmp_path / "kernels.c")
    else:
        monkeypatch.setenv("LORALET_NATIVE", "0")
    with caplog.at_level(logging.INFO):
        assert build.library() is None
    assert ("slower" in caplog.text) == (why != "turned off")
    assert not list(tmp_path.glob("native/*.so"))
    build.library.cache_clear()
