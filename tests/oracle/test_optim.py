"""Schedules, clipping and AdamW compared with torch and transformers."""

from __future__ import annotations

import pytest
import torch
from backends import ORACLE, each_backend
from tolerances import FP32
from transformers import get_scheduler

from loralet.backends.base import AdamWStep, Backend
from loralet.training.optimizer import AdamW, schedule


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.06, 0.5])
def test_schedule_matches_transformers(kind: str, warmup: float) -> None:
    steps = 50
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    name = "constant_with_warmup" if kind == "constant" else kind
    theirs = get_scheduler(name, optimiser, num_warmup_steps=-(-steps * warmup // 1), num_training_steps=steps)
    for step in range(steps):
        assert schedule(kind, step, steps, warmup) == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-12)
        optimiser.step()
        theirs.step()
    assert schedule("linear", 10, steps, 0.0) != schedule("cosine", 10, steps, 0.0)


@each_backend
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_matches_torch_row_by_row(weight_decay: float, backend: Backend) -> None:
    torch.manual_seed(0)
    start, lrs = torch.randn(3, 7), torch.tensor([1e-1, 1e-2, 1e-3])
    gradients = torch.randn(20, 3, 7)
    decay = torch.tensor([weight_decay] * 4 + [0.0] * 3)
    ours = start.clone().to(backend.device)
    optimiser = AdamW.start(ours, lrs.to(backend.device), decay.to(backend.device))
    for step, gradient in enumerate(gradients):
        took = optimiser.update(backend, ours, gradient.to(backend.device), schedule("linear", step, 20, 0.2))
        assert took.all()
    ours = ours.cpu()
    for row in range(3):
        decayed, plain = start[row, :4].clone().requires_grad_(), start[row, 4:].clone().requires_grad_()
        theirs = torch.optim.AdamW(
            [{"params": [decayed], "weight_decay": weight_decay}, {"params": [plain], "weight_decay": 0.0}], lr=1.0
        )
        for step, gradient in enumerate(gradients):
            for group in theirs.param_groups:
                group["lr"] = float(lrs[row]) * schedule("linear", step, 20, 0.2)
            decayed.grad, plain.grad = gradient[row, :4], gradient[row, 4:]
            theirs.step()
        expected = torch.cat([decayed, plain]).detach()
        assert (ours[row] - expected).abs().max() <= FP32
        assert (start[row] - expected).abs().max() > 1e-3


def test_the_clipped_gradient_is_bitwise_equal_to_torch() -> None:
    gradient = torch.tensor([[3.0, 4.0], [0.3, 0.4], [30.0, 40.0]])
    optimiser = AdamW.start(gradient, torch.full((3,), 1e-2), torch.zeros(2))
    optimiser.update(ORACLE, torch.zeros(3, 2), gradient, 1.0, 1.0)
    for row, moment in zip(gradient, optimiser.exp_avg, strict=True):
        parameter = torch.zeros(2, requires_grad=True)
        parameter.grad = row.clone()
        torch.nn.utils.clip_grad_norm_([parameter], 1.0)
        assert torch.equal(moment, torch.zeros(2).lerp(parameter.grad, 1 - 0.9))
    assert torch.equal(optimiser.exp_avg[1], torch.zeros(2).lerp(gradient[1], 1 - 0.9))
    assert not torch.equal(optimiser.exp_avg[0], torch.zeros(2).lerp(gradient[0], 1 - 0.9))


@each_backend
@pytest.mark.parametrize("clip", [1.0, 0.0])
def test_clipped_steps_match_torch_for_each_adapter(clip: float, backend: Backend) -> None:
    torch.manual_seed(0)
    device = backend.device
    start, lr = torch.randn(3, 2), 1e-2
    # The second gradient is below the norm and not clipped. The gradients vary, because Adam ignores a constant factor.
    first = torch.tensor([[3.0, 4.0], [0.3, 0.4], [30.0, 40.0]])
    gradients = [first, -0.1 * first, 5.0 * first.flip(1), 0.01 * first]
    ours, unclipped = start.clone().to(device), start.clone().to(device)
    rates = torch.full((3,), lr, device=device), torch.zeros(2, device=device)
    optimiser, other = (AdamW.start(ours, *rates) for _ in range(2))
    for gradient in gradients:
        given = gradient.clone().to(device)
        optimiser.update(backend, ours, given, 1.0, clip)
        other.update(backend, unclipped, given, 1.0)
        assert torch.equal(given.cpu(), gradient), "the given gradient is not modified"
    assert torch.equal(ours, unclipped) == (clip == 0.0)
    ours, exp_avg, exp_avg_sq = ours.cpu(), optimiser.exp_avg.cpu(), optimiser.exp_avg_sq.cpu()
    for row in range(3):
        parameter = start[row].clone().requires_grad_()
        theirs = torch.optim.AdamW([parameter], lr=lr, weight_decay=0.0)
        for gradient in gradients:
            parameter.grad = gradient[row].clone()
            if clip:
                torch.nn.utils.clip_grad_norm_([parameter], clip)
            theirs.step()
        assert (ours[row] - parameter.detach()).abs().max() <= FP32
        state = theirs.state[parameter]
        assert (exp_avg[row] - state["exp_avg"]).abs().max() <= FP32
        assert (exp_avg_sq[row] - state["exp_avg_sq"]).abs().max() <= FP32


@each_backend
@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("count", [1, 7, 16, 1003])
def test_a_run_with_a_gradient_that_is_not_finite_is_unchanged(count: int, clip: float, backend: Backend) -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(4, count), torch.randn(10, 4, count)
    gradients[4:6, 1, 0] = torch.inf
    gradients[9, 2, -1] = torch.nan
    lrs, decay = torch.tensor([1e-1, 1e-2, 1e-3, 1e-2]), torch.full((count,), 0.1)
    finite = torch.tensor([True, True, True, False])
    start, gradients, lrs, decay, finite = (t.to(backend.device) for t in (start, gradients, lrs, decay, finite))
    parameters = start.clone()
    optimiser = AdamW.start(parameters, lrs, decay)
    taken = []
    for gradient in gradients:
        before = [t.clone() for t in (parameters, optimiser.exp_avg, optimiser.exp_avg_sq)]
        took = optimiser.update(backend, parameters, gradient, 0.5, clip, finite)
        assert torch.equal(took, finite & gradient.isfinite().all(1))
        for old, new in zip(before, (parameters, optimiser.exp_avg, optimiser.exp_avg_sq), strict=True):
            assert torch.equal(old[~took], new[~took]), "a run that is not updated is bitwise unchanged"
            assert (old[took] != new[took]).any(1).all()
        taken.append(took)
    assert torch.stack(taken).sum(0).tolist() == [10, 8, 9, 0]
    assert finite.tolist() == [True, True, True, False], "the given mask is not modified"
    assert parameters.isfinite().all()
    assert not optimiser.exp_avg[3].any()
    assert not optimiser.exp_avg_sq[3].any()
    assert ((parameters - start)[:3].abs().amax(1) > 1e-3).all()


@each_backend
def test_learning_rate_factors_match_parameter_groups_of_torch(backend: Backend) -> None:
    torch.manual_seed(0)
    start, gradients, factors = torch.randn(2, 5), torch.randn(10, 2, 5), torch.tensor([1.0, 1.0, 16.0, 16.0, 16.0])
    device = backend.device
    ours, moments = start.clone().to(device), (torch.zeros(2, 5, device=device), torch.zeros(2, 5, device=device))
    for step, gradient in enumerate(gradients, 1):
        course = AdamWStep(
            lr=torch.tensor([1e-2, 1e-3], device=device),
            decay=torch.full((5,), 0.1, device=device),
            clip=0.0,
            beta1=0.9,
            beta2=0.999,
            epsilon=1e-8,
            correction1=1 - 0.9**step,
            correction2=(1 - 0.999**step) ** 0.5,
            lr_factors=factors.expand(2, 5).to(device),
        )
        took = torch.ones(2, dtype=torch.bool, device=device)
        backend.adamw(ours, gradient.to(device), moments, course, took)
    ours = ours.cpu()
    for row, lr in enumerate((1e-2, 1e-3)):
        slow, fast = start[row, :2].clone().requires_grad_(), start[row, 2:].clone().requires_grad_()
        groups = [{"params": [slow], "lr": lr}, {"params": [fast], "lr": 16 * lr}]
        theirs = torch.optim.AdamW(groups, weight_decay=0.1)
        for gradient in gradients:
            slow.grad, fast.grad = gradient[row, :2], gradient[row, 2:]
            theirs.step()
        assert (ours[row] - torch.cat([slow, fast]).detach()).abs().max() <= FP32
