"""Schedules, clipping and AdamW against torch and transformers."""

from __future__ import annotations

import pytest
import torch
from tolerances import FP32
from transformers import get_scheduler

from loralet.training import optimizer as optim
from loralet.training.optimizer import AdamW, clip_rows, schedule


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.06, 0.5])
def test_schedule_is_that_of_transformers(kind: str, warmup: float) -> None:
    steps = 50
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    name = "constant_with_warmup" if kind == "constant" else kind
    theirs = get_scheduler(name, optimiser, num_warmup_steps=-(-steps * warmup // 1), num_training_steps=steps)
    for step in range(steps):
        assert schedule(kind, step, steps, warmup) == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-12)
        optimiser.step()
        theirs.step()
    assert schedule("linear", 10, steps, 0.0) != schedule("cosine", 10, steps, 0.0)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_is_torchs_row_by_row(weight_decay: float) -> None:
    torch.manual_seed(0)
    start, lrs = torch.randn(3, 7), torch.tensor([1e-1, 1e-2, 1e-3])
    gradients = torch.randn(20, 3, 7)
    decay = torch.tensor([weight_decay] * 4 + [0.0] * 3)
    ours = start.clone()
    optimiser = AdamW.start(ours, lrs, decay)
    for step, gradient in enumerate(gradients):
        optimiser.update(ours, gradient, schedule("linear", step, 20, 0.2))
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


def test_clipping_is_torchs_adapter_by_adapter() -> None:
    gradient = torch.tensor([[3.0, 4.0], [0.3, 0.4], [30.0, 40.0]])
    clipped = clip_rows(gradient, 1.0)
    for row, own in zip(gradient, clipped, strict=True):
        parameter = torch.zeros(2, requires_grad=True)
        parameter.grad = row.clone()
        torch.nn.utils.clip_grad_norm_([parameter], 1.0)
        assert torch.equal(own, parameter.grad)
    assert torch.equal(clipped[1], gradient[1])
    assert not torch.equal(clipped[0], gradient[0])
    assert clip_rows(gradient, 0.0) is gradient


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("count", [1, 7, 16, 1003])
def test_the_kernel_is_its_twin(count: int, clip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(4, count), torch.randn(10, 4, count)
    gradients[4:6, 1, 0] = torch.inf
    lrs, decay, sound = (
        torch.tensor([1e-1, 1e-2, 1e-3, 1e-2]),
        torch.full((count,), 0.1),
        torch.tensor([True, True, True, False]),
    )
    results = []
    for way in ("kernel", "twin"):
        if way == "twin":
            monkeypatch.setattr(optim, "kernels", lambda like: None)
        parameters = start.clone()
        optimiser = AdamW.start(parameters, lrs, decay)
        took = [optimiser.update(parameters, gradient, 0.5, clip, sound) for gradient in gradients]
        results.append((torch.stack([parameters, optimiser.exp_avg, optimiser.exp_avg_sq]), torch.stack(took)))
    (ours, took), (twin, expected) = results
    assert torch.equal(took, expected)
    assert took.sum(0).tolist() == [10, 8, 10, 0]
    assert (ours - twin).abs().max() <= FP32
    assert not ours[1:, 3].any()
    ours = ours[0]
    assert torch.equal(ours[3], start[3]), "a run that does not take part stays as it is, bit for bit"
    assert ((ours - start)[:3].abs().amax(1) > 1e-3).all()
