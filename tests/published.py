"""Stand-ins for published checkpoints of MPNet, XLM-RoBERTa and ModernBERT: their files, keys and tensor names, small.

With its own sizes, XLM-RoBERTa's configuration has the published file's 615 bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from stand_ins import MODERN_IDS, write_framed_byte_level, write_framed_word_piece, write_unigram
from torch import Tensor

FOREIGN = b"\x81\xa4bert\x80" * 1000
"""Content of the files that are not read."""

MPNET_CONFIG: dict[str, Any] = {
    "architectures": ["MPNetForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 514,
    "relative_attention_num_buckets": 32,
    "model_type": "mpnet",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "vocab_size": 30527,
}
XLM_ROBERTA_CONFIG: dict[str, Any] = {
    "architectures": ["XLMRobertaForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 514,
    "model_type": "xlm-roberta",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "output_past": True,
    "pad_token_id": 1,
    "position_embedding_type": "absolute",
    "transformers_version": "4.17.0.dev0",
    "type_vocab_size": 1,
    "use_cache": True,
    "vocab_size": 250002,
}
MODERNBERT_CONFIG: dict[str, Any] = {
    "_name_or_path": "ModernBERT-base",
    "architectures": ["ModernBertForMaskedLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 50281,
    "classifier_activation": "gelu",
    "classifier_bias": False,
    "classifier_dropout": 0.0,
    "classifier_pooling": "mean",
    "cls_token_id": 50281,
    "decoder_bias": True,
    "deterministic_flash_attn": False,
    "embedding_dropout": 0.0,
    "eos_token_id": 50282,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "gradient_checkpointing": False,
    "hidden_activation": "gelu",
    "hidden_size": 768,
    "initializer_cutoff_factor": 2.0,
    "initializer_range": 0.02,
    "intermediate_size": 1152,
    "layer_norm_eps": 1e-05,
    "local_attention": 128,
    "local_rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "model_type": "modernbert",
    "norm_bias": False,
    "norm_eps": 1e-05,
    "num_attention_heads": 12,
    "num_hidden_layers": 22,
    "pad_token_id": 50283,
    "position_embedding_type": "absolute",
    "sep_token_id": 50282,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "transformers_version": "4.47.0.dev0",
    "vocab_size": 50368,
}
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
MODERN_SMALL = SMALL | MODERN_IDS | {"num_hidden_layers": 4, "local_attention": 16, "max_position_embeddings": 66}


class Random:
    """Random tensors of linear layers, norms and tables."""

    def __init__(self, width: int) -> None:
        self.width, self.generator = width, torch.Generator().manual_seed(0)

    def table(self, *size: int) -> Tensor:
        return torch.randn(*size, generator=self.generator) * 0.1

    def linear(self, name: str, d_in: int, d_out: int) -> dict[str, Tensor]:
        return {f"{name}.weight": self.table(d_out, d_in), f"{name}.bias": self.table(d_out)}

    def norm(self, name: str) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + self.table(self.width), f"{name}.bias": self.table(self.width)}


def _bert_like(config: Mapping[str, Any], prefix: str, attention: Mapping[str, str], norm: str) -> dict[str, Tensor]:
    """What MPNet and XLM-RoBERTa share: embeddings, layers and the head of masked language modelling."""
    d, f, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    some, places = Random(d), config["max_position_embeddings"]
    tensors = {
        f"{prefix}.embeddings.position_ids": torch.arange(places)[None],
        f"{prefix}.embeddings.word_embeddings.weight": some.table(v, d),
        f"{prefix}.embeddings.position_embeddings.weight": some.table(places, d),
        **some.norm(f"{prefix}.embeddings.LayerNorm"),
    }
    for i in range(config["num_hidden_layers"]):
        layer = f"{prefix}.encoder.layer.{i}"
        for name in attention.values():
            tensors |= some.linear(f"{layer}.{name}", d, d)
        tensors |= some.norm(f"{layer}.{norm}") | some.norm(f"{layer}.output.LayerNorm")
        tensors |= some.linear(f"{layer}.intermediate.dense", d, f) | some.linear(f"{layer}.output.dense", f, d)
    tensors |= {"lm_head.bias": some.table(v)} | some.linear("lm_head.dense", d, d) | some.norm("lm_head.layer_norm")
    return tensors | {"lm_head.decoder.weight": tensors[f"{prefix}.embeddings.word_embeddings.weight"]}


def mpnet_tensors(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """MPNetForMaskedLM: no token types and no pooler; its decoder has a bias of its own."""
    attention = {name: f"attention.attn.{name}" for name in "qkvo"}
    tensors = _bert_like(config, "mpnet", attention, "attention.LayerNorm")
    buckets = (config["relative_attention_num_buckets"], config["num_attention_heads"])
    tensors["mpnet.encoder.relative_attention_bias.weight"] = 3 * Random(0).table(*buckets)
    return tensors | {"lm_head.decoder.bias": tensors["lm_head.bias"]}


def xlm_roberta_tensors(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """XLMRobertaForMaskedLM under RoBERTa's prefix, with a pooler that it does not use itself."""
    attention = {name: f"attention.self.{name}" for name in ("query", "key", "value")}
    attention["output"] = "attention.output.dense"
    tensors = _bert_like(config, "roberta", attention, "attention.output.LayerNorm")
    d, some = config["hidden_size"], Random(config["hidden_size"])
    tensors["roberta.embeddings.token_type_embeddings.weight"] = some.table(config["type_vocab_size"], d)
    return tensors | some.linear("roberta.pooler.dense", d, d)


def modernbert_tensors(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """ModernBertForMaskedLM: no biases but the decoder's, and no norm before the first layer's attention."""
    d, f, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    some = Random(d)
    scales = ["model.embeddings.norm", "model.final_norm", "head.norm"]
    tensors = {"model.embeddings.tok_embeddings.weight": some.table(v, d), "head.dense.weight": some.table(d, d)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        scales += [f"{layer}.mlp_norm", *([f"{layer}.attn_norm"] if i else [])]
        for name, size in {"attn.Wqkv": (3 * d, d), "attn.Wo": (d, d), "mlp.Wi": (2 * f, d), "mlp.Wo": (d, f)}.items():
            tensors[f"{layer}.{name}.weight"] = some.table(*size)
    tensors |= {f"{name}.weight": 1 + some.table(d) for name in scales} | {"decoder.bias": some.table(v)}
    return tensors | {"decoder.weight": tensors["model.embeddings.tok_embeddings.weight"]}


@dataclass(frozen=True)
class Published:
    """A published repository.

    Args:
        config: its config.json.
        small: changed keys of the stand-in.
        tokenizer: writes tokenizer files and returns the number of tokens.
        tokenizer_config: its tokenizer_config.json; None: as the tokenizer's writer leaves it.
        tensors: tensors of a configuration.
        tied: tensors of pytorch_model.bin that model.safetensors omits, as they share memory with others.
        foreign: files that are not read.
        safetensors: whether the repository has a model.safetensors.
    """

    config: Mapping[str, Any]
    small: Mapping[str, Any]
    tokenizer: Callable[[Path], int]
    tokenizer_config: Mapping[str, Any] | None
    tensors: Callable[[Mapping[str, Any]], dict[str, Tensor]]
    tied: tuple[str, ...]
    foreign: tuple[str, ...]
    safetensors: bool = True

    def write(self, folder: Path) -> Path:
        """The stand-in, in a new folder."""
        folder.mkdir(parents=True)
        config = {**self.config, **self.small, "vocab_size": self.tokenizer(folder)}
        (folder / "config.json").write_text(config_text(config))
        if self.tokenizer_config is not None:
            (folder / "tokenizer_config.json").write_text(json.dumps(self.tokenizer_config))
        tensors = self.tensors(config)
        torch.save(tensors, folder / "pytorch_model.bin")
        if self.safetensors:
            untied = {name: tensor for name, tensor in tensors.items() if name not in self.tied}
            save_file(untied, folder / "model.safetensors", {"format": "pt"})
        for name in self.foreign:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(FOREIGN)
        return folder


def config_text(config: Mapping[str, Any]) -> str:
    """A config.json as transformers writes it."""
    return json.dumps(config, indent=2) + "\n"


MODERN_FILES = (".gitattributes", "README.md", "onnx/model.onnx", "onnx/model_quantized.onnx")
PUBLISHED = {
    "microsoft/mpnet-base": Published(
        MPNET_CONFIG,
        SMALL | {"max_position_embeddings": 66},
        write_framed_word_piece,
        {"model_max_length": 512, "do_lower_case": True},
        mpnet_tensors,
        (),
        (".gitattributes",),
        safetensors=False,
    ),
    "FacebookAI/xlm-roberta-base": Published(
        XLM_ROBERTA_CONFIG,
        SMALL | {"max_position_embeddings": 66},
        write_unigram,
        {"model_max_length": 512},
        xlm_roberta_tensors,
        ("lm_head.decoder.weight",),
        (
            ".gitattributes",
            "README.md",
            "flax_model.msgpack",
            "onnx/config.json",
            "onnx/model.onnx",
            "onnx/tokenizer.json",
            "sentencepiece.bpe.model",
            "tf_model.h5",
        ),
    ),
    "answerdotai/ModernBERT-base": Published(
        MODERNBERT_CONFIG,
        MODERN_SMALL,
        write_framed_byte_level,
        None,
        modernbert_tensors,
        ("decoder.weight",),
        MODERN_FILES,
    ),
    "jhu-clsp/ettin-encoder-17m": Published(
        MODERNBERT_CONFIG,
        # Ettin's layers with local attention have the rotary base of those with global attention.
        MODERN_SMALL | {"local_rope_theta": 160000.0, "position_embedding_type": "sans_pos"},
        write_framed_byte_level,
        None,
        modernbert_tensors,
        ("decoder.weight",),
        MODERN_FILES[:2],
    ),
}
