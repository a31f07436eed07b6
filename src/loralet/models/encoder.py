"""A BERT-family encoder as one pure function of its weights.

BERT (Devlin et al. 2019), RoBERTa, DistilBERT and ELECTRA differ in names and in the three switches of :class:`EncoderShape`
(``embedding_width``, ``token_types``, ``first_position``); the arithmetic is the same post-norm transformer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from loralet.backends.native.attention import attention

Weights = dict[str, Tensor]
"""Tensors by canonical name: ``embeddings.word``, ``layers.0.query.weight``, ``layers.1.output-norm.bias``, ``pooler.weight``, ..."""

Linear = Callable[[str, Tensor], Tensor]
"""Applies the linear map of that name: ``[k|1 b t d] -> [k|1 b t o]``."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


@dataclass(frozen=True)
class EncoderShape:
    """The sizes and switches of an encoder."""

    layers: int
    width: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    token_types: int = 2
    embedding_width: int = 0
    """Width of the word embeddings where a projection follows them (ELECTRA); 0: the encoder's own width."""
    first_position: int = 0
    """Row of the position table that the first token reads (RoBERTa: 2)."""
    activation: str = "gelu"
    epsilon: float = 1e-12

    @property
    def longest(self) -> int:
        """Tokens that the position table can hold."""
        return self.positions - self.first_position

    def linear_sizes(self, target: str) -> tuple[int, int]:
        """Features in and out of one of a layer's linear maps."""
        d, f = self.width, self.feed_forward
        return {"intermediate": (d, f), "output": (f, d)}.get(target, (d, d))

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of the encoder, the pooler left out."""
        d, e = self.width, self.embedding_width or self.width
        shapes: dict[str, tuple[int, ...]] = {
            "embeddings.word": (self.vocabulary, e),
            "embeddings.position": (self.positions, e),
        }
        if self.token_types:
            shapes["embeddings.type"] = (self.token_types, e)
        shapes |= {"embeddings.norm.weight": (e,), "embeddings.norm.bias": (e,)}
        if self.embedding_width:
            shapes |= {"embeddings.projection.weight": (d, e), "embeddings.projection.bias": (d,)}
        for i in range(self.layers):
            for target in ("query", "key", "value", "attention-output", "intermediate", "output"):
                d_in, d_out = self.linear_sizes(target)
                shapes |= {f"layers.{i}.{target}.weight": (d_out, d_in), f"layers.{i}.{target}.bias": (d_out,)}
            for norm in ("attention-norm", "output-norm"):
                shapes |= {f"layers.{i}.{norm}.weight": (d,), f"layers.{i}.{norm}.bias": (d,)}
        return shapes


def encode(
    weights: Weights,
    shape: EncoderShape,
    ids: Int[Tensor, "b t"],
    lengths: Int[Tensor, "b"],
    linear: Linear,
    read: Literal["first", "all"] = "all",
) -> Float[Tensor, "k b s d"]:
    """Last hidden states of a batch.

    Args:
        weights: the frozen tensors, all of one floating type, which is the type of the arithmetic.
        shape: sizes of the encoder.
        ids: token ids, padded on the right.
        lengths: tokens of each row that count; the rest is padding and is never attended to.
        linear: applies a layer's linear map by name, with or without adapters.
        read: ``first`` computes, in the last layer, only what the first token's state needs (s = 1); ``all`` every token (s = t).

    Returns:
        States in the arithmetic's type; k is 1 as long as no adapted linear map has been met.
    """
    return deque(layer_states(weights, shape, ids, lengths, linear, read), maxlen=1).pop()


def layer_states(
    weights: Weights,
    shape: EncoderShape,
    ids: Int[Tensor, "b t"],
    lengths: Int[Tensor, "b"],
    linear: Linear,
    read: Literal["first", "all"] = "all",
) -> Iterator[Float[Tensor, "k b s d"]]:
    """The states after each layer in turn; arguments as for :func:`encode`, which returns the last of them."""
    activation = ACTIVATIONS[shape.activation]
    x = embed(weights, shape, ids, torch.arange(ids.shape[1], device=ids.device).expand_as(ids))[None]
    for i in range(shape.layers):
        rows = x[:, :, :1] if read == "first" and i == shape.layers - 1 else x
        query, key, value = (
            linear(f"layers.{i}.query", rows),
            linear(f"layers.{i}.key", x),
            linear(f"layers.{i}.value", x),
        )
        attended = attention(query, key, value, lengths, shape.heads)
        x = layer_norm(
            weights, shape, f"layers.{i}.attention-norm", linear(f"layers.{i}.attention-output", attended) + rows
        )
        inner = activation(linear(f"layers.{i}.intermediate", x))
        x = layer_norm(weights, shape, f"layers.{i}.output-norm", linear(f"layers.{i}.output", inner) + x)
        yield x


def embed(
    weights: Weights, shape: EncoderShape, ids: Int[Tensor, "*axes"], positions: Int[Tensor, "*axes"]
) -> Float[Tensor, "*axes d"]:
    """Word, position and type embeddings, summed and normalised; every text is of token type 0.

    Args:
        weights: the frozen tensors.
        shape: sizes of the encoder.
        ids: token ids.
        positions: the place of each in its row, from 0.
    """
    fixed = weights["embeddings.position"]
    if shape.token_types:
        fixed = fixed + weights["embeddings.type"][0]
    x = F.embedding(ids, weights["embeddings.word"]) + F.embedding(positions + shape.first_position, fixed)
    x = layer_norm(weights, shape, "embeddings.norm", x)
    if shape.embedding_width:
        x = F.linear(x, weights["embeddings.projection.weight"], weights["embeddings.projection.bias"])
    return x


def layer_norm(
    weights: Weights, shape: EncoderShape, name: str, x: Float[Tensor, "*axes d"]
) -> Float[Tensor, "*axes d"]:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], shape.epsilon)
