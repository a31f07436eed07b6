"""Description of a model family: keys of config.json, tensor names, tokenizer, classification head.

Each module of :mod:`loralet.models.families` describes one family. A new module is sufficient to add a family whose
layers the table (:mod:`loralet.models.table`) can express.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from loralet.models.pooling import Pooling
from loralet.models.table import EncoderTable

ConfigValue = object
Config = Mapping[str, ConfigValue]
"""A checkpoint's config.json."""


@dataclass(frozen=True)
class SpecialTokens:
    """Special tokens: ``first text last``, and the others by role."""

    first: str = "[CLS]"
    last: str = "[SEP]"
    padding: str = "[PAD]"
    unknown: str = "[UNK]"
    mask: str = "[MASK]"


ROBERTA_TOKENS = SpecialTokens("<s>", "</s>", "<pad>", "<unk>", "<mask>")


@dataclass(frozen=True)
class HeadNames:
    """The head of transformers' ``...ForSequenceClassification``.

    Args:
        pooler: module path of its first linear layer, prefix included.
        classifier: module path of the linear layer that gives the logits.
        pooling: activation, bias and norm between pooler and classifier.
        norm: module path of the layer norm after the activation; empty: none.
        in_encoder: whether the pooler is part of the encoder (BERT), not of the classification head.
    """

    pooler: str
    classifier: str
    pooling: Pooling = Pooling()
    norm: str = ""
    in_encoder: bool = False

    def tensors(self) -> dict[str, str]:
        """Slot names by transformers' tensor names."""
        names = {f"{self.pooler}.weight": "pooler.weight"}
        if self.pooling.bias:
            names[f"{self.pooler}.bias"] = "pooler.bias"
        if self.norm:
            names[f"{self.norm}.weight"] = "pooler.norm.weight"
        return names | {f"{self.classifier}.{kind}": f"classifier.{kind}" for kind in ("weight", "bias")}


@dataclass(frozen=True)
class Family:
    """One model family.

    Args:
        model_type: ``model_type`` in config.json.
        prefix: prefix of tensor names in a checkpoint with a head.
        transformers: prefix of the class names in transformers.
        embeddings: names of all tensors outside the layers, without prefix, by canonical name.
        layer: module path of a layer, with ``{}`` for its index.
        parts: module path within a layer of each linear layer and norm, by canonical name.
        table: function that returns the layer table for a config.json. Raises KeyError for a missing key, ValueError
            for an unsupported value; the message contains the key.
        head: of its sequence classification class in transformers.
        pooling: of a pooler that is trained here.
        tokens: its special tokens.
        pooler: module path of the pooler in the encoder's own checkpoint.
        hf_config: keys of config.json that select the classification head in transformers, with the values of this one.
    """

    model_type: str
    prefix: str
    transformers: str
    embeddings: Mapping[str, str]
    layer: str
    parts: Mapping[str, str]
    table: Callable[[Config], EncoderTable]
    head: HeadNames
    pooling: Pooling = Pooling()
    tokens: SpecialTokens = field(default_factory=SpecialTokens)
    pooler: str = "pooler.dense"
    hf_config: Mapping[str, ConfigValue] = field(default_factory=dict)

    def tensor(self, name: str) -> str:
        """The checkpoint's name of a tensor, without prefix, by canonical name."""
        if name.startswith("pooler."):
            part = name.removeprefix("pooler.")
            return f"{self.pooler.rpartition('.')[0] if '.' in part else self.pooler}.{part}"
        if name in self.embeddings:
            return self.embeddings[name]
        _, number, part, kind = name.split(".")
        return f"{self.layer.format(number)}.{self.parts[part]}.{kind}"

    def module(self, linear: str) -> str:
        """The checkpoint's module path of a linear layer, without prefix, by canonical name (``layers.0.query``)."""
        return self.tensor(f"{linear}.weight").removesuffix(".weight")

    def linear(self, module: str) -> str:
        """The inverse of :meth:`module`.

        Raises:
            KeyError: no linear layer of this family has that path.
        """
        match = re.fullmatch(re.escape(self.layer).replace(r"\{\}", r"(\d{1,6})") + r"\.(.+)", module)
        if match is None:
            raise KeyError(module)
        return f"layers.{match[1]}.{ {theirs: ours for ours, theirs in self.parts.items()}[match[2]] }"


def whole(config: Config, key: str, default: int | None = None, least: int = 1) -> int:
    """Read an integer from config.json.

    Raises:
        KeyError: the key is missing and has no default.
        ValueError: the value is not an integer of at least ``least``, or not below 2^31.
    """
    value = config[key] if default is None else config.get(key, default)
    if type(value) is not int or not least <= value < 2**31:
        raise ValueError(f"{key} is {repr(value)[:40]}; a whole number from {least} is expected")
    return value


def number(config: Config, key: str, default: float) -> float:
    """Read a positive number from config.json.

    Raises:
        ValueError: the value is not a positive number.
    """
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ValueError(f"{key} is {value!r}; a number above 0 is expected")
    return float(value)


def bert_like(
    config: Config,
    *,
    token_types: int = 0,
    embedding_width: int = 0,
    first_position: int = 0,
    relative_buckets: int = 0,
) -> EncoderTable:
    """The table of a post-norm encoder whose config has BERT's keys.

    Raises:
        KeyError, ValueError: see :class:`Family`.
    """
    width, heads = whole(config, "hidden_size"), whole(config, "num_attention_heads")
    require_heads(width, heads, "hidden_size", "num_attention_heads")
    require_absolute(config)
    require_encoder(config)
    return EncoderTable(
        layers=whole(config, "num_hidden_layers"),
        width=width,
        heads=heads,
        feed_forward=whole(config, "intermediate_size"),
        vocabulary=whole(config, "vocab_size"),
        positions=whole(config, "max_position_embeddings"),
        token_types=token_types,
        embedding_width=embedding_width if embedding_width != width else 0,
        first_position=first_position,
        activation=str(config.get("hidden_act", "gelu")),
        epsilon=number(config, "layer_norm_eps", 1e-12),
        relative_buckets=relative_buckets,
    )


def require_heads(width: int, heads: int, width_key: str, heads_key: str) -> None:
    """Check that the width is a multiple of the number of heads.

    Raises:
        ValueError: it is not.
    """
    if width % heads:
        raise ValueError(f"{width_key} is {width}: it must be a multiple of {heads_key} ({heads})")


def require_encoder(config: Config) -> None:
    """Check that each token attends to the tokens on both sides, and to no other sequence.

    Raises:
        ValueError: the config is that of a decoder.
    """
    for key in ("is_decoder", "add_cross_attention"):
        if config.get(key):
            raise ValueError(f"{key} is {config[key]!r}; only encoders, which attend to both sides, are supported")


def require_absolute(config: Config) -> None:
    """Check that position embeddings are absolute, as in the original BERT.

    Raises:
        ValueError: they are not.
    """
    if str(config.get("position_embedding_type", "absolute")) != "absolute":
        raise ValueError("position_embedding_type: only absolute position embeddings are supported")


BERT_EMBEDDINGS = {
    "embeddings.word": "embeddings.word_embeddings.weight",
    "embeddings.position": "embeddings.position_embeddings.weight",
    "embeddings.type": "embeddings.token_type_embeddings.weight",
    "embeddings.norm.weight": "embeddings.LayerNorm.weight",
    "embeddings.norm.bias": "embeddings.LayerNorm.bias",
}
BERT_PARTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention-output": "attention.output.dense",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "attention-norm": "attention.output.LayerNorm",
    "output-norm": "output.LayerNorm",
}
BERT_LAYER = "encoder.layer.{}"
