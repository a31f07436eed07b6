"""LoRA+ compared with PEFT's ``create_loraplus_optimizer``: parameter groups, and twenty steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from backends import each_backend
from models import Pair, batch, make_pair
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from programs import losses_and_gradient, pack_for, program_of, run_of
from test_dora import PARTS
from test_lora import PEFT_TARGETS
from tolerances import FP32_TRAINED
from torch import Tensor
from torch.nn import functional as F

from loralet.adapters.pack import Pack
from loralet.adapters.spec import TARGETS
from loralet.backends.base import Backend
from loralet.training.optimizer import AdamW

LR, RATIO, DECAY = 1e-3, 16.0, 0.1


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path)


def peft_of(pair: Pair, method: str) -> tuple[PeftModel, dict[str, Tensor]]:
    """PEFT's model with trained classifier and pooler, and its trained tensors by slot name."""
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=4,
        lora_alpha=8,
        target_modules=PEFT_TARGETS[TARGETS],
        modules_to_save=["classifier", "pooler"],
        use_dora=method == "dora",
    )
    torch.manual_seed(3)
    model = get_peft_model(pair.theirs, config)
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        bare = name.removeprefix("base_model.model.").removeprefix("bert.")
        if "modules_to_save" in name:
            tensors[f"{bare.split('.')[0]}.{bare.rsplit('.', 1)[1]}"] = parameter
        elif ".lora_" in name:
            path, part = bare.split(".default")[0].rsplit(".", 1)
            tensors[f"{pair.ours.family.linear(path)}.{PARTS[part]}"] = parameter
    return model, tensors


def our_pack(pair: Pair, method: str, tensors: dict[str, Tensor]) -> tuple[Pack, Tensor]:
    pack = pack_for(pair, [run_of(LR, method=method, rank=4, alpha=8.0, targets=TARGETS)], "trained-pooler")
    return pack, pack.fill([{name: tensor.detach() for name, tensor in tensors.items()}])


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_rates_and_decay_of_every_parameter_match_peft(pair: Pair, method: str) -> None:
    model, tensors = peft_of(pair, method)
    optimiser = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=LR, loraplus_lr_ratio=RATIO, loraplus_weight_decay=DECAY
    )
    groups = {id(p): (g["lr"] / LR, g["weight_decay"]) for g in optimiser.param_groups for p in g["params"]}
    pack, _ = our_pack(pair, method, tensors)
    factors = pack.lr_factors([RATIO])
    assert factors is not None
    decays = pack.split(pack.decay(DECAY)[None])
    for name, own in pack.split(factors).items():
        rate, decay = groups.pop(id(tensors[name]))
        assert torch.equal(own, torch.full_like(own, rate)), name
        assert torch.equal(decays[name], torch.full_like(own, decay)), name
    assert not groups, "every parameter of PEFT's optimiser has a slot"


@each_backend
@pytest.mark.parametrize("method", ["lora", "dora"])
def test_twenty_steps_match_peft(pair: Pair, method: str, backend: Backend) -> None:
    """The torch backend computes the gradient; each backend computes the update."""
    model, tensors = peft_of(pair, method)
    theirs = create_loraplus_optimizer(
        model, torch.optim.AdamW, lr=LR, loraplus_lr_ratio=RATIO, loraplus_weight_decay=DECAY
    )
    pack, parameters = our_pack(pair, method, tensors)
    program, device, before = program_of(pair, pack), backend.device, parameters.clone()
    rates = (torch.tensor([LR]), pack.decay(DECAY), pack.lr_factors([RATIO]))
    on_device = (None if rate is None else rate.to(device) for rate in rates)
    ours = AdamW.start(parameters.to(device), *on_device)  # type: ignore[arg-type]
    for step in range(20):
        ids, lengths, mask, labels = batch(seed=step)
        theirs.zero_grad()
        F.cross_entropy(model(ids, attention_mask=mask).logits, labels).backward()
        theirs.step()
        _, gradient = losses_and_gradient(program, parameters, ids, lengths, labels)
        moved = parameters.to(device)
        ours.update(backend, moved, gradient.to(device), 1.0)
        parameters = moved.cpu()
    first, last = pack.split(before), pack.split(parameters)
    for name, own in last.items():
        # Factor 10: the steps are 16 times as large as with a single learning rate.
        assert (own[0] - tensors[name]).abs().max() <= 10 * FP32_TRAINED, name
        assert (own - first[name]).abs().max() > LR, name


def test_learning_rate_factors_are_per_adapter_and_none_if_all_ratios_are_1(pair: Pair) -> None:
    runs = [run_of(LR, rank=4, targets=("query",)), run_of(LR, 1, rank=0), run_of(LR, 2, rank=8, targets=("key",))]
    pack = pack_for(pair, runs)
    assert pack.lr_factors([1.0, 1.0, 1.0]) is None
    factors = pack.lr_factors([2.0, 1.0, 0.5])
    assert factors is not None
    tensors = pack.split(factors)
    for name in ("layers.0.query.B", "layers.1.key.B", "classifier.bias"):
        assert [row.unique().tolist() for row in tensors[name]] == [[2.0], [1.0], [0.5]]
    for name in ("layers.0.query.A", "layers.1.key.A", "classifier.weight"):
        assert (tensors[name] == 1).all()
