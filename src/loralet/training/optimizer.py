"""Learning-rate schedules, clipping and AdamW for k adapters at once: one row of ``[k n]`` is one adapter."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from loralet.backends.native.attention import kernels

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
    def update(
        self,
        parameters: Float[Tensor, "k n"],
        gradient: Float[Tensor, "k n"],
        lr_share: float,
        clip: float = 0.0,
        sound: Bool[Tensor, "k"] | None = None,
    ) -> Bool[Tensor, "k"]:
        """One step, in place.

        Args:
            parameters: the trained numbers.
            gradient: theirs.
            lr_share: the schedule's factor.
            clip: largest norm of one adapter's gradient (see :func:`clip_rows`); 0: not clipped.
            sound: which adapters are to take part; all when None.

        Returns:
            Which did: those whose gradient's norm is finite too. The others keep their numbers and moments.
        """
        self.step += 1
        lr = self.lr * lr_share
        taking = torch.ones(len(lr), dtype=torch.bool, device=lr.device) if sound is None else sound.clone()
        corrections = 1 - BETA1**self.step, math.sqrt(1 - BETA2**self.step)
        tensors = (parameters, gradient.contiguous(), self.exp_avg, self.exp_avg_sq, lr, self.weight_decay)
        found = kernels(parameters)
        if found is None or not all(x.is_contiguous() and x.dtype == torch.float32 for x in tensors):
            return self._update_twin(parameters, gradient, lr, clip, taking, corrections)
        course = _Course(clip, BETA1, BETA2, EPSILON, *corrections)
        found["adamw"](
            ctypes.byref(course),
            *(x.data_ptr() for x in tensors),
            *parameters.shape,
            taking.data_ptr(),
            torch.get_num_threads(),
        )
        return taking

    def _update_twin(
        self,
        parameters: Tensor,
        gradient: Tensor,
        lr: Tensor,
        clip: float,
        taking: Tensor,
        corrections: tuple[float, float],
    ) -> Bool[Tensor, "k"]:
        """:meth:`update` written out in torch."""
        taking = taking & gradient.norm(dim=1).isfinite()
        gradient = clip_rows(gradient, clip)
        first = self.exp_avg.lerp(gradient, 1 - BETA1)
        second = (self.exp_avg_sq * BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        denominator = (second.sqrt() / corrections[1]).add_(EPSILON)
        moved = parameters * (1 - lr[:, None] * self.weight_decay) - lr[:, None] / corrections[0] * first / denominator
        for kept, new in ((parameters, moved), (self.exp_avg, first), (self.exp_avg_sq, second)):
            kept.copy_(torch.where(taking[:, None], new, kept))
        return taking


class _Course(ctypes.Structure):
    _fields_ = [(name, ctypes.c_float) for name in ("clip", "beta1", "beta2", "epsilon", "correction1", "correction2")]
