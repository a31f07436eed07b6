"""The training loop. One path: a single run is a pack of one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from loralet.adapters.pack import Pack, stream
from loralet.backends.shards import shard_count, together
from loralet.config import TrainingOptions
from loralet.data.batches import BatchOrder, collate
from loralet.data.tokens import Tokens
from loralet.events import Checked, Event, Halved, PackStarted, RunEnded, Status, Stepped
from loralet.inference.evaluation import accuracy_and_loss, logits_of
from loralet.training.halving import Exits, halve, has_enough
from loralet.training.optimizer import AdamW, schedule
from loralet.training.packs import Run

STAY = Exits()
USUAL_EPOCHS, FEWEST_STEPS = 3, 500
"""Length of training where the user names none: on a few hundred rows three epochs are too few steps (dev/LOG.md)."""


@dataclass(frozen=True)
class Rows:
    """Tokenised rows with their labels (int64, on the device of the pack)."""

    tokens: Tokens
    labels: Tensor

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass
class RunState:
    """Where one run stands.

    Args:
        run: its configuration.
        dropout: its generators of dropout masks, one for each part that a batch may be split into.
        best: its tensors at the best check so far (:meth:`loralet.adapters.pack.Pack.extract`).
        last: its tensors when it left the pack.
        best_accuracy: validation accuracy of that check.
        stale: checks since then.
        converged_step: first check at or above the target accuracy.
        seconds: its share of the time of the steps and checks that it took part in.
    """

    run: Run
    dropout: tuple[torch.Generator, ...]
    best: dict[str, Tensor] = field(default_factory=dict)
    last: dict[str, Tensor] = field(default_factory=dict)
    best_accuracy: float = -1.0
    stale: int = 0
    steps: int = 0
    converged_step: int | None = None
    seconds: float = 0.0
    status: Status | None = None


@dataclass
class TrainingState:
    """All that changes while a pack trains; saving this and loading it back is a resume.

    The place in the data is ``step`` alone: batches are a function of seed and step.
    """

    pack: Pack
    parameters: Tensor
    optimiser: AdamW
    active: list[RunState]
    ended: list[RunState] = field(default_factory=list)
    step: int = 0

    @classmethod
    def start(cls, pack: Pack, runs: Sequence[Run], weight_decay: float) -> TrainingState:
        parameters = pack.start()
        lr = torch.tensor([run.lr for run in runs], device=parameters.device)
        optimiser = AdamW.start(parameters, lr, pack.decay(weight_decay))
        return cls(pack, parameters, optimiser, [RunState(run, _generators(run, parameters.device)) for run in runs])

    def remove(self, leaving: dict[int, Status]) -> None:
        """Runs leave the pack, keeping their tensors; the others go on in a smaller one."""
        for i, status in leaving.items():
            state = self.active[i]
            state.status, state.steps, state.last = status, self.step, self.pack.extract(self.parameters, i)
            self.ended.append(state)
        rows = [i for i in range(len(self.active)) if i not in leaving]
        self.active = [self.active[i] for i in rows]
        if leaving and rows:
            smaller = Pack(self.pack.weights, self.pack.shape, [self.pack.adapters[i] for i in rows])
            decay = smaller.decay(float(self.optimiser.weight_decay.max()))
            first, second = (
                self.pack.carry(m, rows, smaller) for m in (self.optimiser.exp_avg, self.optimiser.exp_avg_sq)
            )
            self.optimiser = AdamW(self.optimiser.lr[rows], decay, first, second, self.optimiser.step)
            self.parameters = self.pack.carry(self.parameters, rows, smaller)
            self.pack = smaller


def _generators(run: Run, device: torch.device) -> tuple[torch.Generator, ...]:
    seeds = [stream(run.seed, f"dropout {i}").initial_seed() for i in range(shard_count(device))]
    return tuple(torch.Generator(device).manual_seed(seed) for seed in seeds)


def steps_of(options: TrainingOptions, rows: int) -> int:
    """Optimiser steps that the options ask for on this many training rows."""
    per_epoch = -(-rows // options.batch_size)
    if options.steps:
        return options.steps
    if options.epochs:
        return max(1, round(options.epochs * per_epoch))
    return max(USUAL_EPOCHS * per_epoch, FEWEST_STEPS)


def train(
    state: TrainingState, rows: Rows, validation: Rows, options: TrainingOptions, seed: int, exits: Exits = STAY
) -> Iterator[Event]:
    """Train a pack to its end, yielding what happens.

    Args:
        state: where the pack stands; changed in place, and complete after every event.
        rows: training rows.
        validation: the fixed sample that the frequent checks look at.
        options: length and course of training.
        seed: of the order of the rows.
        exits: ways out of the pack besides patience.

    Yields:
        PackStarted, then Stepped for every step, Checked for every run every ``eval_every`` steps, at each rung and at the end, Halved at each rung
        that more than one LoRA run has come to, RunEnded as runs leave.
        Once exhausted, ``state.ended`` holds every run with its best and last tensors.
    """
    steps = steps_of(options, len(rows))
    order = BatchOrder(rows.tokens.lengths, options.batch_size, seed)
    yield PackStarted(tuple(s.run.id for s in state.active), steps, options.batch_size, len(rows))
    while state.active and state.step < steps:
        started = time.perf_counter()
        batch = order.at(state.step)
        share = schedule(options.schedule, state.step, steps, options.warmup)
        losses = take_step(state, rows, batch, options, share)
        _spend(state, time.perf_counter() - started)
        yield Stepped(state.step, tuple(s.run.id for s in state.active), tuple(losses), share, len(batch))
        leaving: dict[int, Status] = {i: "diverged" for i, loss in enumerate(losses) if not np.isfinite(loss)}
        if leaving:
            yield from _leave(state, leaving)
        if state.active and (state.step % options.eval_every == 0 or state.step in (*exits.rungs, steps)):
            started = time.perf_counter()
            checks = check(state, validation, options.target_accuracy)
            _spend(state, time.perf_counter() - started)
            yield from checks
            found = list(zip(state.active, checks, strict=True))
            yield from _leave(
                state,
                {
                    i: "early-stopped"
                    for i, (s, c) in enumerate(found)
                    if has_enough(c, s.stale, options.patience, exits)
                },
            )
            if state.step in exits.rungs:
                yield from _halve(state, checks, exits.rungs.index(state.step) + 1)
    yield from _leave(state, dict.fromkeys(range(len(state.active)), "finished"))


def take_step(
    state: TrainingState, rows: Rows, batch: np.ndarray, options: TrainingOptions, lr_share: float
) -> list[float]:
    """One optimiser step of every run in the pack; returns each run's mean loss over the batch.

    The losses are summed over the pack, so each run's gradient is, to rounding, what it would be alone. A run whose loss or gradient is not
    finite keeps the parameters it had.
    """
    parameters = state.parameters
    device = parameters.device
    count = 1 if state.pack.splits_by_itself else shard_count(device)
    masks = [state.pack.masks([s.dropout[i] for s in state.active]) for i in range(count)]
    head = state.pack.head_factors([s.dropout[0] for s in state.active], len(batch))

    def part(shard: int) -> tuple[Tensor, Tensor]:
        """The shard's share of each run's mean loss, and its gradient."""
        own = batch[shard::count]
        ids, lengths = (x.to(device) for x in collate(rows.tokens, own))
        labels = rows.labels[torch.from_numpy(own)]
        factors = None if head is None else head[:, shard::count]
        losses, gradient = state.pack.losses_and_gradient(parameters, ids, lengths, labels, masks[shard], factors)
        share = len(own) / len(batch)
        return losses * share, gradient * share if share < 1 else gradient

    parts = together([partial(part, i) for i in range(min(count, len(batch)))])
    losses, gradient = (sum(x[1:], x[0]) for x in zip(*parts, strict=True))
    sound = state.optimiser.update(parameters, gradient, lr_share, options.clip, losses.isfinite())
    state.step += 1
    return torch.where(sound, losses, torch.nan).tolist()


def check(state: TrainingState, validation: Rows, target: float) -> list[Checked]:
    """Measure every run of the pack on the validation sample and keep its best tensors."""
    logits = logits_of(
        state.pack.logits(state.parameters), validation.tokens, len(state.active), state.parameters.device
    )
    events: list[Checked] = []
    for i, (s, accuracy, loss) in enumerate(
        zip(state.active, *accuracy_and_loss(logits, validation.labels.cpu()), strict=True)
    ):
        best = accuracy > s.best_accuracy
        s.stale = 0 if best else s.stale + 1
        if best:
            s.best_accuracy, s.best = accuracy, state.pack.extract(state.parameters, i)
        if s.converged_step is None and accuracy >= target:
            s.converged_step = state.step
        events.append(Checked(state.step, s.run.id, accuracy, loss, len(validation), best))
    return events


def _leave(state: TrainingState, leaving: dict[int, Status]) -> Iterator[RunEnded]:
    states = [state.active[i] for i in leaving]
    state.remove(leaving)
    for s in states:
        yield RunEnded(state.step, s.run.id, s.status or "finished", s.converged_step, s.seconds)


def _halve(state: TrainingState, checks: Sequence[Checked], rung: int) -> Iterator[Event]:
    """The worse half of the LoRA runs that are still in the pack leaves; the linear probe never does."""
    places = {s.run.id: i for i, s in enumerate(state.active) if s.run.role == "lora"}
    ranked, kept = halve([check for check in checks if check.run in places])
    if len(ranked) > 1:
        yield Halved(state.step, rung, tuple(c.run for c in ranked), tuple(c.accuracy for c in ranked), kept)
        yield from _leave(state, {places[c.run]: "halved" for c in ranked[kept:]})


def _spend(state: TrainingState, seconds: float) -> None:
    """Time of a pack is shared out evenly among the runs in it."""
    for s in state.active:
        s.seconds += seconds / len(state.active)
