"""Heads: pooling and classification of the encoder's states."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from loralet.models.pooling import Pooling

POOLING_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": F.relu, "gelu": F.gelu}
"""Activations of a pooler: BERT's and RoBERTa's; DistilBERT's; ELECTRA's and ModernBERT's."""


def first_token(states: Float[Tensor, "k b s d"]) -> Float[Tensor, "k b d"]:
    """The state of the first token."""
    return states[:, :, 0]


def mean_over_tokens(states: Float[Tensor, "k b t d"], lengths: Int[Tensor, "b"]) -> Float[Tensor, "k b d"]:
    """The mean over a row's tokens, with special tokens and without padding, in fp32."""
    kept = (torch.arange(states.shape[2], device=lengths.device) < lengths[:, None]).float()
    return torch.einsum("kbtd,bt->kbd", states.float(), kept) / lengths[:, None].float()


def pool(
    first: Float[Tensor, "k b d"], tensors: Mapping[str, Tensor], pooling: Pooling = Pooling()
) -> Float[Tensor, "max b d"]:
    """The pooler's output for the first token's state, in fp32.

    Args:
        first: states of the first token.
        tensors: ``pooler.weight`` ``[j d d]`` and the others of :meth:`Pooling.tensors`, each with a leading axis j: 1
            for a frozen pooler, the number of adapters for a trained pooler.
        pooling: form of the pooler.
    """
    weight = tensors["pooler.weight"].float()
    rows = first.float().expand(max(first.shape[0], weight.shape[0]), -1, -1)
    x = torch.matmul(rows, weight.transpose(1, 2))
    if pooling.bias:
        x = x + tensors["pooler.bias"].float()[:, None]
    x = POOLING_ACTIVATIONS[pooling.activation](x)
    if pooling.norm:
        x = F.layer_norm(x, x.shape[-1:], eps=pooling.epsilon) * tensors["pooler.norm.weight"].float()[:, None]
    return x


def classify(
    features: Float[Tensor, "j b d"], weight: Float[Tensor, "k c d"], bias: Float[Tensor, "k c"]
) -> Float[Tensor, "k b c"]:
    """Logits of k classifiers; j is k, or 1 if all read the same features."""
    return torch.matmul(features.float(), weight.transpose(1, 2)) + bias[:, None]
