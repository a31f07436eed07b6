"""The forward pass of all supported encoders, as a pure function of weights and layer table.

Post-norm encoders (BERT, RoBERTa, DistilBERT, ELECTRA, MPNet) and pre-norm encoders (ModernBERT) share one block,
configured by :class:`loralet.models.table.EncoderTable`. ONNX export traces this function.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from loralet.models.pooling import Read
from loralet.models.table import FUSED, EncoderTable

Weights = dict[str, Tensor]
"""Tensors by canonical name: ``embeddings.word``, ``layers.0.query.weight``, ``layers.1.output-norm.bias``, ..."""

Linear = Callable[[str, Tensor], Tensor]
"""Applies the linear layer of that name: ``[k|1 b t d] -> [k|1 b t o]``."""

RELATIVE_DISTANCE = 128
"""Distance in tokens from which all relative positions share the last bucket (MPNet, T5)."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


@dataclass(frozen=True)
class Padded:
    """A padded batch.

    Args:
        ids: token ids, padded on the right.
        lengths: number of tokens of each row; padding is never attended to.
        types: token types; None: all 0.
    """

    ids: Int[Tensor, "b t"]
    lengths: Int[Tensor, "b"]
    types: Int[Tensor, "b t"] | None = None


@runtime_checkable
class Attention(Protocol):
    """Scaled dot-product attention; see :func:`attention`."""

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, lengths: Tensor, heads: int, bias: Tensor | None = None
    ) -> Tensor: ...


def attention(
    query: Float[Tensor, "kq b s d"],
    key: Float[Tensor, "kk b t d"],
    value: Float[Tensor, "kv b t d"],
    lengths: Int[Tensor, "b"],
    heads: int,
    bias: Float[Tensor, "j h s t"] | None = None,
) -> Float[Tensor, "k b s d"]:
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2), computed in fp32.

    Args:
        query, key, value: heads are concatenated in d; the axis k is 1 if all adapters share a tensor.
        lengths: number of tokens of each row.
        heads: number of heads; divides d.
        bias: added to the scaled scores, -inf for masked tokens; h is the number of heads or 1.

    Returns:
        The output in the dtype of ``query``. Values at positions beyond a row's length are unspecified but finite.
    """
    d_head = query.shape[-1] // heads
    q, k, v = (x.float().view(*x.shape[:-1], heads, d_head).transpose(2, 3) for x in (query, key, value))
    scores = torch.matmul(q * (1 / math.sqrt(d_head)), k.transpose(-1, -2))
    if bias is not None:
        scores = scores + bias
    padding = torch.arange(key.shape[2], device=lengths.device) >= lengths[:, None]
    # A finite minimum, because a local window may contain only padding.
    scores = scores.masked_fill(padding[:, None, None], torch.finfo(torch.float32).min)
    return torch.matmul(scores.softmax(-1), v).transpose(2, 3).flatten(-2).to(query.dtype)


def encode(
    weights: Weights,
    table: EncoderTable,
    batch: Padded,
    linear: Linear,
    read: Read = "all",
    attend: Attention = attention,
) -> Float[Tensor, "k b s d"]:
    """Last hidden states of a batch.

    Args:
        weights: the frozen tensors, all of the same dtype, which is used for the computation.
        table: the encoder's layer table.
        batch: token ids and lengths.
        linear: applies a linear layer by name, with or without adapters.
        read: ``first`` computes only the first token's state in the last layer (s = 1).
        attend: the attention to use.

    Returns:
        States in the dtype of the weights; k is 1 if no linear layer is adapted.
    """
    return deque(layer_states(weights, table, batch, linear, read, attend), maxlen=1).pop()


def layer_states(
    weights: Weights,
    table: EncoderTable,
    batch: Padded,
    linear: Linear,
    read: Read = "all",
    attend: Attention = attention,
) -> Iterator[Float[Tensor, "k b s d"]]:
    """Yield the states after each layer; arguments as for :func:`encode`, which returns the last states."""
    positions = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    x = embed(weights, table, batch.ids, positions.expand_as(batch.ids), batch.types)[None]
    relative = _relative_bias(weights, table, positions) if table.relative_buckets else None
    for i in range(table.layers):
        last = i == table.layers - 1
        first = read == "first" and last
        bias = relative if not table.is_local(i) else _local_bias(table, positions)
        biased = bias[:, :, :1] if bias is not None and first else bias
        own = partial(attend, lengths=batch.lengths, heads=table.heads, bias=biased)
        x = _block(weights, table, i, x, first, linear, own)
        yield layer_norm(weights, table, "final-norm", x) if table.norm_first and last else x


def _block(
    weights: Weights,
    table: EncoderTable,
    layer: int,
    x: Float[Tensor, "j b t d"],
    first: bool,
    linear: Linear,
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Float[Tensor, "k b s d"]:
    """One encoder layer, for all tokens or only for the first token of each row."""
    name = f"layers.{layer}"
    attention_norm, feed_forward_norm = (f"{name}.{norm}" for norm in table.norms)
    source = layer_norm(weights, table, attention_norm, x) if table.norm_first and layer else x
    query, key, value = _projections(table, layer, source, first, linear)
    residual = x[:, :, :1] if first else x
    attended = linear(f"{name}.attention-output", attend(query, key, value)) + residual
    if not table.norm_first:
        attended = layer_norm(weights, table, attention_norm, attended)
    source = layer_norm(weights, table, feed_forward_norm, attended) if table.norm_first else attended
    inner = feed_forward(table, linear(f"{name}.intermediate", source))
    out = linear(f"{name}.output", inner) + attended
    return out if table.norm_first else layer_norm(weights, table, feed_forward_norm, out)


def _projections(
    table: EncoderTable, layer: int, x: Float[Tensor, "j b t d"], first: bool, linear: Linear
) -> tuple[Tensor, Tensor, Tensor]:
    """Query of all tokens or only the first, key and value of all tokens, with rotary positions if configured."""
    name = f"layers.{layer}"
    if table.fused_attention:
        query, key, value = linear(f"{name}.{FUSED}", x).chunk(3, dim=-1)
        query = query[:, :, :1] if first else query
    else:
        query = linear(f"{name}.query", x[:, :, :1] if first else x)
        key, value = linear(f"{name}.key", x), linear(f"{name}.value", x)
    if table.rotary_base:
        base = table.local_rotary_base if table.is_local(layer) else table.rotary_base
        query, key = (rotate(states, table.heads, base) for states in (query, key))
    return query, key, value


def feed_forward(table: EncoderTable, x: Float[Tensor, "*axes f"]) -> Float[Tensor, "*axes g"]:
    """Activation after the intermediate layer: ``activation(x)``, or ``activation(a) * b`` of two halves."""
    activation = ACTIVATIONS[table.activation]
    if not table.gated:
        return activation(x)
    a, gate = x.chunk(2, dim=-1)
    return activation(a) * gate


def rotate(x: Float[Tensor, "k b s d"], heads: int, base: float) -> Float[Tensor, "k b s d"]:
    """Apply rotary positions (Su et al. 2021, section 3.4.2) in the two-halves layout of transformers."""
    size = x.shape[-1] // heads
    frequencies = base ** (-torch.arange(0, size, 2, dtype=torch.float32, device=x.device) / size)
    angles = torch.arange(x.shape[2], dtype=torch.float32, device=x.device)[:, None] * frequencies
    cos, sin = (f(torch.cat([angles, angles], -1)).to(x.dtype)[:, None] for f in (torch.cos, torch.sin))
    split = x.float().view(*x.shape[:-1], heads, size)
    left, right = split.chunk(2, dim=-1)
    return (split * cos + torch.cat([-right, left], -1) * sin).flatten(-2).to(x.dtype)


def _local_bias(table: EncoderTable, positions: Int[Tensor, "t"]) -> Float[Tensor, "1 1 t t"]:
    """Attention bias: -inf for tokens outside the local window."""
    apart = (positions[None] - positions[:, None]).abs()
    bias = torch.zeros(apart.shape, device=positions.device).masked_fill(apart > table.local_window, -torch.inf)
    return bias[None, None]


def _relative_bias(weights: Weights, table: EncoderTable, positions: Int[Tensor, "t"]) -> Float[Tensor, "1 h t t"]:
    """Relative position bias of MPNet (Song et al. 2020), with the buckets of T5 (Raffel et al. 2020, section 2.1)."""
    distance = positions[None] - positions[:, None]
    half = table.relative_buckets // 2
    exact = half // 2
    far = distance.abs().clamp(min=1).float() / exact
    logarithmic = exact + (far.log() / math.log(RELATIVE_DISTANCE / exact) * (half - exact)).long()
    bucket = torch.where(distance.abs() < exact, distance.abs(), logarithmic.clamp(max=half - 1))
    bucket = bucket + (distance > 0).long() * half
    return F.embedding(bucket, weights["attention.relative-bias"]).float().permute(2, 0, 1)[None]


def embed(
    weights: Weights,
    table: EncoderTable,
    ids: Int[Tensor, "*axes"],
    positions: Int[Tensor, "*axes"],
    types: Int[Tensor, "*axes"] | None = None,
) -> Float[Tensor, "*axes d"]:
    """Word, position and type embeddings, summed and normalised.

    Args:
        weights: the frozen tensors.
        table: the encoder's layer table.
        ids: token ids.
        positions: position of each token in its row, from 0.
        types: token types; None: all 0.
    """
    x = F.embedding(ids, weights["embeddings.word"])
    if not table.rotary_base:
        fixed = weights["embeddings.position"]
        if table.token_types and types is None:  # add the type to the small table instead of to every token
            fixed = fixed + weights["embeddings.type"][0]
        x = x + F.embedding(positions + table.first_position, fixed)
    if table.token_types and (types is not None or table.rotary_base):
        x = x + F.embedding(torch.zeros_like(ids) if types is None else types, weights["embeddings.type"])
    x = layer_norm(weights, table, "embeddings.norm", x)
    if table.embedding_width:
        x = F.linear(x, weights["embeddings.projection.weight"], weights["embeddings.projection.bias"])
    return x


def layer_norm(
    weights: Weights, table: EncoderTable, name: str, x: Float[Tensor, "*axes d"]
) -> Float[Tensor, "*axes d"]:
    """Layer norm (Ba et al. 2016) by name, with the table's epsilon."""
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights.get(f"{name}.bias"), table.epsilon)


def frozen(weights: Weights) -> Linear:
    """The linear layers of the checkpoint, without adapters."""
    return lambda name, x: F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))
