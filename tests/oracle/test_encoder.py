"""The encoder, compared with transformers' models on checkpoints that transformers wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from checkpoints import prajjwal
from stand_ins import KINDS, STAND_INS, by_transformers
from torch import Tensor

from loralet.hub.backbone import Backbone, load_backbone
from loralet.models.forward import ACTIVATIONS, Padded, encode, frozen
from loralet.models.heads import mean_over_tokens, pool
from loralet.models.pooling import Pooling
from loralet.models.table import ACTIVATION_NAMES

CLOSE = 1e-5
"""Absolute, for states of about one: fp32 sums of a few dozen terms in another order, over two layers."""
SAME = 1e-6
"""Absolute and relative: the same sums of the same row in a matrix of another height."""
FAR = 1e-3
"""Absolute: two outputs of different models differ by at least this, a hundred times CLOSE."""

LENGTHS = (2, 7, 20, 64)
ORDINARY = 10
"""Token ids from here up are ordinary tokens in every vocabulary; RoBERTa's positions pass over its padding id."""


def batch(
    backbone: Backbone, lengths: tuple[int, ...], tokens: int = 0, padding: int = 0, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Random ids ``[b t]``, padded to the longest or to ``tokens``, and their lengths ``[b]``."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), max(tokens, *lengths)), padding)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.randint(ORDINARY, backbone.table.vocabulary, (length,), generator=generator)
    return ids, torch.tensor(lengths)


def states(backbone: Backbone, ids: Tensor, lengths: Tensor, read: Any = "all") -> Tensor:
    """``[b s d]``"""
    with torch.no_grad():
        weights = backbone.weights
        return encode(weights, backbone.table, Padded(ids, lengths), frozen(weights), read)[0]


def pooled(backbone: Backbone, first: Tensor) -> Tensor:
    """``[b d]``, of the first tokens' states ``[1 b d]``."""
    names = ("pooler.weight", "pooler.bias")
    return pool(first, {name: backbone.weights[name][None] for name in names}, Pooling())[0]


def theirs(folder: Path, kind: str, ids: Tensor, lengths: Tensor) -> Any:
    model = (
        getattr(transformers, f"{STAND_INS[kind].transformers}Model")
        .from_pretrained(folder, attn_implementation="eager")
        .eval()
    )
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=(torch.arange(ids.shape[1]) < lengths[:, None]).long())


def difference(a: Tensor, b: Tensor, lengths: Tensor) -> float:
    """The largest absolute difference between two outputs, without padding."""
    kept = torch.arange(a.shape[1]) < lengths[:, None]
    return float((a - b)[kept].abs().max())


@pytest.mark.parametrize("headed", [True, False], ids=["headed", "bare"])
@pytest.mark.parametrize("kind", KINDS)
class TestAgainstTransformers:
    def test_every_token_of_every_length(self, kind: str, headed: bool, tmp_path: Path) -> None:
        folder = by_transformers(tmp_path / "a", kind, headed=headed)
        backbone = load_backbone(str(folder))
        assert backbone.table.longest == 66 - STAND_INS[kind].first_position
        ids, lengths = batch(backbone, LENGTHS, padding=STAND_INS[kind].padding)
        expected = theirs(folder, kind, ids, lengths).last_hidden_state
        found = states(backbone, ids, lengths)
        assert difference(found, expected, lengths) < CLOSE
        assert expected.abs().max() > 1
        other = load_backbone(str(by_transformers(tmp_path / "b", kind, seed=1, headed=headed)))
        assert difference(states(other, ids, lengths), expected, lengths) > FAR

    def test_without_padding_and_at_the_greatest_length(self, kind: str, headed: bool, tmp_path: Path) -> None:
        folder = by_transformers(tmp_path / "a", kind, headed=headed)
        backbone = load_backbone(str(folder))
        ids, lengths = batch(backbone, (backbone.table.longest,) * 2)
        expected = theirs(folder, kind, ids, lengths).last_hidden_state
        assert difference(states(backbone, ids, lengths), expected, lengths) < CLOSE
        shorter = lengths - 1
        assert difference(states(backbone, ids, shorter), expected, shorter) > FAR


@pytest.mark.parametrize("kind", KINDS)
def test_long_texts(kind: str, tmp_path: Path) -> None:
    """Texts longer than any distance that a relative position bias or a local window distinguishes."""
    folder = by_transformers(tmp_path / "a", kind, positions=302)
    backbone = load_backbone(str(folder))
    ids, lengths = batch(backbone, (300, 5, 140), padding=STAND_INS[kind].padding)
    expected = theirs(folder, kind, ids, lengths).last_hidden_state
    assert difference(states(backbone, ids, lengths), expected, lengths) < CLOSE


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation(activation: str, tmp_path: Path) -> None:
    folder = by_transformers(tmp_path / "a", "bert", hidden_act=activation)
    backbone = load_backbone(str(folder))
    ids, lengths = batch(backbone, LENGTHS)
    expected = theirs(folder, "bert", ids, lengths).last_hidden_state
    assert difference(states(backbone, ids, lengths), expected, lengths) < CLOSE
    other = replace(backbone, table=replace(backbone.table, activation="gelu" if activation == "relu" else "relu"))
    assert difference(states(other, ids, lengths), expected, lengths) > FAR


def test_the_config_s_epsilon_is_used(tmp_path: Path) -> None:
    folder = by_transformers(tmp_path / "a", "bert", layer_norm_eps=0.1)
    backbone = load_backbone(str(folder))
    ids, lengths = batch(backbone, LENGTHS)
    expected = theirs(folder, "bert", ids, lengths).last_hidden_state
    assert difference(states(backbone, ids, lengths), expected, lengths) < CLOSE
    other = replace(backbone, table=replace(backbone.table, epsilon=1e-12))
    assert difference(states(other, ids, lengths), expected, lengths) > FAR


@pytest.mark.parametrize("kind", [kind for kind in KINDS if STAND_INS[kind].pooled])
def test_the_pooler(kind: str, tmp_path: Path) -> None:
    folder = by_transformers(tmp_path / "a", kind, headed=False)
    backbone = load_backbone(str(folder))
    ids, lengths = batch(backbone, LENGTHS, padding=STAND_INS[kind].padding)
    expected = theirs(folder, kind, ids, lengths).pooler_output
    first = states(backbone, ids, lengths, "first").transpose(0, 1)
    assert (pooled(backbone, first) - expected).abs().max() < CLOSE
    assert (first[0] - expected).abs().max() > FAR


def test_the_bare_bert_tiny_checkpoint(tmp_path: Path) -> None:
    folder = prajjwal(tmp_path / "a")
    backbone = load_backbone(str(folder))
    ids, lengths = batch(backbone, LENGTHS)
    expected = theirs(folder, "bert", ids, lengths)
    assert difference(states(backbone, ids, lengths), expected.last_hidden_state, lengths) < CLOSE
    first = states(backbone, ids, lengths, "first").transpose(0, 1)
    assert (pooled(backbone, first) - expected.pooler_output).abs().max() < CLOSE
    other = load_backbone(str(prajjwal(tmp_path / "b", seed=1)))
    assert difference(states(other, ids, lengths), expected.last_hidden_state, lengths) > FAR


def test_from_text_to_states(tmp_path: Path) -> None:
    folder = prajjwal(tmp_path / "a")
    backbone = load_backbone(str(folder))
    texts = ["The team wins the game!", "Oil prices"]
    tokenised = transformers.BertTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    lengths = tokenised["attention_mask"].sum(1)
    ids = [encoding.ids for encoding in backbone.tokenizer.encode_batch(texts)]
    assert [row[:length].tolist() for row, length in zip(tokenised["input_ids"], lengths, strict=True)] == ids
    expected = theirs(folder, "bert", tokenised["input_ids"], lengths).last_hidden_state
    assert difference(states(backbone, tokenised["input_ids"], lengths), expected, lengths) < CLOSE


@pytest.mark.parametrize("kind", KINDS)
class TestByItself:
    def test_first_is_the_first_of_all(self, kind: str, tmp_path: Path) -> None:
        backbone = load_backbone(str(by_transformers(tmp_path / "a", kind)))
        ids, lengths = batch(backbone, LENGTHS)
        everything, first = states(backbone, ids, lengths), states(backbone, ids, lengths, "first")
        assert first.shape == (len(LENGTHS), 1, backbone.table.width)
        torch.testing.assert_close(first, everything[:, :1], rtol=SAME, atol=SAME)
        assert (everything[:, 1:2] - first).abs().max() > FAR

    def test_a_row_depends_neither_on_its_mates_nor_on_padding(self, kind: str, tmp_path: Path) -> None:
        backbone = load_backbone(str(by_transformers(tmp_path / "a", kind)))
        head = torch.randn(4, backbone.table.width, generator=torch.Generator().manual_seed(2))

        def logits(ids: Tensor, lengths: Tensor) -> Tensor:
            found = states(backbone, ids, lengths)
            return torch.cat([found[:, 0] @ head.T, mean_over_tokens(found[None], lengths)[0] @ head.T], 1)

        ids, lengths = batch(backbone, LENGTHS)
        together = logits(ids, lengths)
        for i, length in enumerate(LENGTHS):
            alone = logits(ids[i : i + 1, :length], lengths[i : i + 1])
            assert (together[i] - alone[0]).abs().max() < CLOSE, length
        junk = ids.clone()
        for row, length in zip(junk, LENGTHS, strict=True):
            row[length:] = ORDINARY
        assert torch.equal(logits(junk, lengths), together)
        mates = ids.roll(1, 0)
        mates[0] = ids[0]
        assert (logits(mates, torch.tensor([LENGTHS[0], *LENGTHS[:-1]]))[0] - together[0]).abs().max() < CLOSE
        changed = ids.clone()
        changed[:, 1] = torch.where(ids[:, 1] == ORDINARY, ORDINARY + 1, ORDINARY)
        assert (logits(changed, lengths) - together).abs().amax(1).min() > FAR

    def test_every_weight_matters(self, kind: str, tmp_path: Path) -> None:
        backbone = load_backbone(str(by_transformers(tmp_path / "a", kind, headed=False)))
        ids, lengths = batch(backbone, LENGTHS)
        before = states(backbone, ids, lengths)
        silent = []
        for name in backbone.table.tensors():
            # Noise: a constant adds the same value to all features, which the next norm removes.
            noise = torch.randn(backbone.weights[name].shape, generator=torch.Generator().manual_seed(3))
            other = replace(backbone, weights=backbone.weights | {name: backbone.weights[name] + noise})
            if difference(states(other, ids, lengths), before, lengths) < FAR:
                silent.append(name)
        # The bias of a key adds the same value to all scores of a query, which leaves the softmax unchanged.
        assert silent == [name for name in backbone.table.tensors() if name.endswith(".key.bias")]


def test_the_forward_pass_has_every_activation_that_a_checkpoint_may_name() -> None:
    assert tuple(ACTIVATIONS) == ACTIVATION_NAMES
