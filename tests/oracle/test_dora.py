"""DoRA compared with PEFT: forward, gradients, dropout, twenty steps, merging, and exports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from models import CLASSES, Pair, batch, make_pair
from peft import LoraConfig, PeftModel, get_peft_model
from programs import CPU, logits_of, losses_and_gradient, pack_for, program_of, run_of, torch_program_of
from test_adapters import trained
from test_lora import PEFT_TARGETS
from tolerances import FP32, FP32_TRAINED
from torch import Tensor
from torch.nn import functional as F
from transformers import BertForSequenceClassification

from loralet.adapters.base import Stack
from loralet.adapters.dora import Dora
from loralet.adapters.dropout import Dropout
from loralet.adapters.pack import Pack
from loralet.adapters.spec import HEAD_ALONE, TARGETS, resolve_targets
from loralet.artifacts.average import average
from loralet.artifacts.folder import save_artifact
from loralet.artifacts.merge import merge
from loralet.backends.batch import batch_of
from loralet.errors import RunError
from loralet.export.checkpoint import export_hf
from loralet.export.onnx import export_onnx
from loralet.inference.predictor import load_classifier
from loralet.runs.run import Run
from loralet.training.optimizer import AdamW

# Long trainings, most of whose lines other tests cover too; measuring them takes half as long again.
pytestmark = pytest.mark.no_cover

SMALL_TARGETS = ("query", "value")


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path / "base")


def dora(lr: float = 1e-3, seed: int = 0, **spec: object) -> Run:
    return run_of(lr, seed, method="dora", **spec)


def peft_of(pair: Pair, run: Run) -> PeftModel:
    """PEFT's model of a run, with random values: a zero B would hide A's gradient and the scale."""
    spec = run.adapter
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=PEFT_TARGETS[spec.targets],
        use_rslora=spec.scaling == "rslora",
        use_dora=True,
    )
    model = get_peft_model(pair.theirs, config)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
            if "magnitude" in name:
                parameter.mul_(1 + 0.2 * torch.randn_like(parameter))
    return model


PARTS = {"lora_A": "A", "lora_B": "B", "lora_magnitude_vector": "magnitude"}


def own_tensors(model: PeftModel, pair: Pair) -> dict[str, Tensor]:
    """PEFT's trained tensors, by slot name."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            tensors[f"classifier.{name.rsplit('.', 1)[1]}"] = parameter
        elif ".lora_" in name:
            path, part = name.removeprefix("base_model.model.bert.").split(".default")[0].rsplit(".", 1)
            tensors[f"{pair.ours.family.linear(path)}.{PARTS[part]}"] = parameter
    return tensors


def filled(pair: Pair, run: Run, tensors: dict[str, Tensor]) -> tuple[Pack, Tensor]:
    pack = pack_for(pair, [run])
    return pack, pack.fill([{name: tensor.detach() for name, tensor in tensors.items()}])


@pytest.mark.parametrize("targets", list(PEFT_TARGETS), ids=["query-value", "all-linear"])
@pytest.mark.parametrize("scaling", ["alpha/r", "rslora"])
def test_forward_gradient_and_twenty_steps(pair: Pair, targets: tuple[str, ...], scaling: str) -> None:
    lr = 2e-3
    run = dora(lr, rank=8, alpha=16.0, targets=targets, scaling=scaling)
    model = peft_of(pair, run)
    theirs = own_tensors(model, pair)
    pack, parameters = filled(pair, run, theirs)
    program = program_of(pair, pack)
    assert set(pack.split(parameters)) == set(theirs)
    ids, lengths, mask, labels = batch()

    expected = model(ids, attention_mask=mask).logits
    assert (logits_of(program, parameters, ids, lengths)[0] - expected).abs().max() <= FP32
    loss = F.cross_entropy(expected, labels)
    loss.backward()
    losses, gradient = losses_and_gradient(program, parameters, ids, lengths, labels)
    assert losses.tolist() == pytest.approx([loss.item()], abs=FP32)
    for name, own in pack.split(gradient).items():
        reference = theirs[name].grad
        assert reference is not None
        assert reference.abs().max() > 0
        assert (own[0] - reference).abs().max() <= FP32, name

    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=0.01)
    own_optimiser = AdamW.start(parameters, torch.tensor([lr]), torch.full((pack.size,), 0.01))
    before = pack.split(parameters.clone())
    for step in range(20):
        ids, lengths, mask, labels = batch(seed=step)
        optimiser.zero_grad()
        F.cross_entropy(model(ids, attention_mask=mask).logits, labels).backward()
        optimiser.step()
        _, gradient = losses_and_gradient(program, parameters, ids, lengths, labels)
        own_optimiser.update(CPU, parameters, gradient, 1.0)
    for name, own in pack.split(parameters).items():
        assert (own - before[name]).abs().max() > lr
        # Factor 10: the norms amplify rounding of near-zero gradients more than LoRA does.
        assert (own[0] - theirs[name]).abs().max() <= 10 * FP32_TRAINED, name


class Masked(torch.nn.Module):
    """Replaces a dropout module: multiplies by given factors."""

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factors[:, : x.shape[1]]


def test_dropout_matches_peft_with_the_same_masks(pair: Pair) -> None:
    run = dora(rank=4, alpha=16.0, dropout=0.4, targets=TARGETS)
    model = peft_of(pair, run).train()
    theirs = own_tensors(model, pair)
    pack, parameters = filled(pair, run, theirs)
    ids, lengths, mask, labels = batch()
    own_batch, step = batch_of(ids, lengths, labels), 5
    tokens, masks = own_batch.token_numbers(ids.shape[1]), Dropout(pair.ours.table, pack.adapters, step)
    for path, module in model.named_modules():
        if hasattr(module, "lora_dropout"):
            name = pair.ours.family.linear(path.removeprefix("base_model.model.bert."))
            module.lora_dropout["default"] = Masked(masks.factors(name, tokens, module.in_features)[0])
    expected = model(ids, attention_mask=mask).logits
    F.cross_entropy(expected, labels).backward()

    program = torch_program_of(pair, pack)
    logits = program.differentiable_logits(parameters, own_batch, step)[0]
    assert (logits - expected).abs().max() <= FP32
    assert (logits - program.differentiable_logits(parameters, own_batch)[0]).abs().max() > 1e-2
    _, gradient = losses_and_gradient(program, parameters, ids, lengths, labels, step)
    for name, own in pack.split(gradient).items():
        reference = theirs[name].grad
        assert reference is not None
        assert reference.abs().max() > 0
        assert (own[0] - reference).abs().max() <= FP32, name


def random_stack(scales: tuple[float, ...]) -> tuple[Tensor, Tensor, Stack]:
    """A frozen weight, a bias and adapters; adapters with scale 0 have zero tensors."""
    generator = torch.Generator().manual_seed(0)
    k, o, d, r = len(scales), 6, 5, 3
    scale = torch.tensor(scales)
    shapes = {"A": (k, r, d), "B": (k, o, r), "magnitude": (k, o)}
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    tensors = {name: t * (scale > 0).view(-1, *[1] * (t.dim() - 1)) for name, t in tensors.items()}
    weight, bias = torch.randn(o, d, generator=generator), torch.randn(o, generator=generator)
    return weight, bias, Stack({name: t.requires_grad_() for name, t in tensors.items()}, scale)


def test_an_adapter_that_does_not_cover_a_layer_does_not_change_it_and_gets_no_gradient() -> None:
    weight, bias, stack = random_stack((2.0, 0.0))
    weight[4] = 0.0
    method, x = Dora(), torch.randn(1, 2, 3, 5)
    effective = method.effective(weight, stack)
    by_branch = method.branch(x, x.expand(2, -1, -1, -1), weight, bias, stack)
    assert torch.equal(effective[1], weight)
    assert (by_branch[1] - F.linear(x[0], weight, bias)).abs().max() <= FP32
    assert (by_branch[0] - F.linear(x[0], effective[0], bias)).abs().max() <= FP32
    assert (effective[0] - weight).abs().max() > 1e-1
    for output in (effective, by_branch):
        for tensor, gradient in zip(
            stack.tensors.values(),
            torch.autograd.grad(output.square().sum(), list(stack.tensors.values())),
            strict=True,
        ):
            assert gradient.isfinite().all()
            assert gradient.shape == tensor.shape
            assert gradient[0].any()
            assert not gradient[1].any()


def test_padding_of_the_rank_does_not_change_the_norms() -> None:
    weight, _, stack = random_stack((2.0,))
    tensors = {"A": F.pad(stack["A"], (0, 0, 0, 4)), "B": F.pad(stack["B"], (0, 4)), "magnitude": stack["magnitude"]}
    padded = Dora().effective(weight, Stack(tensors, stack.scale))
    assert (padded - Dora().effective(weight, stack)).abs().max() <= FP32
    for gradient, part in zip(torch.autograd.grad(padded.sum(), [tensors["A"], tensors["B"]]), "AB", strict=True):
        rest = gradient[:, 3:] if part == "A" else gradient[..., 3:]
        assert not rest.any()
        assert gradient.any()


def test_a_row_of_zeros_stays_zero() -> None:
    weight, _, stack = random_stack((2.0,))
    weight[2] = 0.0
    tensors = {part: tensor.detach()[0].clone() for part, tensor in stack.tensors.items()}
    tensors["B"].zero_()
    Dora().neutral(tensors, weight)
    merged = Dora().merge(weight, tensors, 2.0)
    assert (merged - weight).abs().max() <= FP32
    leaves = {part: tensor[None].requires_grad_() for part, tensor in tensors.items()}
    effective = Dora().effective(weight, Stack(leaves, torch.tensor([2.0])))
    assert (effective[0] - weight).abs().max() <= FP32
    assert all(g.isfinite().all() for g in torch.autograd.grad(effective.sum(), list(leaves.values())))


def test_trainable_count_matches_peft(pair: Pair) -> None:
    runs = [dora(rank=4, alpha=16.0, targets=SMALL_TARGETS), run_of(rank=0), dora(rank=16, alpha=8.0, targets=TARGETS)]
    assert runs[1].adapter == HEAD_ALONE
    pack = pack_for(pair, runs)
    parameters = pack.start(pair.ours.weights)
    assert pack.method.name == "dora"
    assert pack.trainable(1) == CLASSES * pair.ours.table.width + CLASSES
    for i, run in enumerate(runs):
        assert pack.trainable(i) == sum(tensor.numel() for tensor in pack.extract(parameters, i).values())
        targets = resolve_targets(run.adapter.targets)
        lora = pack_for(pair, [replace(run, adapter=replace(run.adapter, method="lora"))])
        magnitudes = sum(pair.ours.table.linear(f"layers.0.{target}").d_out for target in targets)
        assert pack.trainable(i) - lora.trainable(0) == pair.ours.table.layers * magnitudes
    model = peft_of(pair, runs[2])
    assert pack.trainable(2) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_initial_values_match_peft_and_do_not_change_the_model(pair: Pair) -> None:
    run = dora(rank=4, alpha=16.0, targets=TARGETS)
    pack = pack_for(pair, [run])
    parameters = pack.start(pair.ours.weights)
    tensors = pack.extract(parameters, 0)
    theirs = own_tensors(get_peft_model(pair.theirs, LoraConfig(
        task_type="SEQ_CLS", r=4, target_modules=PEFT_TARGETS[TARGETS], use_dora=True
    )), pair)  # fmt: skip
    for name in pack.adapted:
        assert (tensors[f"{name}.magnitude"] - theirs[f"{name}.magnitude"]).abs().max() <= FP32
        merged = Dora().merge(
            pair.ours.weights[f"{name}.weight"], {p: tensors[f"{name}.{p}"] for p in PARTS.values()}, 4.0
        )
        assert (merged - pair.ours.weights[f"{name}.weight"]).abs().max() <= FP32


@pytest.mark.parametrize("targets", [SMALL_TARGETS, TARGETS], ids=["query-value", "all-linear"])
def test_merged_and_exported_weights_match_peft(pair: Pair, tmp_path: Path, targets: tuple[str, ...]) -> None:
    program, parameters, artifact = trained(pair, dora(rank=4, alpha=16.0, targets=targets), "pooler")
    save_artifact(tmp_path / "adapter", artifact, pair.ours)
    base = BertForSequenceClassification.from_pretrained(pair.folder, num_labels=CLASSES)
    model = PeftModel.from_pretrained(base, tmp_path / "adapter")
    theirs: Any = model.merge_and_unload()
    tensors = theirs.state_dict()
    merged = merge(artifact, pair.ours)
    for name in program.pack.adapted:
        wanted = tensors[f"bert.{pair.ours.family.module(name)}.weight"]
        assert (merged.weights[f"{name}.weight"] - wanted).abs().max() <= FP32
        assert (wanted - pair.ours.weights[f"{name}.weight"]).abs().max() > 1e-2

    ids, lengths, mask, _ = batch()
    expected = logits_of(program, parameters, ids, lengths)[0]
    loaded = load_classifier(tmp_path / "adapter")
    export_hf(loaded.artifact, loaded, tmp_path / "hf")
    with torch.no_grad():
        again = BertForSequenceClassification.from_pretrained(tmp_path / "hf").eval()(ids, attention_mask=mask).logits
    assert (again - expected).abs().max() <= FP32
    done = export_onnx(loaded.artifact, loaded, tmp_path / "onnx", None, False)
    assert done.largest_difference is not None
    assert done.largest_difference <= 1e-4
    assert "A DoRA adapter on base" in (tmp_path / "adapter" / "README.md").read_text()


def test_dora_adapters_cannot_be_averaged(pair: Pair) -> None:
    run = dora(rank=4, alpha=16.0, targets=SMALL_TARGETS)
    artifact = trained(pair, run, "pooler")[2]
    with pytest.raises(
        RunError, match=r"^DoRA adapters cannot be averaged into .*; .* \(loralet predict --runs or --also\)$"
    ):
        average({"a": artifact, "b": artifact}, "made")
    plain = trained(pair, run_of(rank=4, alpha=16.0, targets=SMALL_TARGETS), "pooler")[2]
    with pytest.raises(RunError, match="method: a has dora, b has lora"):
        average({"a": artifact, "b": plain}, "made")
