"""Learning-rate schedules, clipping and AdamW for k adapters at once: one row of ``[k n]`` is one adapter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Kingma and Ba 2015, section 2; torch.optim.AdamW's defaults too."""


def schedule(kind: str, step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at a step.

    Args:
        kind: ``linear`` or ``cosine`` (both fall to 0 at ``steps``), or ``constant``.
        step: steps already taken, from 0.
        steps: steps in all.
        warmup: share of the steps over which the rate rises linearly from 0.

    Returns:
        A factor between 0 and 1; the same as transformers' ``get_*_schedule_with_warmup`` with ceil(warmup * steps) warm-up steps.
    """
    rising = math.ceil(warmup * steps)
    if step < rising:
        return step / max(1, rising)
    progress = (step - rising) / max(1, steps - rising)
    if kind == "linear":
        return max(0.0, 1 - progress)
    if kind == "cosine":
        return max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))
    return 1.0


def clip_rows(gradient: Float[Tensor, "k n"], largest: float) -> Float[Tensor, "k n"]:
    """Each adapter's gradient scaled to a norm of at most ``largest`` (torch's clip_grad_norm_, adapter by adapter); 0: unchanged."""
    if not largest:
        return gradient
    norms = gradient.norm(dim=1, keepdim=True)
    shrink: Tensor = (largest / (norms + 1e-6)).clamp(max=1.0)
    return gradient * shrink


@dataclass
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), a learning rate per adapter.

    Args:
        lr: peak learning rate of each adapter.
        weight_decay: decay per number: 0 for biases.
        exp_avg, exp_avg_sq: running means of gradient and squared gradient.
        step: updates made so far, the same for all adapters.
    """

    lr: Float[Tensor, "k"]
    weight_decay: Float[Tensor, "n"]
    exp_avg: Float[Tensor, "k n"]
    exp_avg_sq: Float[Tensor, "k n"]
    step: int = 0

    @classmethod
    def start(cls, parameters: Float[Tensor, "k n"], lr: Float[Tensor, "k"], weight_decay: Float[Tensor, "n"]) -> AdamW:
        zeros = torch.zeros_like(parameters, requires_grad=False)
        return cls(lr, weight_decay, zeros, zeros.clone())

    @torch.no_grad()
    def update(self, parameters: Float[Tensor, "k n"], gradient: Float[Tensor, "k n"], lr_share: float) -> None:
        """One step, in place; ``lr_share`` is the schedule's factor."""
        self.step += 1
        lr = (self.lr * lr_share)[:, None]
        if self.weight_decay.any():
            parameters.mul_(1 - lr * self.weight_decay)
        self.exp_avg.lerp_(gradient, 1 - BETA1)
        self.exp_avg_sq.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        denominator = (self.exp_avg_sq.sqrt() / math.sqrt(1 - BETA2**self.step)).add_(EPSILON)
        parameters.sub_(lr / (1 - BETA1**self.step) * self.exp_avg / denominator)
