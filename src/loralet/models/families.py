"""How four model types call the tensors that :mod:`loralet.models.encoder` calls by one set of names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loralet.config import TARGETS
from loralet.models.encoder import EncoderShape


@dataclass(frozen=True)
class Architecture:
    """One model type's names. ``layer`` holds ``{}`` for the layer's number; ``linears`` are in the order of ``TARGETS``."""

    model_type: str
    prefix: str
    embeddings: Mapping[str, str]
    layer: str
    linears: tuple[str, ...]
    norms: tuple[str, str]

    def tensor(self, name: str) -> str:
        """The checkpoint's name, without the prefix, of the tensor of a canonical name."""
        if name.startswith("pooler."):
            return f"pooler.dense.{name.split('.')[1]}"
        if name in self.embeddings:
            return self.embeddings[name]
        _, number, part, kind = name.split(".")
        own = dict(zip((*TARGETS, "attention-norm", "output-norm"), (*self.linears, *self.norms), strict=True))[part]
        return f"{self.layer.format(number)}.{own}.{kind}"

    def module(self, linear: str) -> str:
        """The checkpoint's module path, without the prefix, of a linear map's canonical name (``layers.0.query``)."""
        return self.tensor(f"{linear}.weight").removesuffix(".weight")

    def linear(self, module: str) -> str:
        """The inverse of :meth:`module`.

        Raises:
            KeyError: no linear map of this architecture has that path.
        """
        match = re.fullmatch(re.escape(self.layer).replace(r"\{\}", r"(\d+)") + r"\.(.+)", module)
        if match is None:
            raise KeyError(module)
        return f"layers.{match[1]}.{dict(zip(self.linears, TARGETS, strict=True))[match[2]]}"


_EMBEDDINGS = {
    "embeddings.word": "embeddings.word_embeddings.weight",
    "embeddings.position": "embeddings.position_embeddings.weight",
    "embeddings.type": "embeddings.token_type_embeddings.weight",
    "embeddings.norm.weight": "embeddings.LayerNorm.weight",
    "embeddings.norm.bias": "embeddings.LayerNorm.bias",
    "embeddings.projection.weight": "embeddings_project.weight",
    "embeddings.projection.bias": "embeddings_project.bias",
}
_BERT_LINEARS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
_BERT_NORMS = ("attention.output.LayerNorm", "output.LayerNorm")

ARCHITECTURES = {
    "bert": Architecture("bert", "bert.", _EMBEDDINGS, "encoder.layer.{}", _BERT_LINEARS, _BERT_NORMS),
    "roberta": Architecture("roberta", "roberta.", _EMBEDDINGS, "encoder.layer.{}", _BERT_LINEARS, _BERT_NORMS),
    "electra": Architecture("electra", "electra.", _EMBEDDINGS, "encoder.layer.{}", _BERT_LINEARS, _BERT_NORMS),
    "distilbert": Architecture(
        "distilbert",
        "distilbert.",
        _EMBEDDINGS,
        "transformer.layer.{}",
        ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2"),
        ("sa_layer_norm", "output_layer_norm"),
    ),
}


@dataclass(frozen=True)
class HeadNames:
    """What transformers' ...ForSequenceClassification of a model type has above the encoder: two linear maps, an activation between them."""

    pooler: str
    activation: str
    classifier: str


HEADS = {
    "bert": HeadNames("bert.pooler.dense", "tanh", "classifier"),
    "roberta": HeadNames("classifier.dense", "tanh", "classifier.out_proj"),
    "distilbert": HeadNames("pre_classifier", "relu", "classifier"),
    "electra": HeadNames("classifier.dense", "gelu", "classifier.out_proj"),
}


def head_names(model_type: str) -> dict[str, str]:
    """Tensors of transformers' head by our slot names."""
    head = HEADS[model_type]
    parts = {head.pooler: "pooler", head.classifier: "classifier"}
    return {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in parts.items() for kind in ("weight", "bias")}


_CONFIG_KEYS = {
    "bert": {
        "layers": "num_hidden_layers",
        "width": "hidden_size",
        "heads": "num_attention_heads",
        "feed_forward": "intermediate_size",
        "vocabulary": "vocab_size",
        "positions": "max_position_embeddings",
    },
    "distilbert": {
        "layers": "n_layers",
        "width": "dim",
        "heads": "n_heads",
        "feed_forward": "hidden_dim",
        "vocabulary": "vocab_size",
        "positions": "max_position_embeddings",
    },
}


def shape_of(model_type: str, config: Mapping[str, Any]) -> EncoderShape:
    """The encoder's sizes from a checkpoint's config.json.

    Raises:
        KeyError: a size is not in the config; the error's argument is its key.
        ValueError: a size is no whole number, or the heads do not divide the width; the error says which.
    """
    keys = _CONFIG_KEYS["distilbert" if model_type == "distilbert" else "bert"]
    sizes = {ours: _whole(theirs, config[theirs]) for ours, theirs in keys.items()}
    if sizes["width"] % sizes["heads"]:
        raise ValueError(
            f"{keys['width']} {sizes['width']} cannot be shared among {sizes['heads']} heads ({keys['heads']})"
        )
    narrow = (
        _whole("embedding_size", config.get("embedding_size", sizes["width"]))
        if model_type == "electra"
        else sizes["width"]
    )
    return EncoderShape(
        **sizes,
        token_types=0 if model_type == "distilbert" else _whole("type_vocab_size", config.get("type_vocab_size", 2)),
        embedding_width=narrow if narrow != sizes["width"] else 0,
        first_position=_whole("pad_token_id", config.get("pad_token_id", 1), least=0) + 1
        if model_type == "roberta"
        else 0,
        activation=str(config.get("activation" if model_type == "distilbert" else "hidden_act", "gelu")),
        epsilon=float(config.get("layer_norm_eps", 1e-12)),
    )


def _whole(key: str, value: Any, least: int = 1) -> int:
    if type(value) is not int or value < least:
        raise ValueError(f"{key} is {value!r}; a whole number from {least} is expected")
    return value
