"""What stands between the encoder's states and the logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def first_token(states: Float[Tensor, "k b s d"]) -> Float[Tensor, "k b d"]:
    """The state of the first token."""
    return states[:, :, 0]


def mean_over_tokens(states: Float[Tensor, "k b t d"], lengths: Int[Tensor, "b"]) -> Float[Tensor, "k b d"]:
    """The mean of a row's states over its own tokens, special tokens included, padding not; in fp32."""
    kept = (torch.arange(states.shape[2], device=lengths.device) < lengths[:, None]).float()
    return torch.einsum("kbtd,bt->kbd", states.float(), kept) / lengths[:, None].float()


POOLING: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": F.relu, "gelu": F.gelu}
"""Activations of a pooler: BERT's and RoBERTa's, DistilBERT's, ELECTRA's."""


def pool(
    first: Float[Tensor, "k b d"], weight: Float[Tensor, "j d d"], bias: Float[Tensor, "j d"], activation: str = "tanh"
) -> Float[Tensor, "max b d"]:
    """BERT's pooler: tanh(W h + b) of the first token's state; j is 1 for a frozen pooler, the number of adapters for a trained one. In fp32."""
    rows = first.float().expand(max(first.shape[0], weight.shape[0]), -1, -1)
    return POOLING[activation](torch.matmul(rows, weight.float().transpose(1, 2)) + bias.float()[:, None])


def classify(
    features: Float[Tensor, "j b d"], weight: Float[Tensor, "k c d"], bias: Float[Tensor, "k c"]
) -> Float[Tensor, "k b c"]:
    """Logits of k classifiers; j is k, or 1 where all read the same features."""
    return torch.matmul(features.float(), weight.transpose(1, 2)) + bias[:, None]


def cross_entropy(logits: Float[Tensor, "k b c"], labels: Int[Tensor, "b"]) -> Float[Tensor, "k"]:
    """Mean negative log-likelihood over the rows, in nats, one number for each adapter."""
    chosen = logits.gather(-1, labels.expand(logits.shape[0], -1)[..., None])[..., 0]
    return (logits.logsumexp(-1) - chosen).mean(-1)
