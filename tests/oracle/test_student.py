"""A distilled student loaded by transformers, and a teacher's hidden states compared with transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from stand_ins import KINDS, STAND_INS, by_transformers
from transformers import AutoModel, AutoTokenizer, BertModel

from loralet.config import DistillConfig
from loralet.distil.build import build_student
from loralet.distil.forward import states
from loralet.hub.backbone import load_backbone
from loralet.models.forward import Padded, encode, frozen
from loralet.models.heads import first_token, pool
from loralet.models.pooling import Pooling

CLOSE = 1e-5
"""fp32, two summation orders."""
WORDS = [
    "market",
    "oil",
    "bank",
    "trade",
    "team",
    "cup",
    "coach",
    "final",
    "vote",
    "war",
    "treaty",
    "chip",
    "probe",
    "orbit",
    "the",
    "a",
    "in",
    "of",
]
TEXTS = ["The coach of the TEAM", "oil", "a Treaty, in orbit: vote vote vote vote"]


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_match_transformers(kind: str, tmp_path: Path) -> None:
    folder = by_transformers(tmp_path / "teacher", kind, headed=False)
    model, backbone = AutoModel.from_pretrained(folder).eval(), load_backbone(str(folder))
    lengths = torch.tensor([7, 4])
    ids = torch.randint(5, 20, (2, 7), generator=torch.Generator().manual_seed(0))
    inside = torch.arange(7) < lengths[:, None]
    ids[~inside] = STAND_INS[kind].padding
    padded = Padded(ids, lengths)
    own = states(backbone.weights, backbone.table, padded)
    with torch.no_grad():
        theirs = model(ids, attention_mask=inside.long(), output_hidden_states=True).hidden_states[1:]
    assert len(own) == len(theirs) == backbone.table.layers
    for a, b in zip(own, theirs, strict=True):
        assert (a - b)[inside].abs().max() < CLOSE
    assert (own[0] - theirs[1])[inside].abs().max() > 0.1
    assert torch.equal(encode(backbone.weights, backbone.table, padded, frozen(backbone.weights))[0], own[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_the_student(kind: str, tmp_path: Path) -> None:
    by_transformers(tmp_path / "teacher", kind, headed=False)
    generator = np.random.default_rng(0)
    lines = [" ".join(generator.choice(WORDS, size)) for size in generator.integers(2, 9, 30)]
    (tmp_path / "texts.txt").write_text("\n".join(lines), encoding="utf-8")
    out = tmp_path / "student"
    sizes = {"width": 16, "feed_forward": 32, "epochs": 1, "pooled_epochs": 1, "batch_size": 8, "max_length": 48}
    build_student(
        DistillConfig(str(tmp_path / "teacher"), (str(tmp_path / "texts.txt"),), out=str(out), **sizes),
        lambda event: None,
    )

    tokenizer = AutoTokenizer.from_pretrained(out)
    student = load_backbone(str(out))
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    assert tokenizer.model_max_length == student.table.longest
    for text, row, mask in zip(TEXTS, batch["input_ids"], batch["attention_mask"], strict=True):
        assert row[mask.bool()].tolist() == student.tokenizer.encode(text).ids

    model, loading = BertModel.from_pretrained(out, output_loading_info=True)
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(AutoModel.from_pretrained(out)) is BertModel
    with torch.no_grad():
        theirs = model.eval()(batch["input_ids"], attention_mask=batch["attention_mask"])
        padded = Padded(batch["input_ids"], batch["attention_mask"].sum(1))
        own = encode(student.weights, student.table, padded, frozen(student.weights))
    inside = batch["attention_mask"].bool()
    assert (own[0] - theirs.last_hidden_state)[inside].abs().max() < CLOSE
    pooler = {name: student.weights[name][None] for name in ("pooler.weight", "pooler.bias")}
    pooled = pool(first_token(own), pooler, Pooling())[0]
    assert (pooled - theirs.pooler_output).abs().max() < CLOSE
    assert pooled.std() > 1e-3
