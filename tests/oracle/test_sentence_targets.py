"""Distillation from sentence embeddings alone: targets equal those of transformers, and a given student continues."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from stand_ins import KINDS, by_transformers
from test_student import WORDS
from transformers import AutoModel, AutoTokenizer

from loralet.backends.choice import choose_backend
from loralet.config import ComputeOptions, DistillConfig
from loralet.data.tokens import tokenise
from loralet.distil import teacher
from loralet.distil.build import build_student
from loralet.distil.student import given_student, student_table
from loralet.distil.teacher import sentence_embeddings, sentence_targets
from loralet.errors import ConfigError
from loralet.events import EpochEnded, Event
from loralet.hub.backbone import load_backbone

CLOSE = 1e-4
"""fp32, two summation orders; relative to states of about 1."""
FP32 = ComputeOptions(precision="fp32")


def texts(count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, size)) for size in generator.integers(2, 9, count)]


@pytest.fixture
def config(tmp_path: Path) -> DistillConfig:
    """A distillation without token states from a random BERT."""
    by_transformers(tmp_path / "teacher", "bert", headed=False)
    (tmp_path / "texts.txt").write_text("\n".join(texts(60, 0)), encoding="utf-8")
    sizes = {"width": 16, "feed_forward": 32, "epochs": 2, "pooled_epochs": 1, "batch_size": 8, "max_length": 48}
    return DistillConfig(
        str(tmp_path / "teacher"),
        (str(tmp_path / "texts.txt"),),
        out=str(tmp_path / "student"),
        token_states=False,
        held_out=0.2,
        lr=1e-2,
        compute=FP32,
        **sizes,
    )


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize("kind", KINDS)
def test_sentence_embeddings_are_the_mean_of_the_last_states_of_transformers(
    kind: str, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = by_transformers(tmp_path / "teacher", kind, headed=False)
    model, backbone = AutoModel.from_pretrained(folder).eval(), load_backbone(str(folder))
    rows = texts(20, 1)
    tokens = tokenise(pa.chunked_array([pa.array(rows)]), backbone.tokenizer, 48)
    monkeypatch.setattr(teacher, "GROUP", 7)
    parts = list(sentence_embeddings(backbone, tokens, choose_backend(backbone.table, "fp32", backend)))
    assert [start for start, _ in parts] == [0, 7, 14]
    batch = AutoTokenizer.from_pretrained(folder)(rows, padding=True, return_tensors="pt")
    mask = batch["attention_mask"]
    with torch.no_grad():
        states = model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
    expected = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    found = np.concatenate([part for _, part in parts])
    assert np.abs(found - expected.numpy()).max() < CLOSE < expected.std()


def test_a_student_learns_from_sentence_embeddings_alone(config: DistillConfig, tmp_path: Path) -> None:
    events: list[Event] = []
    last = build_student(config, events.append)
    epochs = [event for event in events if isinstance(event, EpochEnded)]
    assert set(epochs[2].held_out) == {"sentence", "similarity", "total"}
    assert set(last.held_out) == {"sentence", "similarity", "pooled", "pooled_similarity", "total"}
    assert epochs[2].held_out["total"] < 0.8 * epochs[0].held_out["total"]
    card = (tmp_path / "student" / "README.md").read_text(encoding="utf-8")
    assert "--no-token-states" in card
    assert "| epoch | sentence |" in card
    assert "Only sentence embeddings were matched" in card
    assert "match the teacher's layers" not in card


def test_the_targets_are_read_from_the_cache(
    config: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(config.teacher)
    tokens = tokenise(pa.chunked_array([pa.array(texts(9, 2))]), backbone.tokenizer, 48)
    first = sentence_targets(backbone, tokens, FP32, tmp_path, lambda event: None)
    monkeypatch.setattr(teacher, "sentence_embeddings", None)
    again = sentence_targets(backbone, tokens, FP32, tmp_path, lambda event: None)
    assert first.states is again.states is None
    assert np.array_equal(first.sentences, again.sentences)
    assert len(first.sentences) == 9


def test_a_given_student_is_the_start(config: DistillConfig, tmp_path: Path) -> None:
    build_student(config, lambda event: None)
    start = load_backbone(config.out)
    found = given_student(
        start, load_backbone(config.teacher), student_table(config, load_backbone(config.teacher).table)
    )
    saved = load_file(tmp_path / "student" / "model.safetensors")
    assert len(found) == len(saved)
    assert torch.equal(found["embeddings.word"], saved["embeddings.word_embeddings.weight"])
    events: list[Event] = []
    further = dataclasses.replace(config, start=config.out, out=str(tmp_path / "further"), epochs=1, lr=1e-12)
    build_student(dataclasses.replace(further, pooled_epochs=0), events.append)
    after = load_file(tmp_path / "further" / "model.safetensors")
    assert all((after[name] - saved[name]).abs().max() < 1e-6 for name in saved), "a learning rate of almost 0"
    card = (tmp_path / "further" / "README.md").read_text(encoding="utf-8")
    assert "initialised with those of student" in card
    assert "--start student" in card


def test_a_start_of_other_sizes_is_rejected_before_training(config: DistillConfig, tmp_path: Path) -> None:
    build_student(config, lambda event: None)
    other = dataclasses.replace(config, start=config.out, out=str(tmp_path / "other"), width=8, layers=1)
    with pytest.raises(ConfigError, match=r"2 problems(?s:.*)layers is 2(?s:.*)width is 16, the options say 8"):
        build_student(other, lambda event: None)
    assert not (tmp_path / "other").exists()
    vocabulary = json.loads((tmp_path / "student" / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary["model"]["vocab"]["another"] = vocabulary["model"]["vocab"].pop("market")
    (tmp_path / "student" / "tokenizer.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    with pytest.raises(ConfigError, match="the tokenizer is not the teacher's"):
        build_student(dataclasses.replace(other, width=16, layers=2), lambda event: None)


def test_layers_are_matched_only_with_token_states(config: DistillConfig) -> None:
    assert list(dataclasses.replace(config, match=(1, 2)).problems()) == [
        "match is given without token_states: only token states belong to a layer"
    ]
