"""Learning rate schedules, and AdamW for k adapters: one row of ``[k n]`` is one adapter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from loralet.backends.base import AdamWStep, Backend

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Kingma and Ba 2015, section 2; the defaults of torch.optim.AdamW."""


def schedule(kind: str, step: int, steps: int, warmup: float) -> float:
    """Learning rate at a step, as a fraction of the peak.

    Args:
        kind: ``linear`` or ``cosine`` (both fall to 0 at ``steps``), or ``constant``.
        step: number of steps already taken.
        steps: total number of steps.
        warmup: fraction of the steps during which the rate rises linearly from 0.

    Returns:
        A factor between 0 and 1, equal to that of transformers' ``get_*_schedule_with_warmup`` with
        ceil(warmup * steps) warm-up steps.
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


@dataclass
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), with a learning rate per adapter.

    Args:
        lr: peak learning rate of each adapter.
        weight_decay: weight decay of each parameter; 0 for biases and norms.
        exp_avg, exp_avg_sq: running means of gradient and squared gradient.
        step: number of updates, the same for all adapters.
        lr_factors: learning rate factor of each parameter (LoRA+); None: all 1.
    """

    lr: Float[Tensor, "k"]
    weight_decay: Float[Tensor, "n"]
    exp_avg: Float[Tensor, "k n"]
    exp_avg_sq: Float[Tensor, "k n"]
    step: int = 0
    lr_factors: Float[Tensor, "k n"] | None = None

    @classmethod
    def start(
        cls,
        parameters: Float[Tensor, "k n"],
        lr: Float[Tensor, "k"],
        weight_decay: Float[Tensor, "n"],
        lr_factors: Float[Tensor, "k n"] | None = None,
    ) -> AdamW:
        """The state before the first step."""
        moments = torch.zeros_like(parameters), torch.zeros_like(parameters)
        return cls(lr, weight_decay, *moments, lr_factors=lr_factors)

    def update(
        self,
        backend: Backend,
        parameters: Float[Tensor, "k n"],
        gradient: Float[Tensor, "k n"],
        lr_share: float,
        clip: float = 0.0,
        finite: Bool[Tensor, "k"] | None = None,
    ) -> Bool[Tensor, "k"]:
        """Take one step, in place.

        Args:
            backend: backend that computes the update.
            parameters: the trained parameters.
            gradient: gradient of the parameters.
            lr_share: factor of the schedule.
            clip: maximum gradient norm of each adapter; 0 disables clipping.
            finite: adapters whose loss is finite; None: all.

        Returns:
            The updated adapters: those of ``finite`` with a finite gradient norm. The others keep parameters and
                moments.
        """
        self.step += 1
        taking = torch.ones(len(self.lr), dtype=torch.bool) if finite is None else finite.clone()
        taking = taking.to(parameters.device)
        course = AdamWStep(
            lr=self.lr * lr_share,
            decay=self.weight_decay,
            clip=clip,
            beta1=BETA1,
            beta2=BETA2,
            epsilon=EPSILON,
            correction1=1 - BETA1**self.step,
            correction2=math.sqrt(1 - BETA2**self.step),
            lr_factors=self.lr_factors,
        )
        backend.adamw(parameters, gradient.contiguous(), (self.exp_avg, self.exp_avg_sq), course, taking)
        return taking
