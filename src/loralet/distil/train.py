"""The training loop of a distillation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from loralet.backends.torch import MULTIPLE
from loralet.config import DistillConfig
from loralet.data.batches import epoch_batches, gather
from loralet.data.tokens import Tokens
from loralet.distil.forward import Arithmetic
from loralet.distil.losses import losses_of
from loralet.distil.teacher import Targets
from loralet.errors import TrainingError
from loralet.events import Advanced, EpochEnded, Event
from loralet.models.forward import Weights
from loralet.models.table import EncoderTable
from loralet.training.optimizer import schedule

WARMUP = 0.05
"""Share of each phase's steps in which the learning rate rises from zero."""
WEIGHT_DECAY = 0.01
"""Only for matrices outside the embeddings: tokens that are not in the texts must keep their initial embeddings."""


@dataclass(frozen=True)
class DistillationData:
    """The data of a distillation: all texts in tokens, the teacher's states, and the training and held-out rows."""

    tokens: Tokens
    targets: Targets
    train: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True)
class Student:
    """The student's layer table and arithmetic."""

    table: EncoderTable
    arithmetic: Arithmetic

    def losses(self, parameters: Weights, data: DistillationData, rows: np.ndarray, pooled: bool) -> dict[str, Tensor]:
        """The losses of a batch by name (:func:`loralet.distil.losses.losses_of`)."""
        device = self.arithmetic.device
        batch = gather(data.tokens, rows).padded(MULTIPLE, data.tokens.longest, device)
        states, sentences = data.targets.of(data.tokens, rows)
        target = (None if states is None else states.to(device), sentences.to(device))
        return losses_of(parameters, self.table, batch, target, self.arithmetic, pooled)


@dataclass
class DistilState:
    """The state of a distillation between two steps.

    It is sufficient to continue, because the batches are a function of seed and epoch.

    Args:
        parameters: tensors of the student and of the projections, fp32.
        optimiser: the optimiser of the current phase.
        epoch: number of completed epochs.
        step: number of completed steps.
        history: the results of each epoch, epoch 0 first.
        place: number of completed steps of the current epoch.
        sums: sums over the rows of these steps of each loss.
        seconds: seconds that these steps took.
    """

    parameters: Weights
    optimiser: torch.optim.AdamW
    epoch: int = 0
    step: int = 0
    history: list[EpochEnded] = field(default_factory=list)
    place: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def start(cls, parameters: Weights) -> DistilState:
        leaves = {name: tensor.requires_grad_() for name, tensor in parameters.items()}
        return cls(leaves, new_optimiser(leaves))


def new_optimiser(parameters: Weights) -> torch.optim.AdamW:
    """AdamW with weight decay for the matrices of layers, pooler and projections. Every step sets the learning rate."""
    decayed = [t for name, t in parameters.items() if name.endswith("weight") and "norm" not in name]
    others = [t for name, t in parameters.items() if not (name.endswith("weight") and "norm" not in name)]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}], fused=True
    )


def distil(state: DistilState, student: Student, data: DistillationData, config: DistillConfig) -> Iterator[Event]:
    """Train the student for all remaining epochs.

    Args:
        state: the state to continue from; changed in place, and complete after every event.
        student: the student's layer table and arithmetic.
        data: texts and targets.
        config: the options.

    Yields:
        Advanced for every step, and EpochEnded for every epoch, including epoch 0 before the first step.

    Raises:
        TrainingError: the loss is no longer finite.
    """
    if not state.history:
        yield _close_epoch(state, student, data, config, {}, 0.0)
    lengths = data.tokens.lengths[data.train]
    while state.epoch < config.epochs + config.pooled_epochs:
        pooled = state.epoch >= config.epochs
        first, count, peak = (
            (config.epochs, config.pooled_epochs, config.pooled_lr) if pooled else (0, config.epochs, config.lr)
        )
        if state.epoch == first and not state.place:
            state.optimiser = new_optimiser(state.parameters)
        batches = epoch_batches(lengths, config.batch_size, config.seed, state.epoch)
        steps, taken = count * len(batches), (state.epoch - first) * len(batches)
        started = time.perf_counter() - state.seconds
        for batch in batches[state.place :]:
            lr = peak * schedule("cosine", taken + state.place, steps, WARMUP)
            losses = take_step(state, student, data, data.train[batch], pooled, lr)
            state.sums = {name: state.sums.get(name, 0.0) + loss * len(batch) for name, loss in losses.items()}
            state.place, state.seconds = state.place + 1, time.perf_counter() - started
            phase = "pooled epochs" if pooled else "epochs"
            yield Advanced(f"{phase}, steps", taken + state.place, steps, f"loss {losses['total']:.3f}")
        means = {name: total / len(data.train) for name, total in state.sums.items()}
        seconds = time.perf_counter() - started
        state.epoch, state.place, state.sums, state.seconds = state.epoch + 1, 0, {}, 0.0
        yield _close_epoch(state, student, data, config, means, seconds)


def take_step(
    state: DistilState, student: Student, data: DistillationData, rows: np.ndarray, pooled: bool, lr: float
) -> dict[str, float]:
    """Take one optimiser step; returns the batch's losses before the step."""
    losses = student.losses(state.parameters, data, rows, pooled)
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
    state: DistilState, student: Student, data: DistillationData, config: DistillConfig, pooled: bool
) -> dict[str, float]:
    """Mean losses on the held-out texts, always in the same batches."""
    sums: dict[str, float] = {}
    for batch in epoch_batches(data.tokens.lengths[data.held_out], config.batch_size, config.seed, 0):
        losses = student.losses(state.parameters, data, data.held_out[batch], pooled)
        sums = {name: sums.get(name, 0.0) + loss.item() * len(batch) for name, loss in losses.items()}
    return {name: total / len(data.held_out) for name, total in sums.items()}


def _close_epoch(
    state: DistilState,
    student: Student,
    data: DistillationData,
    config: DistillConfig,
    training: dict[str, float],
    seconds: float,
) -> EpochEnded:
    held_out = measure(state, student, data, config, state.epoch > config.epochs)
    ended = EpochEnded(state.epoch, config.epochs + config.pooled_epochs, state.step, training, held_out, seconds)
    state.history.append(ended)
    return ended
