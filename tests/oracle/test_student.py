"""A distilled student loaded by transformers, and a teacher's hidden states compared with transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from loralet.config import DistillConfig
from loralet.distil.build import build_student
from loralet.distil.forward import states
from loralet.hub.backbone import load_backbone
from loralet.models.forward import Padded, encode, frozen
from loralet.models.heads import Pooling, first_token, pool

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


def word_piece(folder: Path) -> int:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(vocabulary)


def byte_level(folder: Path) -> int:
    alphabet = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(alphabet)}, []))
    tokenizer.add_special_tokens(alphabet[:5])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(alphabet)


def make_teacher(kind: str, folder: Path) -> torch.nn.Module:
    import transformers

    vocabulary = byte_level(folder) if kind == "roberta" else word_piece(folder)
    sizes = {
        "num_hidden_layers": 4,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 70,
    }
    if kind == "distilbert":
        sizes = {"n_layers": 4, "dim": 32, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 70}
    if kind == "electra":
        sizes |= {"embedding_size": 24}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, vocab_size=vocabulary, initializer_range=0.3, **sizes)
    model = transformers.AutoModel.from_config(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra"])
def test_hidden_states_match_transformers(kind: str, tmp_path: Path) -> None:
    model = make_teacher(kind, tmp_path)
    backbone = load_backbone(str(tmp_path))
    lengths = torch.tensor([7, 4])
    ids = torch.randint(5, 20, (2, 7), generator=torch.Generator().manual_seed(0))
    inside = torch.arange(7) < lengths[:, None]
    if kind == "roberta":
        ids[~inside] = 1
    padded = Padded(ids, lengths)
    own = states(backbone.weights, backbone.table, padded)
    with torch.no_grad():
        theirs = model(ids, attention_mask=inside.long(), output_hidden_states=True).hidden_states[1:]
    assert len(own) == len(theirs) == 4
    for a, b in zip(own, theirs, strict=True):
        assert (a - b)[inside].abs().max() < CLOSE
    assert (own[0] - theirs[1])[inside].abs().max() > 0.1
    assert torch.equal(encode(backbone.weights, backbone.table, padded, frozen(backbone.weights))[0], own[-1])


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_transformers_loads_the_student(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer, BertModel

    (tmp_path / "teacher").mkdir()
    make_teacher(kind, tmp_path / "teacher")
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
