"""AdamW in C, compared with the torch backend, which other tests compare with torch.optim."""

from __future__ import annotations

import pytest
import torch
from backends import ORACLE, each_native
from tolerances import FP32
from torch import Tensor

from loralet.backends.base import AdamWStep, Backend
from loralet.backends.native.backend import NativeBackend


def updated(backend: Backend, count: int, clip: float, factors: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Four adapters after ten steps: start, parameters, both moments, and the adapters active in each step."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4, count, generator=generator)
    gradients = torch.randn(10, 4, count, generator=generator)
    gradients[4:6, 1, 0] = torch.inf
    parameters, moments = start.clone(), (torch.zeros_like(start), torch.zeros_like(start))
    lr, decay = torch.tensor([1e-1, 1e-2, 1e-3, 1e-2]), torch.full((count,), 0.1)
    took = []
    for step, gradient in enumerate(gradients):
        corrections = 1 - 0.9 ** (step + 1), (1 - 0.999 ** (step + 1)) ** 0.5
        finite = torch.tensor([True, True, True, False])
        course = AdamWStep(lr * 0.5, decay, clip, 0.9, 0.999, 1e-8, *corrections, lr_factors=factors)
        backend.adamw(parameters, gradient, moments, course, finite)
        took.append(finite)
    return start, torch.stack([parameters, *moments]), torch.stack(took)


@each_native
@pytest.mark.parametrize("factors", [False, True], ids=["", "lr-factors"])
@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("count", [1, 7, 16, 1003])
def test_an_update_matches_torch(count: int, clip: float, factors: bool, backend: NativeBackend) -> None:
    given = torch.linspace(0.5, 2, 4 * count).view(4, count) if factors else None
    start, ours, took = updated(backend, count, clip, given)
    _, theirs, expected = updated(ORACLE, count, clip, given)
    assert torch.equal(took, expected)
    assert took.sum(0).tolist() == [10, 8, 10, 0]
    assert (ours - theirs).abs().max() <= FP32
    assert torch.equal(ours[0, 3], start[3]), "an inactive adapter stays bitwise unchanged"
    assert not ours[1:, 3].any()
    assert ((ours[0] - start)[:3].abs().amax(1) > 1e-3).all()
    if factors:
        assert (ours - updated(backend, count, clip, None)[1])[0, :3].abs().max() > 1e-3


@each_native
def test_gradients_may_be_strided_but_updated_tensors_must_be_contiguous(backend: NativeBackend) -> None:
    gradient, zeros = torch.randn(5, 2).t(), torch.zeros(2, 5)
    course = AdamWStep(torch.full((2,), 0.1), torch.zeros(5), 0.0, 0.9, 0.999, 1e-8, 0.1, 0.03)
    ours, theirs = torch.ones(2, 5), torch.ones(2, 5)
    for one, parameters in ((backend, ours), (ORACLE, theirs)):
        moments = zeros.clone(), zeros.clone()
        one.adamw(parameters, gradient, moments, course, torch.ones(2, dtype=torch.bool))
    assert (ours - theirs).abs().max() <= FP32
    assert not torch.equal(ours, torch.ones(2, 5))
    for wrong in (torch.ones(5, 2).t(), torch.ones(2, 5, dtype=torch.double)):
        with pytest.raises(ValueError, match=r"parameters must be contiguous.*float"):
            backend.adamw(wrong, gradient, (zeros, zeros), course, torch.ones(2, dtype=torch.bool))
