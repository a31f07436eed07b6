"""The lessons: epochs of batches in which the student learns to say what the teacher says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from loralet.config import DistillConfig
from loralet.data.batches import collate, epoch_batches
from loralet.data.tokens import Tokens
from loralet.distil.losses import losses_of
from loralet.distil.teacher import Targets
from loralet.errors import TrainingError
from loralet.events import Advanced, EpochEnded, Event
from loralet.models.encoder import EncoderShape, Weights
from loralet.training.optimizer import schedule

WARMUP = 0.05
"""Share of each phase's steps over which the learning rate rises from zero."""
WEIGHT_DECAY = 0.01
"""Of the layers' matrices only: a token that the texts lack must keep the embedding it was given."""


@dataclass(frozen=True)
class Lessons:
    """What is learned from: all texts in tokens, what the teacher says, and which rows are trained on and which held out."""

    tokens: Tokens
    targets: Targets
    train: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True)
class Pupil:
    """The student's sizes, the type of its linear maps and where it is computed."""

    shape: EncoderShape
    dtype: torch.dtype
    device: torch.device

    def losses(self, parameters: Weights, lessons: Lessons, rows: np.ndarray, pooled: bool) -> dict[str, Tensor]:
        ids, lengths = (x.to(self.device) for x in collate(lessons.tokens, rows))
        states, sentences = (x.to(self.device) for x in lessons.targets.of(lessons.tokens, rows))
        return losses_of(parameters, self.shape, (ids, lengths), (states, sentences), self.dtype, pooled)


@dataclass
class DistilState:
    """All that changes; saving it at an epoch's end and loading it back is a resume, as batches are a function of seed and epoch.

    Args:
        parameters: tensors of the student and of the maps, fp32.
        optimiser: of the phase that ``epoch`` is in.
        epoch: epochs done.
        step: steps done.
        history: what each epoch came to, epoch 0 first.
    """

    parameters: Weights
    optimiser: torch.optim.AdamW
    epoch: int = 0
    step: int = 0
    history: list[EpochEnded] = field(default_factory=list)

    @classmethod
    def start(cls, parameters: Weights) -> DistilState:
        leaves = {name: tensor.requires_grad_() for name, tensor in parameters.items()}
        return cls(leaves, new_optimiser(leaves))


def new_optimiser(parameters: Weights) -> torch.optim.AdamW:
    """AdamW that decays only the matrices of layers, pooler and maps; the learning rate is set at every step."""
    decayed = [t for name, t in parameters.items() if name.endswith("weight") and "norm" not in name]
    others = [t for name, t in parameters.items() if not (name.endswith("weight") and "norm" not in name)]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}], fused=True
    )


def distil(state: DistilState, pupil: Pupil, lessons: Lessons, config: DistillConfig) -> Iterator[Event]:
    """Train the student to its end.

    Args:
        state: where it stands; changed in place, and complete after every EpochEnded.
        pupil: what is computed, and how.
        lessons: what is learned from.
        config: length and course of training.

    Yields:
        Advanced for every step and EpochEnded for every epoch; epoch 0, before the first step, too.

    Raises:
        TrainingError: the loss is no longer finite.
    """
    if not state.history:
        yield _close_epoch(state, pupil, lessons, config, {}, 0.0)
    lengths = lessons.tokens.lengths[lessons.train]
    while state.epoch < config.epochs + config.pooled_epochs:
        pooled = state.epoch >= config.epochs
        first, count, peak = (
            (config.epochs, config.pooled_epochs, config.pooled_lr) if pooled else (0, config.epochs, config.lr)
        )
        if state.epoch == first:
            state.optimiser = new_optimiser(state.parameters)
        batches = epoch_batches(lengths, config.batch_size, config.seed, state.epoch)
        steps, taken = count * len(batches), (state.epoch - first) * len(batches)
        sums: dict[str, float] = {}
        started = time.perf_counter()
        for place, batch in enumerate(batches):
            lr = peak * schedule("cosine", taken + place, steps, WARMUP)
            losses = take_step(state, pupil, lessons, lessons.train[batch], pooled, lr)
            sums = {name: sums.get(name, 0.0) + loss * len(batch) for name, loss in losses.items()}
            phase = "pooled epochs" if pooled else "epochs"
            yield Advanced(f"{phase}, steps", taken + place + 1, steps, f"loss {losses['total']:.3f}")
        state.epoch += 1
        means = {name: total / len(lessons.train) for name, total in sums.items()}
        yield _close_epoch(state, pupil, lessons, config, means, time.perf_counter() - started)


def take_step(
    state: DistilState, pupil: Pupil, lessons: Lessons, rows: np.ndarray, pooled: bool, lr: float
) -> dict[str, float]:
    """One optimiser step; returns the batch's losses before it."""
    losses = pupil.losses(state.parameters, lessons, rows, pooled)
    if not losses["total"].isfinite():
        raise TrainingError(
            f"the loss at step {state.step + 1} is not finite; lower --{'pooled-lr' if pooled else 'lr'}"
        )
    state.optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(losses["total"])
    for group in state.optimiser.param_groups:
        group["lr"] = lr
    state.optimiser.step()
    state.step += 1
    return {name: loss.item() for name, loss in losses.items()}


@torch.no_grad()
def measure(
    state: DistilState, pupil: Pupil, lessons: Lessons, config: DistillConfig, pooled: bool
) -> dict[str, float]:
    """Mean losses on the held-out texts, always in the same batches."""
    sums: dict[str, float] = {}
    for batch in epoch_batches(lessons.tokens.lengths[lessons.held_out], config.batch_size, config.seed, 0):
        losses = pupil.losses(state.parameters, lessons, lessons.held_out[batch], pooled)
        sums = {name: sums.get(name, 0.0) + loss.item() * len(batch) for name, loss in losses.items()}
    return {name: total / len(lessons.held_out) for name, total in sums.items()}


def _close_epoch(
    state: DistilState,
    pupil: Pupil,
    lessons: Lessons,
    config: DistillConfig,
    training: dict[str, float],
    seconds: float,
) -> EpochEnded:
    held_out = measure(state, pupil, lessons, config, state.epoch > config.epochs)
    ended = EpochEnded(state.epoch, config.epochs + config.pooled_epochs, state.step, training, held_out, seconds)
    state.history.append(ended)
    return ended
