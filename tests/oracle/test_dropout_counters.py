"""Counter-based dropout masks: the hash in plain integers, statistics, and PEFT with the same masks."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch
from backends import each_backend
from hypothesis import given
from hypothesis import strategies as st
from models import VOCABULARY, Pair, batch, make_pair
from peft import LoraConfig, get_peft_model
from programs import TASK, batch_losses, in_parts, losses_and_gradient, pack_for, program_of, run_of
from test_pack import RUNS, rows
from tolerances import FP32, FP32_TRAINED
from torch import Tensor, nn
from torch.nn import functional as F

from loralet.adapters.adapter import Adapter
from loralet.adapters.counters import dropout_keys, head_index, linear_index
from loralet.adapters.dropout import Dropout, keep_factors
from loralet.adapters.spec import TARGETS
from loralet.backends import torch as torch_backend
from loralet.backends.base import Backend
from loralet.backends.batch import Batch, batch_of
from loralet.backends.torch import TorchBackend
from loralet.config import TrainingOptions
from loralet.data.batches import gather
from loralet.models.table import EncoderTable
from loralet.runtime import using_threads
from loralet.training.loop import TrainingState, train

# Long trainings, most of whose lines other tests cover too; measuring them takes half as long again.
pytestmark = pytest.mark.no_cover

WORD, LONG = (1 << 32) - 1, (1 << 64) - 1
TABLE = EncoderTable(layers=2, width=32, heads=2, feed_forward=64, vocabulary=len(VOCABULARY), positions=40)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("model"))


def split_mix(x: int) -> int:
    """The first output of SplitMix64 with state x."""
    x = (x + 0x9E3779B97F4A7C15) & LONG
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & LONG
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & LONG
    return x ^ (x >> 31)


def lowbias32(x: int) -> int:
    x = (x ^ (x >> 16)) * 0x7FEB352D & WORD
    x = (x ^ (x >> 15)) * 0x846CA68B & WORD
    return x ^ (x >> 16)


def kept(probability: float, seed: int, step: int, index: int, place: int) -> bool:
    """Whether an element is kept; ``place`` is the token's number times the width plus the feature."""
    keys = split_mix((split_mix(seed) + step) & LONG)
    mixed = lowbias32((place & WORD) ^ (keys & WORD))
    drawn = lowbias32((mixed + (keys >> 32) + 0x9E3779B9 * index) & WORD)
    return drawn >= int(probability * 2**32)


def reference(probability: float, seed: int, step: int, index: int, tokens: Tensor, width: int) -> Tensor:
    """The factors ``[*axes width]`` in plain Python integers."""
    flags = [
        kept(probability, seed, step, index, t * width + i) for t in tokens.flatten().tolist() for i in range(width)
    ]
    return torch.tensor(flags).view(*tokens.shape, width).float() * (1 / (1 - probability))


def test_split_mix_matches_its_published_sequence() -> None:
    """The first outputs for the states 0 and 1234567. Each output increments the state by the golden gamma."""
    assert split_mix(0) == 0xE220A8397B1DCDAF
    assert split_mix(0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4
    assert split_mix(1234567) == 6457827717110365317


@given(
    probability=st.floats(0.0, 0.999),
    seed=st.integers(0, 2**63 - 1),
    step=st.integers(0, 10**6),
    index=st.integers(0, 400),
    tokens=st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4),
    width=st.integers(1, 40),
)
def test_the_factors_match_plain_integer_arithmetic(
    probability: float, seed: int, step: int, index: int, tokens: list[int], width: int
) -> None:
    """Includes places that do not fit 32 bits and wrap around."""
    numbers = torch.tensor(tokens)
    found = keep_factors(probability, dropout_keys(seed, step), index, numbers, width)
    assert torch.equal(found, reference(probability, seed, step, index, numbers, width))


def test_every_linear_layer_and_the_head_have_a_unique_index() -> None:
    names = [f"layers.{i}.{name}" for i in range(TABLE.layers) for name in TARGETS]
    assert [linear_index(TABLE, name) for name in names] == list(range(12))
    assert head_index(TABLE) == 12


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_features_are_dropped_at_the_probability_with_mean_one(probability: float) -> None:
    factors = keep_factors(probability, dropout_keys(3, 7), 2, torch.arange(4000), 128)
    assert factors.unique().tolist() == pytest.approx([0.0, 1 / (1 - probability)])
    error = 5 * (probability * (1 - probability) / factors.numel()) ** 0.5
    assert (factors == 0).float().mean().item() == pytest.approx(probability, abs=error)
    assert factors.mean().item() == pytest.approx(1.0, abs=error / (1 - probability))
    # Over the tokens of each feature, and over the features of each token.
    for axis, count in ((0, 4000), (1, 128)):
        shares = (factors == 0).float().mean(axis)
        spread = (probability * (1 - probability) / count) ** 0.5
        assert shares.std().item() == pytest.approx(spread, rel=0.3)
        assert (shares - probability).abs().max() < 6 * spread
    assert torch.equal(keep_factors(0.0, dropout_keys(3, 7), 2, torch.arange(9), 5), torch.ones(9, 5))


def test_masks_of_another_seed_step_layer_token_or_feature_are_independent() -> None:
    tokens, width, p = torch.arange(2000), 100, 0.5
    masks = {
        "this": keep_factors(p, dropout_keys(0, 0), 0, tokens, width),
        "seed": keep_factors(p, dropout_keys(1, 0), 0, tokens, width),
        "step": keep_factors(p, dropout_keys(0, 1), 0, tokens, width),
        "seed and step": keep_factors(p, dropout_keys(1, 1), 0, tokens, width),
        "large seed": keep_factors(p, dropout_keys(1 << 32, 0), 0, tokens, width),
        "layer": keep_factors(p, dropout_keys(0, 0), 1, tokens, width),
        "head": keep_factors(p, dropout_keys(0, 0), 12, tokens, width),
        "next token": keep_factors(p, dropout_keys(0, 0), 0, tokens + 1, width),
        "far token": keep_factors(p, dropout_keys(0, 0), 0, tokens + 2000, width),
        "next feature": keep_factors(p, dropout_keys(0, 0), 0, tokens, width).roll(1, 1),
        "far feature": keep_factors(p, dropout_keys(0, 0), 0, tokens, width).roll(50, 1),
    }
    error = 5 * (0.25 * 0.75 / (2000 * width)) ** 0.5
    for (one, a), (other, b) in combinations(masks.items(), 2):
        assert ((a == 0) & (b == 0)).float().mean().item() == pytest.approx(0.25, abs=error), (one, other)
    # The parity of any three masks is uniform.
    flags = torch.stack([mask == 0 for mask in masks.values()])
    for three in combinations(range(len(flags)), 3):
        odd = flags[list(three)].sum(0) % 2
        assert odd.float().mean().item() == pytest.approx(0.5, abs=2 * error), three


def test_dropout_masks_are_independent_and_belong_to_the_adapter() -> None:
    def dropout(*probabilities: float) -> Dropout:
        return Dropout(TABLE, [Adapter(4, 1.0, p, ("layers.0.query",), i) for i, p in enumerate(probabilities)], 5)

    tokens = torch.arange(1000).view(50, 20)
    first = dropout(0.5, 0.5, 0.0, 0.1).factors("layers.0.query", tokens, 10)
    again = dropout(0.5, 0.0, 0.2, 0.1).factors("layers.0.query", tokens, 10)
    assert first.shape == (4, 50, 20, 10)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[3], again[3])
    assert torch.equal(first[2], torch.ones(50, 20, 10))
    assert not torch.equal(first[1], again[1])
    both = (first[0] == 0) & (first[1] == 0)
    assert both.float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert (first[3] == 0).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert first.mean().item() == pytest.approx(1.0, abs=0.02)
    assert dropout(0.0, 0.5).applies("layers.0.query")
    assert not dropout(0.5).applies("layers.0.key")
    assert not dropout(0.0).applies("layers.0.query")
    # An adapter has no dropout without rank or on a layer that it does not adapt.
    mixed = [Adapter(0, 0.0, 0.5, ("layers.0.query",), 0), Adapter(4, 1.0, 0.5, ("layers.0.key",), 1)]
    assert not Dropout(TABLE, mixed, 5).applies("layers.0.query")
    assert torch.equal(Dropout(TABLE, mixed, 5).factors("layers.0.query", tokens, 10), torch.ones(2, 50, 20, 10))


def test_head_factors_are_per_adapter_and_per_row() -> None:
    adapters = [Adapter(4, 1.0, 0.0, (), 0), Adapter(0, 0.0, 0.0, (), 1), Adapter(4, 1.0, 0.3, (), 0)]
    assert Dropout(TABLE, adapters, 3).head_factors(torch.arange(7), 32) is None
    numbers = torch.tensor([4, 0, 19])
    factors = Dropout(TABLE, adapters, 3, 0.4).head_factors(numbers, 32)
    assert factors is not None
    for own, adapter in zip(factors, adapters, strict=True):
        assert torch.equal(own, reference(0.4, adapter.seed, 3, 12, numbers, 32))
    assert torch.equal(factors[0], factors[2])
    assert not torch.equal(factors[0], factors[1])


def whole_batch() -> Batch:
    ids, lengths, _, labels = batch(rows=9)
    return batch_of(ids, lengths, labels)


@pytest.mark.parametrize("multiple", [1, 8])
def test_a_part_of_a_batch_has_the_masks_of_the_whole_batch(multiple: int) -> None:
    whole = whole_batch()
    dropout = Dropout(TABLE, [Adapter(4, 1.0, 0.5, ("layers.0.query",), 0)], 2, 0.5)

    def factors(part: Batch) -> tuple[list[Tensor], Tensor]:
        padded = part.padded(multiple)
        masks = dropout.factors("layers.0.query", part.token_numbers(padded.ids.shape[1]), 8)[0]
        head = dropout.head_factors(part.numbers(), 8)
        assert head is not None
        return [mask[:length] for mask, length in zip(masks, part.lengths.tolist(), strict=True)], head[0]

    masks, head = factors(whole)
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == len(masks)
    for numbers in ([7, 2, 3], [0], list(range(9))[::-1]):
        part = whole.take(torch.tensor(numbers))
        own, own_head = factors(part)
        assert all(torch.equal(mask, masks[n]) for mask, n in zip(own, numbers, strict=True))
        assert torch.equal(own_head, head[numbers])
        # Also a part of a part.
        last, last_head = factors(part.take(torch.tensor([len(numbers) - 1])))
        assert torch.equal(last[0], masks[numbers[-1]])
        assert torch.equal(last_head[0], head[numbers[-1]])


class Masked(nn.Module):
    """Replaces a dropout module; returns the same factors at each call."""

    def __init__(self, factors: Tensor) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factors


@each_backend
def test_peft_with_these_masks_gives_the_same_losses_and_gradients(tmp_path: Path, backend: Backend) -> None:
    pair = make_pair(tmp_path)
    ids, lengths, mask, labels = batch()
    dropout, head, step, seed, width = 0.3, 0.2, 11, 4, pair.ours.table.width
    names = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
    config = LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, lora_dropout=dropout, target_modules=names)
    model = get_peft_model(pair.theirs, config).eval()
    run = run_of(seed=seed, rank=4, alpha=8.0, dropout=dropout, targets=TARGETS)
    pack = pack_for(pair, [run], head_dropout=head)

    first = F.pad(lengths.cumsum(0), (1, 0))[:-1]
    tokens = first[:, None] + torch.arange(ids.shape[1])
    theirs: dict[str, Tensor] = {}
    torch.manual_seed(2)
    for path, module in model.named_modules():
        if not hasattr(module, "lora_dropout"):
            continue
        name = pair.ours.family.linear(path.removeprefix("base_model.model.bert."))
        linear = pair.ours.table.linear(name)
        factors = reference(dropout, seed, step, linear_index(pair.ours.table, name), tokens, linear.d_in)
        module.lora_dropout["default"] = Masked(factors)
        nn.init.normal_(module.lora_B["default"].weight, std=0.1)  # zero B would hide the masks
        theirs |= {f"{name}.A": module.lora_A["default"].weight, f"{name}.B": module.lora_B["default"].weight}
    bert = model.base_model.model
    bert.dropout = Masked(reference(head, seed, step, 12, torch.arange(len(ids)), width))
    classifier = bert.classifier.modules_to_save["default"]
    theirs |= {"classifier.weight": classifier.weight, "classifier.bias": classifier.bias}
    loss = F.cross_entropy(model(ids, attention_mask=mask).logits, labels)
    gradients = dict(zip(theirs, torch.autograd.grad(loss, list(theirs.values())), strict=True))

    parameters = pack.fill([{name: t.detach() for name, t in theirs.items()}])
    for program in in_parts(program_of(pair, pack, backend), 1, 2):
        losses, gradient = losses_and_gradient(program, parameters, ids, lengths, labels, step)
        assert losses.tolist() == pytest.approx([loss.item()], abs=FP32)
        for name, own in pack.split(gradient).items():
            assert (own[0] - gradients[name]).abs().max() <= FP32, name
            assert gradients[name].abs().max() > 10 * FP32
        other, _ = losses_and_gradient(program, parameters, ids, lengths, labels, step + 1)
        none, _ = losses_and_gradient(program, parameters, ids, lengths, labels)
        assert (other - losses).abs() > 1e-3
        assert (none - losses).abs() > 1e-3


@each_backend
def test_dropout_on_one_adapter_does_not_change_the_others(pair: Pair, backend: Backend) -> None:
    ids, lengths, _, labels = batch()
    calm = [run_of(seed=i, rank=4, alpha=8.0, targets=("query", "output")) for i in range(3)]
    wild = [calm[0], replace(calm[1], adapter=replace(calm[1].adapter, dropout=0.5)), calm[2]]
    found = []
    for runs in (calm, wild):
        pack = pack_for(pair, runs)
        parameters = pack.start(pair.ours.weights)
        parameters += 0.1 * torch.randn(parameters.shape, generator=torch.Generator().manual_seed(0))
        program = program_of(pair, pack, backend)
        found.append(losses_and_gradient(program, parameters, ids, lengths, labels, step=0))
    (losses, gradient), (other_losses, other_gradient) = found
    for i in (0, 2):
        assert (other_losses[i] - losses[i]).abs() <= FP32
        assert (other_gradient[i] - gradient[i]).abs().max() <= FP32
    assert (other_gradient[1] - gradient[1]).abs().max() > 1e-3


@pytest.mark.parametrize("head", ["pooler", "mean"])
def test_training_with_dropout_does_not_depend_on_the_number_of_parts(
    pair: Pair, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, options = RUNS[2:], TrainingOptions(steps=15, batch_size=7, eval_every=5)

    def learned(parts: int, threads: int) -> list[dict[str, Tensor]]:
        monkeypatch.setattr(torch_backend, "SHARDS", parts)
        backend = TorchBackend(torch.device("cpu"))
        encoder = backend.load(pair.ours.weights, pair.ours.table, torch.float32)
        pack = pack_for(pair, runs, head, head_dropout=0.1)  # type: ignore[arg-type]
        state = TrainingState.start(backend, encoder, TASK, pack, runs, 0.01)
        with using_threads(threads):
            for _ in train(state, rows(60, 0), rows(20, 1), options, seed=5):
                pass
        return [next(s.last for s in state.ended if s.run == run) for run in runs]

    alone = learned(1, 1)
    for parts, threads in ((2, 1), (2, 2), (3, 2)):
        for one, other in zip(alone, learned(parts, threads), strict=True):
            assert max(float((one[name] - other[name]).abs().max()) for name in one) <= FP32_TRAINED
    runs = [replace(run, adapter=replace(run.adapter, dropout=0.0)) for run in runs]
    without = learned(1, 1)
    for i in (0, 2):  # the second adapter has no dropout in either case
        assert max(float((alone[i][name] - without[i][name]).abs().max()) for name in without[i]) > 1e-3


@each_backend
def test_masks_of_a_row_depend_on_its_batch_and_step(pair: Pair, backend: Backend) -> None:
    """Tokens are counted per batch: the masks of a row depend on the preceding rows of its batch and on the step."""
    data = rows(12, 3)
    pack = pack_for(pair, [run_of(rank=4, alpha=8.0, dropout=0.5, targets=("query",))])
    program = program_of(pair, pack, backend)
    parameters = pack.start(pair.ours.weights)
    parameters += 0.1 * torch.randn(parameters.shape, generator=torch.Generator().manual_seed(0))

    def loss(numbers: list[int], step: int) -> float:
        own = gather(data.tokens, torch.tensor(numbers).numpy(), data.targets)
        return batch_losses(program, parameters, own, step)[0].item()

    assert loss([0, 1, 2], 4) == loss([0, 1, 2], 4)
    assert loss([0, 1, 2], 4) != loss([0, 1, 2], 5)
    assert abs(loss([0, 1, 2], 4) - loss([2, 1, 0], 4)) > 1e-5
