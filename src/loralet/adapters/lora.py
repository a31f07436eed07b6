"""Stacked LoRA: k adapters on the same frozen linear maps, as batched algebra.

``y = x W^T + b + scale * dropout(x) A^T B^T`` (Hu et al. 2021, section 4.1), scale = alpha / r, or alpha / sqrt(r) for rsLoRA
(Kalajdzievski 2023). Ranks are padded to the largest with zeros; a padded row of A and its column of B get no gradient, so they stay zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from loralet.models.encoder import Linear, Weights


@dataclass(frozen=True)
class Adapter:
    """One LoRA configuration as numbers.

    Args:
        rank: rows of A; 0 for a head alone.
        scale: factor of the adapter's output, see :func:`scale_of`.
        dropout: probability with which an input feature of the adapter is zeroed in training.
        linears: canonical names of the linear maps it sits on, without ``.weight``.
        seed: seed of its initial values and of its dropout.
    """

    rank: int
    scale: float
    dropout: float
    linears: tuple[str, ...]
    seed: int


def scale_of(rank: int, alpha: float, scaling: str) -> float:
    """alpha / r, or alpha / sqrt(r) when ``scaling`` is ``rslora``; 0 for rank 0."""
    if rank == 0:
        return 0.0
    return alpha / (math.sqrt(rank) if scaling == "rslora" else rank)


@dataclass(frozen=True)
class Stack:
    """The matrices of k adapters on one linear map; ``scale`` is 0 for an adapter that does not sit on it."""

    a: Float[Tensor, "k r d"]
    b: Float[Tensor, "k o r"]
    scale: Float[Tensor, "k"]

    def delta(self) -> Float[Tensor, "k o d"]:
        """scale * B A, in the type of A and B."""
        return torch.bmm(self.b * self.scale[:, None, None], self.a)


def frozen(weights: Weights) -> Linear:
    """The linear maps as they are in the checkpoint."""
    return lambda name, x: F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def merged(weights: Weights, stacks: dict[str, Stack]) -> Linear:
    """The linear maps with ``W + scale * B A`` formed once per adapter: exact where no adapter has dropout."""
    plain = frozen(weights)
    effective = {
        name: weights[f"{name}.weight"] + stack.delta().to(weights[f"{name}.weight"].dtype)
        for name, stack in stacks.items()
    }

    def apply(name: str, x: Tensor) -> Tensor:
        if name not in effective:
            return plain(name, x)
        return batched_linear(x, effective[name], weights[f"{name}.bias"])

    return apply


def unmerged(weights: Weights, stacks: dict[str, Stack], masks: DropoutMasks | None = None) -> Linear:
    """The linear maps with the adapters' branch computed apart, each adapter with its own dropout mask on its input."""
    plain = frozen(weights)

    def apply(name: str, x: Tensor) -> Tensor:
        if name not in stacks:
            return plain(name, x)
        stack = stacks[name]
        source = x if masks is None else masks.apply(name, x)
        low = batched_linear(source, stack.a.to(x.dtype), None)
        update = batched_linear(low, (stack.b * stack.scale[:, None, None]).to(x.dtype), None)
        return plain(name, x) + update

    return apply


def batched_linear(
    x: Float[Tensor, "j b t d"], weight: Float[Tensor, "k o d"], bias: Float[Tensor, "o"] | None
) -> Float[Tensor, "k b t o"]:
    """``x W^T + b`` with one W per adapter; j is k, or 1 where x is shared by all adapters."""
    k, o, d = weight.shape
    if k == x.shape[0] == 1:  # the batched product would first copy the bias to every row
        return F.linear(x, weight[0], bias)
    rows = x.reshape(x.shape[0], -1, d).expand(k, -1, -1)
    columns = weight.transpose(1, 2)
    y = torch.bmm(rows, columns) if bias is None else torch.baddbmm(bias.expand(k, 1, o), rows, columns)
    return y.view(k, *x.shape[1:-1], o)


class DropoutMasks:
    """Draws each adapter's dropout masks from that adapter's own generator, so that a run in a pack sees the masks it would see alone.

    An adapter with dropout 0 draws nothing, nor does an adapter on a linear map that it does not sit on.
    """

    def __init__(self, adapters: Sequence[Adapter], generators: Sequence[torch.Generator]) -> None:
        self.adapters = adapters
        self.generators = generators

    def apply(self, name: str, x: Float[Tensor, "j b t d"]) -> Float[Tensor, "k b t d"]:
        """x with every adapter's mask applied; kept values are divided by the probability of being kept."""
        return self.scaled(x, [a.dropout if name in a.linears else 0.0 for a in self.adapters])

    def scaled(self, x: Float[Tensor, "j *axes"], dropouts: Sequence[float]) -> Float[Tensor, "k *axes"]:
        """x with adapter i's features zeroed with probability ``dropouts[i]``."""
        return x * dropout_factors(dropouts, self.generators, x.shape[1:], x.dtype) if any(dropouts) else x


def dropout_factors(
    dropouts: Sequence[float],
    generators: Sequence[torch.Generator],
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "k *axes"]:
    """A factor for every feature of every adapter: 0 with probability ``dropouts[i]``, else 1 / (1 - dropouts[i]) (Srivastava et al. 2014, inverted).

    Each adapter draws from its own generator, and draws nothing where its dropout is 0.
    """
    factors = torch.ones((len(dropouts), *shape), dtype=dtype, device=generators[0].device)
    for row, p, generator in zip(factors, dropouts, generators, strict=True):
        if p:
            row.bernoulli_(1 - p, generator=generator).div_(1 - p)
    return factors
