"""Stacked LoRA against PEFT on transformers: forward, gradients, twenty steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from models import CLASSES, Pair, batch, make_pair
from peft import LoraConfig, PeftModel, get_peft_model
from tolerances import FP32, FP32_TRAINED
from torch import Tensor
from torch.nn import functional as F

from loralet.adapters.lora import Stack, merged, unmerged
from loralet.adapters.pack import Pack
from loralet.config import TARGETS, resolve_targets
from loralet.models.head import cross_entropy
from loralet.training.optimizer import AdamW
from loralet.training.packs import Run, build_pack, lora_run

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
    """PEFT's trained tensors by our slot names."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            tensors[f"classifier.{name.rsplit('.', 1)[1]}"] = parameter
        elif ".lora_" in name:
            path, matrix = name.removeprefix("base_model.model.bert.").split(".lora_")
            tensors[f"{pair.ours.architecture.linear(path)}.{matrix[0]}"] = parameter
    return tensors


def filled(pair: Pair, run: Run, tensors: dict[str, Tensor]) -> tuple[Pack, Tensor]:
    pack = build_pack([run], pair.ours.weights, pair.ours.shape, CLASSES, "pooler", 0.0)
    return pack, pack.fill([{name: tensor.detach() for name, tensor in tensors.items()}])


@pytest.mark.parametrize("targets", list(PEFT_TARGETS), ids=["query-value", "all-linear"])
@pytest.mark.parametrize("scaling", ["alpha/r", "rslora"])
def test_forward_gradient_and_twenty_steps(pair: Pair, targets: tuple[str, ...], scaling: str) -> None:
    torch.manual_seed(3)
    rank, alpha, lr = 8, 16.0, 2e-3
    model = peft_of(pair, targets, rank, alpha, scaling == "rslora")
    theirs = own_tensors(model, pair)
    with torch.no_grad():
        for name, tensor in theirs.items():
            if name.endswith(".B"):  # zero B would hide A's gradient and the scale
                tensor.normal_(0, 0.05)
    run = lora_run("m", rank, alpha, 0.0, targets, scaling, lr, 0)
    pack, parameters = filled(pair, run, theirs)
    assert set(pack.split(parameters)) == set(theirs)
    ids, lengths, mask, labels = batch()

    expected = model(ids, attention_mask=mask).logits
    logits = pack.logits(parameters)(ids, lengths)[0]
    assert (logits - expected).abs().max() <= FP32
    with model.disable_adapter():
        assert (logits - model(ids, attention_mask=mask).logits).abs().max() > 1e-3

    parameters.requires_grad_()
    losses = cross_entropy(pack.logits(parameters)(ids, lengths), labels)
    (gradient,) = torch.autograd.grad(losses.sum(), parameters)
    F.cross_entropy(expected, labels).backward()
    for name, own in pack.split(gradient).items():
        reference = theirs[name].grad
        assert reference is not None
        assert reference.abs().max() > 0
        assert (own[0] - reference).abs().max() <= FP32, name

    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)
    parameters = parameters.detach()
    own_optimiser = AdamW.start(parameters, torch.tensor([lr]), pack.decay(0.0))
    before = parameters.clone()
    for step in range(20):
        ids, lengths, mask, labels = batch(seed=step)
        optimiser.zero_grad()
        F.cross_entropy(model(ids, attention_mask=mask).logits, labels).backward()
        optimiser.step()
        parameters.requires_grad_()
        (gradient,) = torch.autograd.grad(
            cross_entropy(pack.logits(parameters)(ids, lengths), labels).sum(), parameters
        )
        parameters = parameters.detach()
        own_optimiser.update(parameters, gradient, 1.0)
    assert (parameters - before).abs().max() > lr
    for name, own in pack.split(parameters).items():
        assert (own[0] - theirs[name]).abs().max() <= 5 * FP32_TRAINED, (
            name
        )  # five: near-zero gradients make Adam's first steps touchy


def test_merged_is_unmerged(pair: Pair) -> None:
    runs = [lora_run("m", r, 16.0, 0.0, t, "alpha/r", 1e-3, r) for r, t in ((4, ("query",)), (8, TARGETS))]
    pack = build_pack(runs, pair.ours.weights, pair.ours.shape, CLASSES, "pooler", 0.0)
    parameters = pack.start()
    parameters += 0.02 * torch.randn_like(parameters) * (parameters != 0)
    tensors = pack.split(parameters)
    for name in pack.adapted:
        tensors[f"{name}.B"].normal_(0, 0.05)
    stacks = {n: Stack(tensors[f"{n}.A"], tensors[f"{n}.B"], pack.scales[n]) for n in pack.adapted}
    x = torch.randn(1, 3, 5, 32)
    together, apart = merged(pack.weights, stacks), unmerged(pack.weights, stacks)
    for name in pack.adapted:
        source = x if name.rsplit(".", 1)[1] != "output" else torch.randn(1, 3, 5, 64)
        assert (together(name, source) - apart(name, source)).abs().max() <= FP32
        plain = F.linear(source, pack.weights[f"{name}.weight"], pack.weights[f"{name}.bias"])
        assert (together(name, source)[1] - plain[0]).abs().max() > 1e-3
    # the first adapter sits on query alone
    name = "layers.0.key"
    assert (
        together(name, x)[0] - F.linear(x, pack.weights[f"{name}.weight"], pack.weights[f"{name}.bias"])[0]
    ).abs().max() <= FP32


def test_trainable_count_is_the_formula_and_pefts(pair: Pair) -> None:
    d, f = pair.ours.shape.width, pair.ours.shape.feed_forward
    pairs = {
        "query": 2 * d,
        "key": 2 * d,
        "value": 2 * d,
        "attention-output": 2 * d,
        "intermediate": d + f,
        "output": d + f,
    }
    runs = [
        lora_run("m", r, 16.0, 0.0, t, "alpha/r", 1e-3, 0) for r, t in ((4, ("query", "value")), (0, ()), (16, TARGETS))
    ]
    pack = build_pack(runs, pair.ours.weights, pair.ours.shape, CLASSES, "pooler", 0.0)
    head = CLASSES * d + CLASSES
    for i, run in enumerate(runs):
        assert pack.trainable(i) == head + 2 * run.rank * sum(pairs[t] for t in resolve_targets(run.targets))
        assert pack.trainable(i) == sum(tensor.numel() for tensor in pack.extract(pack.start(), i).values())
    model = peft_of(pair, ("query", "value"), 4, 16.0, False)
    assert pack.trainable(0) == sum(p.numel() for p in model.parameters() if p.requires_grad)
