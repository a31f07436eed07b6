"""Batches: parts and padding; row weights compared with torch, token types and pairs with transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from backends import each_backend
from hypothesis import given
from hypothesis import strategies as st
from models import CLASSES, VOCABULARY, Pair, batch, make_pair
from programs import (
    batch_logits,
    batch_losses,
    in_parts,
    pack_for,
    program_of,
    run_of,
    torch_program_of,
)
from stand_ins import KINDS, by_transformers
from tolerances import FP32
from torch import Tensor
from torch.nn import functional as F

from loralet.adapters.pack import Pack
from loralet.backends.base import Backend
from loralet.backends.batch import Batch, batch_of
from loralet.data.batches import gather
from loralet.data.tokens import Tokens, tokenise
from loralet.hub.backbone import Backbone, load_backbone
from loralet.models.forward import Padded, encode, frozen


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("model"))


def labelled(seed: int = 1) -> Batch:
    ids, lengths, _, labels = batch(rows=10, seed=seed)
    return batch_of(ids, lengths, labels)


def three_adapters(pair: Pair) -> tuple[Pack, Tensor]:
    """A pack of three adapters with random tensors."""
    pack = pack_for(pair, [run_of(seed=i, rank=4, alpha=8.0, targets=("query", "output")) for i in range(3)])
    parameters = pack.start(pair.ours.weights)
    parameters += 0.1 * torch.randn(parameters.shape, generator=torch.Generator().manual_seed(0))
    return pack, parameters


LISTS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=7)


@given(rows=LISTS, multiple=st.integers(1, 8), data=st.data())
def test_a_part_contains_its_rows_and_padding_is_empty(
    rows: list[list[int]], multiple: int, data: st.DataObject
) -> None:
    flat = torch.tensor([token for row in rows for token in row])
    offsets = torch.tensor([0, *np.cumsum([len(row) for row in rows])])
    weights = torch.arange(2.0 * len(rows)).view(2, -1)
    whole = Batch(flat, offsets, flat % 2, torch.arange(len(rows)), weights)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=5))
    part = whole.take(torch.tensor(chosen))
    assert len(part) == len(chosen)
    assert part.targets is not None
    assert part.targets.tolist() == part.numbers().tolist() == chosen
    assert part.row_weights is not None
    assert torch.equal(part.row_weights, weights[:, chosen])
    longest = data.draw(st.one_of(st.none(), st.integers(1, 9)))
    padded = part.padded(multiple, longest)
    most = max(len(rows[i]) for i in chosen)
    rounded = -(-most // multiple) * multiple
    assert padded.ids.shape[1] == (rounded if longest is None else max(most, min(rounded, longest)))
    assert padded.lengths.tolist() == [len(rows[i]) for i in chosen]
    assert padded.types is not None
    numbers = part.token_numbers(padded.ids.shape[1])
    for i, ids, types, own in zip(chosen, padded.ids, padded.types, numbers, strict=True):
        length = len(rows[i])
        assert ids[:length].tolist() == rows[i]
        assert types[:length].tolist() == [token % 2 for token in rows[i]]
        assert flat[own[:length]].tolist() == rows[i]
        assert not ids[length:].any()
        assert not types[length:].any()


@each_backend
def test_row_weights_match_torch_cross_entropy(pair: Pair, backend: Backend) -> None:
    """Three adapters: equal row weights, class weights as in CrossEntropyLoss(weight=...), and random weights."""
    pack, parameters = three_adapters(pair)
    plain = labelled()
    assert plain.targets is not None
    by_class, by_row = torch.tensor([1.0, 0.2, 3.0, 0.0]), torch.rand(10, generator=torch.Generator().manual_seed(2))
    weights = torch.stack([torch.full((10,), 0.7), by_class[plain.targets], by_row])
    weighted = replace(plain, row_weights=weights)

    leaf = parameters.clone().requires_grad_()
    logits = torch_program_of(pair, pack).differentiable_logits(leaf, plain)
    single = F.cross_entropy(logits[2], plain.targets, reduction="none")
    expected = torch.stack(
        [
            torch.nn.CrossEntropyLoss()(logits[0], plain.targets),
            torch.nn.CrossEntropyLoss(weight=by_class)(logits[1], plain.targets),
            (single * by_row).sum() / by_row.sum(),
        ]
    )
    (wanted,) = torch.autograd.grad(expected.sum(), leaf)
    for program in in_parts(program_of(pair, pack, backend), 1, 2, 3):
        losses, gradient = batch_losses(program, parameters, weighted)
        assert (losses - expected.detach()).abs().max() <= FP32
        assert (gradient - wanted).abs().max() <= FP32
        assert wanted.abs().amax(1).min() > 1e-2
    losses, _ = batch_losses(program_of(pair, pack, backend), parameters, plain)
    assert (losses - expected.detach()).abs()[1:].min() > 1e-3


@each_backend
def test_rows_with_zero_weight_are_ignored(pair: Pair, backend: Backend) -> None:
    """An adapter with weights on some rows has the loss of those rows; without any weight, its loss is zero."""
    pack, parameters = three_adapters(pair)
    plain = labelled()
    weights = torch.ones(3, 10)
    weights[0, 4:], weights[1] = 0.0, 0.0
    for program in in_parts(program_of(pair, pack, backend), 1, 2):
        losses, gradient = batch_losses(program, parameters, replace(plain, row_weights=weights))
        first, own = batch_losses(program, parameters, plain.take(torch.arange(4)))
        whole, every = batch_losses(program, parameters, plain)
        assert (losses[0] - first[0]).abs() <= FP32
        assert (gradient[0] - own[0]).abs().max() <= FP32
        assert (losses[0] - whole[0]).abs() > 1e-3
        assert losses[1] == 0.0
        assert not gradient[1].any()
        assert (losses[2] - whole[2]).abs() <= FP32
        assert (gradient[2] - every[2]).abs().max() <= FP32


def random_types(ids: Tensor, seed: int = 3) -> Tensor:
    return torch.randint(0, 2, ids.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_token_types_match_transformers(kind: str, tmp_path: Path) -> None:
    folder = by_transformers(tmp_path / "model", kind, headed=False)
    backbone, model = load_backbone(str(folder)), transformers.AutoModel.from_pretrained(folder).eval()
    ids, lengths, mask, _ = batch()
    types = random_types(ids)

    def states(types: Tensor | None) -> Tensor:
        weights = backbone.weights
        return encode(weights, backbone.table, Padded(ids, lengths, types), frozen(weights))[0]

    kept = mask.bool()
    with torch.no_grad():
        theirs = model(ids, attention_mask=mask, token_type_ids=types).last_hidden_state
        plain = model(ids, attention_mask=mask).last_hidden_state
    assert (states(types) - theirs)[kept].abs().max() <= FP32
    assert (states(None) - plain)[kept].abs().max() <= FP32
    assert (states(torch.zeros_like(ids)) - plain)[kept].abs().max() <= FP32
    assert (theirs - plain)[kept].abs().max() > 1e-2


@each_backend
def test_a_program_uses_the_token_types_of_the_batch(pair: Pair, backend: Backend) -> None:
    pack = pack_for(pair, [run_of(rank=4, alpha=8.0, targets=("query",))])
    parameters = pack.start(pair.ours.weights)
    head = {"classifier.weight": pair.theirs.classifier.weight, "classifier.bias": pair.theirs.classifier.bias}
    parameters = pack.fill([pack.extract(parameters, 0) | {name: t.detach() for name, t in head.items()}])
    ids, lengths, mask, labels = batch()
    types = random_types(ids)
    typed = replace(batch_of(ids, lengths, labels), types=types[mask.bool()])
    with torch.no_grad():
        theirs = pair.theirs(ids, attention_mask=mask, token_type_ids=types, labels=labels)
        plain = pair.theirs(ids, attention_mask=mask).logits
    for program in in_parts(program_of(pair, pack, backend), 1, 2):
        assert (batch_logits(program, parameters, typed)[0] - theirs.logits).abs().max() <= FP32
        losses, _ = batch_losses(program, parameters, typed)
        assert (losses - theirs.loss).abs().max() <= FP32
    assert (theirs.logits - plain).abs().max() > 1e-3


WORDS = ["the", "stock", "market", "team", "wins", "game", "2004", "!", "naive", "cafe", "unknownword"]


def texts(count: int, longest: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, size)) for size in generator.integers(0, longest + 1, count)]


def column(values: list[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values[:7], pa.string()), pa.array(values[7:], pa.string())])


def pairs(backbone: Backbone, max_length: int, cache: Path | None = None) -> tuple[list[str], list[str], Tokens]:
    firsts, seconds = texts(40, 14, 0), texts(40, 14, 1)
    return firsts, seconds, tokenise(column(firsts), backbone.tokenizer, max_length, cache, column(seconds))


@pytest.mark.parametrize("max_length", [5, 8, 12, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_tokenised_pairs_match_transformers(kind: str, max_length: int, tmp_path: Path) -> None:
    folder = by_transformers(tmp_path / "model", kind, headed=False)
    backbone = load_backbone(str(folder))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    firsts, seconds, found = pairs(backbone, max_length)
    expected = tokenizer(firsts, seconds, truncation="longest_first", max_length=max_length, return_token_type_ids=True)
    cut = 0
    for i, (ids, types) in enumerate(zip(expected["input_ids"], expected["token_type_ids"], strict=True)):
        row = slice(found.starts[i], found.starts[i + 1])
        assert found.ids[row].tolist() == ids
        assert types == ([0] * len(ids) if found.types is None else found.types[row].tolist())
        cut += len(tokenizer(firsts[i], seconds[i])["input_ids"]) > max_length
    assert (found.types is None) == (not any(map(any, expected["token_type_ids"])))
    assert found.longest <= max_length
    assert (cut > 0) == (max_length < 200)
    assert tokenise(column(firsts), backbone.tokenizer, max_length).ids.tolist() != found.ids.tolist()


def test_cached_pairs_are_equal_and_separate_from_other_texts(pair: Pair, tmp_path: Path) -> None:
    firsts, seconds, fresh = pairs(pair.ours, 12)
    _, _, written = pairs(pair.ours, 12, tmp_path)
    _, _, read = pairs(pair.ours, 12, tmp_path)
    for found in (written, read):
        assert np.array_equal(found.ids, fresh.ids)
        assert np.array_equal(found.starts, fresh.starts)
        assert fresh.types is not None
        assert found.types is not None
        assert np.array_equal(found.types, fresh.types)
    assert len(list((tmp_path / "tokens").iterdir())) == 1
    single = tokenise(column(firsts), pair.ours.tokenizer, 12, tmp_path)
    turned = tokenise(column(seconds), pair.ours.tokenizer, 12, tmp_path, column(firsts))
    assert single.types is None
    assert len(list((tmp_path / "tokens").iterdir())) == 3
    assert not np.array_equal(turned.ids, fresh.ids)


@each_backend
def test_logits_of_a_text_pair_match_transformers(pair: Pair, backend: Backend) -> None:
    assert set("abc") < set(VOCABULARY)
    firsts, seconds = ["a b c", "w1 w2", "x", "a b c d e f g h i j k l m n"], ["d e", "w3 w4 w5 w6", "y z", "w7 w8 w9"]
    found = tokenise(
        pa.chunked_array([firsts]), pair.ours.tokenizer, 12, seconds=pa.chunked_array([pa.array(seconds, pa.string())])
    )
    tokenizer = transformers.BertTokenizer.from_pretrained(pair.folder)
    given = tokenizer(firsts, seconds, truncation=True, max_length=12, padding=True, return_tensors="pt")
    pack = pack_for(pair, [run_of(rank=0)])
    head = {"classifier.weight": pair.theirs.classifier.weight, "classifier.bias": pair.theirs.classifier.bias}
    parameters = pack.fill([{name: tensor.detach() for name, tensor in head.items()}])
    ours = batch_logits(program_of(pair, pack, backend), parameters, gather(found, np.array([2, 0, 3, 1])))[0]
    with torch.no_grad():
        theirs = pair.theirs(**given).logits
        untyped = pair.theirs(given["input_ids"], attention_mask=given["attention_mask"]).logits
    assert ours.shape == (4, CLASSES)
    assert (ours - theirs[[2, 0, 3, 1]]).abs().max() <= FP32
    assert (theirs - untyped).abs().max() > 1e-3
