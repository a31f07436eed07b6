"""Stacked LoRA against PEFT on transformers: forward, gradients, twenty steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from backends import each_backend
from models import CLASSES, Pair, batch, make_pair
from peft import LoraConfig, PeftModel, get_peft_model
from programs import logits_of, losses_and_gradient, pack_for, program_of, run_of, torch_program_of
from tolerances import FP32, FP32_TRAINED
from torch import Tensor
from torch.nn import functional as F

from loralet.adapters.base import batched_linear
from loralet.adapters.lora import Lora
from loralet.adapters.pack import Pack
from loralet.adapters.spec import TARGETS, resolve_targets
from loralet.backends.base import Backend
from loralet.backends.batch import batch_of
from loralet.runs.run import Run
from loralet.training.optimizer import AdamW

PEFT_TARGETS = {
    ("query", "value"): ["query", "value"],
    TARGETS: ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"],
}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path)


def peft_of(pair: Pair, targets: tuple[str, ...], rank: int, alpha: float, rslora: bool) -> PeftModel:
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=PEFT_TARGETS[targets],
        use_rslora=rslora,
    )
    return get_peft_model(pair.theirs, config)


def own_tensors(model: PeftModel, pair: Pair) -> dict[str, Tensor]:
    """PEFT's trained tensors, by slot name."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            tensors[f"classifier.{name.rsplit('.', 1)[1]}"] = parameter
        elif ".lora_" in name:
            path, matrix = name.removeprefix("base_model.model.bert.").split(".lora_")
            tensors[f"{pair.ours.family.linear(path)}.{matrix[0]}"] = parameter
    return tensors


def filled(pair: Pair, run: Run, tensors: dict[str, Tensor]) -> tuple[Pack, Tensor]:
    pack = pack_for(pair, [run])
    return pack, pack.fill([{name: tensor.detach() for name, tensor in tensors.items()}])


@each_backend
@pytest.mark.parametrize("targets", list(PEFT_TARGETS), ids=["query-value", "all-linear"])
@pytest.mark.parametrize("scaling", ["alpha/r", "rslora"])
def test_forward_gradient_and_twenty_steps(
    pair: Pair, targets: tuple[str, ...], scaling: str, backend: Backend
) -> None:
    torch.manual_seed(3)
    rank, alpha, lr = 8, 16.0, 2e-3
    model = peft_of(pair, targets, rank, alpha, scaling == "rslora")
    theirs = own_tensors(model, pair)
    with torch.no_grad():
        for name, tensor in theirs.items():
            if name.endswith(".B"):  # a zero B would hide A's gradient and the scale
                tensor.normal_(0, 0.05)
    run = run_of(lr, rank=rank, alpha=alpha, targets=targets, scaling=scaling)
    pack, parameters = filled(pair, run, theirs)
    program = program_of(pair, pack, backend)
    assert set(pack.split(parameters)) == set(theirs)
    ids, lengths, mask, labels = batch()

    expected = model(ids, attention_mask=mask).logits
    logits = logits_of(program, parameters, ids, lengths)[0]
    assert (logits - expected).abs().max() <= FP32
    with model.disable_adapter():
        assert (logits - model(ids, attention_mask=mask).logits).abs().max() > 1e-3

    loss = F.cross_entropy(expected, labels)
    loss.backward()
    losses, gradient = losses_and_gradient(program, parameters, ids, lengths, labels)
    assert losses.tolist() == pytest.approx([loss.item()], abs=FP32)
    leaf = parameters.clone().requires_grad_()
    own_loss = F.cross_entropy(
        torch_program_of(pair, pack).differentiable_logits(leaf, batch_of(ids, lengths))[0], labels
    )
    (by_torch,) = torch.autograd.grad(own_loss, leaf)
    for found in (gradient, by_torch):
        for name, own in pack.split(found).items():
            reference = theirs[name].grad
            assert reference is not None
            assert reference.abs().max() > 0
            assert (own[0] - reference).abs().max() <= FP32, name

    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)
    before, device = parameters.clone(), backend.device
    parameters = parameters.to(device)
    own_optimiser = AdamW.start(parameters, torch.tensor([lr], device=device), pack.decay(0.0).to(device))
    for step in range(20):
        ids, lengths, mask, labels = batch(seed=step)
        optimiser.zero_grad()
        F.cross_entropy(model(ids, attention_mask=mask).logits, labels).backward()
        optimiser.step()
        _, gradient = losses_and_gradient(program, parameters, ids, lengths, labels)
        own_optimiser.update(backend, parameters, gradient.to(device), 1.0)
    parameters = parameters.cpu()
    assert (parameters - before).abs().max() > lr
    for name, own in pack.split(parameters).items():
        # Factor 5: with near-zero gradients, Adam's first steps amplify rounding.
        assert (own[0] - theirs[name]).abs().max() <= 5 * FP32_TRAINED, name


def test_the_effective_weight_gives_the_output_of_the_branch(pair: Pair) -> None:
    """The effective weight (:meth:`Lora.effective`) and :meth:`Lora.branch` give the same output."""
    runs = [run_of(seed=r, rank=r, alpha=16.0, targets=t) for r, t in ((4, ("query",)), (8, TARGETS))]
    pack, weights, method = pack_for(pair, runs), pair.ours.weights, Lora()
    parameters = pack.start(weights)
    parameters += 0.02 * torch.randn_like(parameters) * (parameters != 0)
    tensors = pack.split(parameters)
    for name in pack.adapted:
        tensors[f"{name}.B"].normal_(0, 0.05)
    stacks = pack.stacks(tensors)

    def together(name: str, x: Tensor) -> Tensor:
        effective = method.effective(weights[f"{name}.weight"], stacks[name])
        return batched_linear(x, effective, weights[f"{name}.bias"])

    def apart(name: str, x: Tensor) -> Tensor:
        dropped = x.expand(len(runs), *x.shape[1:])
        return method.branch(x, dropped, weights[f"{name}.weight"], weights[f"{name}.bias"], stacks[name])

    x = torch.randn(1, 3, 5, 32)
    for name in pack.adapted:
        source = x if name.rsplit(".", 1)[1] != "output" else torch.randn(1, 3, 5, 64)
        assert (together(name, source) - apart(name, source)).abs().max() <= FP32
        plain = F.linear(source, weights[f"{name}.weight"], weights[f"{name}.bias"])
        assert (together(name, source)[1] - plain[0]).abs().max() > 1e-3
        own = {part: stacks[name][part][1] for part in ("A", "B")}
        merged = method.merge(weights[f"{name}.weight"], own, runs[1].adapter.scale)
        assert (F.linear(source[0], merged, weights[f"{name}.bias"]) - together(name, source)[1]).abs().max() <= FP32
    # the first adapter covers only query
    name = "layers.0.key"
    plain = F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
    assert (together(name, x)[0] - plain[0]).abs().max() <= FP32


def test_trainable_count_matches_the_formula_and_peft(pair: Pair) -> None:
    d, f = pair.ours.table.width, pair.ours.table.feed_forward
    pairs = {
        "query": 2 * d,
        "key": 2 * d,
        "value": 2 * d,
        "attention-output": 2 * d,
        "intermediate": d + f,
        "output": d + f,
    }
    runs = [run_of(rank=r, alpha=16.0, targets=t) for r, t in ((4, ("query", "value")), (0, ()), (16, TARGETS))]
    pack = pack_for(pair, runs)
    head = CLASSES * d + CLASSES
    parameters = pack.start(pair.ours.weights)
    for i, run in enumerate(runs):
        targets = resolve_targets(run.adapter.targets)
        assert pack.trainable(i) == head + 2 * run.adapter.rank * sum(pairs[t] for t in targets)
        assert pack.trainable(i) == sum(tensor.numel() for tensor in pack.extract(parameters, i).values())
    model = peft_of(pair, ("query", "value"), 4, 16.0, False)
    assert pack.trainable(0) == sum(p.numel() for p in model.parameters() if p.requires_grad)
