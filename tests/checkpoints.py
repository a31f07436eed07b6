"""Stand-ins for published checkpoints: real file sets, key sets and config keys, random weights, small sizes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = (
    "the",
    "stock",
    "stocks",
    "market",
    "team",
    "wins",
    "game",
    "play",
    "world",
    "news",
    "oil",
    "price",
    "new",
    "cafe",
    "naive",
    "2004",
)
PIECES = ("##s", "##ing", "##ed", "##er", "##ly", "##ball", "##et", "##04")
MARKS = (*".,;:!?'\"-()&#$%/\\@*+=<>[]_~`^|{}", *"中国東京€–ß😀")
SPECIALS = ("[UNK]", "[CLS]", "[SEP]", "[MASK]")

SENTENCES = (
    "The stock market fell as oil prices rose on Monday.",
    "the team wins the game, the team plays the world cup",
    "naïve café, Zürich — 100 € and 20 %",
    "new news from the new world: 2004 was the year",
)


def vocabulary(size: int = 0, words: Sequence[str] = WORDS) -> list[str]:
    """A WordPiece vocabulary in BERT's order, filled up with unused tokens to ``size``.

    The order is [PAD], unused, special tokens, marks, letters, words, pieces.
    """
    letters = [*LETTERS, *"0123456789"]
    tokens = [
        "[PAD]",
        "[unused0]",
        *SPECIALS,
        *MARKS,
        *letters,
        *words,
        *(f"##{c}" for c in letters),
        *(p for p in PIECES if len(p) > 3),
    ]
    return tokens + [f"[unused{i}]" for i in range(1, 1 + size - len(tokens))]


def write_vocabulary(folder: Path, tokens: Sequence[str]) -> None:
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")


def bert_config(
    layers: int = 2, width: int = 32, heads: int = 2, rows: int = 200, positions: int = 64
) -> dict[str, Any]:
    """prajjwal1/bert-tiny's config.json: these keys and no others.

    With its own sizes (128, 30522, 512) it has the real file's 285 bytes.
    """
    return {
        "hidden_size": width,
        "hidden_act": "gelu",
        "initializer_range": 0.02,
        "vocab_size": rows,
        "hidden_dropout_prob": 0.1,
        "num_attention_heads": heads,
        "type_vocab_size": 2,
        "max_position_embeddings": positions,
        "num_hidden_layers": layers,
        "intermediate_size": 4 * width,
        "attention_probs_dropout_prob": 0.1,
    }


def bert_tensors(config: Mapping[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """The key set of a BertForPreTraining as transformers saved it in 2020, its decoder tied to the word embeddings."""
    generator = torch.Generator().manual_seed(seed)
    d, f, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]

    def rand(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator) * 0.1

    def linear(name: str, d_in: int, d_out: int) -> dict[str, Tensor]:
        return {f"{name}.weight": rand(d_out, d_in), f"{name}.bias": rand(d_out)}

    def norm(name: str) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + rand(d), f"{name}.bias": rand(d)}

    tensors = {
        "bert.embeddings.position_ids": torch.arange(config["max_position_embeddings"])[None],
        "bert.embeddings.word_embeddings.weight": rand(v, d),
        "bert.embeddings.position_embeddings.weight": rand(config["max_position_embeddings"], d),
        "bert.embeddings.token_type_embeddings.weight": rand(config["type_vocab_size"], d),
        **norm("bert.embeddings.LayerNorm"),
    }
    for i in range(config["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{i}"
        for name in ("query", "key", "value"):
            tensors |= linear(f"{layer}.attention.self.{name}", d, d)
        tensors |= linear(f"{layer}.attention.output.dense", d, d) | norm(f"{layer}.attention.output.LayerNorm")
        tensors |= (
            linear(f"{layer}.intermediate.dense", d, f)
            | linear(f"{layer}.output.dense", f, d)
            | norm(f"{layer}.output.LayerNorm")
        )
    tensors |= linear("bert.pooler.dense", d, d)
    tensors |= (
        {"cls.predictions.bias": rand(v)}
        | linear("cls.predictions.transform.dense", d, d)
        | norm("cls.predictions.transform.LayerNorm")
    )
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
    return tensors | linear("cls.seq_relationship", d, 2)


def old_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LayerNorm tensors as gamma and beta, as conversions from TensorFlow had them before 2019."""
    return {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
        for n, t in tensors.items()
    }


def prajjwal(
    folder: Path,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    rename: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict,
) -> Path:
    """prajjwal1/bert-tiny: config.json without model_type, pytorch_model.bin and vocab.txt; nothing else."""
    folder.mkdir(parents=True)
    config = config or bert_config()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.save(dict(rename(bert_tensors(config, seed))), folder / "pytorch_model.bin")
    write_vocabulary(folder, vocabulary(config["vocab_size"]))
    return folder


def google(folder: Path, seed: int = 0, config: Mapping[str, Any] | None = None) -> Path:
    """google/bert_uncased_L-2_H-128_A-2: a config with a model type, no position_ids (assumed), and a flax file too."""
    folder.mkdir(parents=True)
    config = config or bert_config()
    own = {"layer_norm_eps": 1e-12, "model_type": "bert", "pad_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config | own, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    tensors = bert_tensors(config, seed)
    left_out = ("bert.embeddings.position_ids", "cls.predictions.decoder.bias")
    torch.save({name: tensor for name, tensor in tensors.items() if name not in left_out}, folder / "pytorch_model.bin")
    (folder / "flax_model.msgpack").write_bytes(b"\x81\xa4bert\x80" * 1000)
    write_vocabulary(folder, vocabulary(config["vocab_size"]))
    return folder


def to_safetensors(folder: Path, dtype: torch.dtype = torch.float32, keep_bin: bool = False) -> Path:
    """Replace a folder's pytorch_model.bin by model.safetensors of the given floating type."""
    path = folder / "pytorch_model.bin"
    tensors = torch.load(path, weights_only=True)
    save_file(
        {n: (t.to(dtype) if t.is_floating_point() else t).clone() for n, t in tensors.items()},
        folder / "model.safetensors",
    )
    if not keep_bin:
        path.unlink()
    return folder
