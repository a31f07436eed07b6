"""The training loop. A single run is a pack of one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import ge, gt
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from loralet.adapters.pack import Pack
from loralet.backends.base import Backend, LoadedEncoder, Program
from loralet.config import TrainingOptions
from loralet.data.batches import BatchOrder, gather
from loralet.events import Checked, Event, Halved, PackResumed, PackStarted, RunEnded, Status, Stepped
from loralet.inference.evaluation import logits_of
from loralet.ranking import Rank, SelectBy, rank_of, selected_value
from loralet.runs.run import Run
from loralet.runs.selection import selection_of
from loralet.tasks.base import Check, Task
from loralet.training.corpus import Rows
from loralet.training.folds import out_of_fold
from loralet.training.halving import Exits, halve, has_enough
from loralet.training.optimizer import AdamW, schedule

STAY = Exits()
USUAL_EPOCHS, FEWEST_STEPS = 3, 500
"""Default length of training; three epochs of a few hundred rows are too few steps."""


@dataclass
class RunState:
    """Training state of one run.

    Args:
        run: the configuration.
        best: tensors at the best check so far, of equal ones the last (:meth:`loralet.adapters.pack.Pack.extract`).
        last: tensors when the run left the pack.
        best_rank: rank of the best check (:func:`loralet.ranking.rank_of`); None before the first check.
        stale: number of checks since the last improvement; an equal check is none.
        steps: optimiser steps when the run left the pack.
        converged_step: step of the first check at or above the target score.
        seconds: share of the time of the pack's steps and checks.
        status: status when the run left; None during training.
    """

    run: Run
    best: dict[str, Tensor] = field(default_factory=dict)
    last: dict[str, Tensor] = field(default_factory=dict)
    best_rank: Rank | None = None
    stale: int = 0
    steps: int = 0
    converged_step: int | None = None
    seconds: float = 0.0
    status: Status | None = None


@dataclass
class TrainingState:
    """The complete mutable state of the training of a pack.

    Batches, dropout masks and learning rates are functions of ``step``, so a training can be resumed from this state
    (:mod:`loralet.training.checkpoint`).
    """

    backend: Backend
    encoder: LoadedEncoder
    task: Task
    program: Program
    parameters: Tensor
    optimiser: AdamW
    active: list[RunState]
    ended: list[RunState] = field(default_factory=list)
    step: int = 0

    @property
    def pack(self) -> Pack:
        """The pack of active runs."""
        return self.program.pack

    @classmethod
    def start(
        cls, backend: Backend, encoder: LoadedEncoder, task: Task, pack: Pack, runs: Sequence[Run], weight_decay: float
    ) -> TrainingState:
        """The state before the first step."""
        parameters = pack.start(encoder.weights)
        lr = torch.tensor([run.lr for run in runs], device=parameters.device)
        decay, factors = pack.decay(weight_decay).to(parameters.device), _lr_factors(pack, runs, parameters.device)
        optimiser = AdamW.start(parameters, lr, decay, factors)
        return cls(
            backend, encoder, task, encoder.program(pack), parameters, optimiser, [RunState(run) for run in runs]
        )

    def remove(self, leaving: dict[int, Status]) -> None:
        """Remove runs from the pack and keep their tensors; the other runs continue in a smaller pack."""
        pack = self.pack
        for i, status in leaving.items():
            state = self.active[i]
            state.status, state.steps, state.last = status, self.step, pack.extract(self.parameters, i)
            self.ended.append(state)
        rows = [i for i in range(len(self.active)) if i not in leaving]
        self.active = [self.active[i] for i in rows]
        if leaving and rows:
            smaller = Pack(pack.shape, [pack.adapters[i] for i in rows], pack.method.name)
            decay = smaller.decay(float(self.optimiser.weight_decay.max())).to(self.parameters.device)
            old = self.optimiser
            first, second = (pack.carry(moment, rows, smaller) for moment in (old.exp_avg, old.exp_avg_sq))
            factors = _lr_factors(smaller, [state.run for state in self.active], self.parameters.device)
            self.optimiser = AdamW(old.lr[rows], decay, first, second, old.step, factors)
            self.parameters = pack.carry(self.parameters, rows, smaller)
            self.program = self.encoder.program(smaller)


class PackSaver(Protocol):
    """Saves and restores the state of a pack."""

    def begin(self) -> None:
        """The pack begins or is resumed."""
        ...

    def restore(self, state: TrainingState) -> None:
        """Change the state before the first step to the saved one, if there is one."""
        ...

    def between(self, state: TrainingState) -> None:
        """Called before each step and at the end; a training resumed from this state takes the same steps."""
        ...

    def save(self) -> None:
        """Write the state of the last call of :meth:`between`, if it is not written."""
        ...


class _Unsaved:
    """See :class:`PackSaver`."""

    def begin(self) -> None:
        """Do nothing."""

    def restore(self, state: TrainingState) -> None:
        """Do nothing."""

    def between(self, state: TrainingState) -> None:
        """Do nothing."""

    def save(self) -> None:
        """Do nothing."""


UNSAVED: PackSaver = _Unsaved()
"""Saves nothing."""


def _lr_factors(pack: Pack, runs: Sequence[Run], device: torch.device) -> Tensor | None:
    factors = pack.lr_factors([run.lr_ratio for run in runs])
    return None if factors is None else factors.to(device)


def steps_of(options: TrainingOptions, rows: int) -> int:
    """Number of optimiser steps for a number of training rows."""
    per_epoch = -(-rows // options.batch_size)
    if options.steps:
        return options.steps
    if options.epochs:
        return max(1, round(options.epochs * per_epoch))
    return max(USUAL_EPOCHS * per_epoch, FEWEST_STEPS)


def train(
    state: TrainingState,
    rows: Rows,
    validation: Rows,
    options: TrainingOptions,
    seed: int,
    exits: Exits = STAY,
    saver: PackSaver = UNSAVED,
) -> Iterator[Event]:
    """Train a pack to its end and yield events.

    Args:
        state: state of the pack before its first step, or a restored one; updated in place.
        rows: training rows.
        validation: the validation sample.
        options: training options.
        seed: seed of the row order.
        exits: exit conditions other than patience.
        saver: called between steps.

    Yields:
        PackStarted, or PackResumed for a restored state; Stepped for every step; Checked for every run every
        ``eval_every`` steps, at each rung and at the end; Halved at each rung that more than one adapter run reaches;
        RunEnded for every run that leaves.
        At the end, ``state.ended`` contains every run with its best and last tensors.
    """
    steps = steps_of(options, len(rows))
    order = BatchOrder(rows.tokens.lengths, options.batch_size, seed)
    runs = tuple(s.run.id for s in state.active)
    if state.step == 0:
        yield PackStarted(runs, steps, options.batch_size, len(rows))
    elif runs:
        yield PackResumed(state.step, runs, steps, options.batch_size, len(rows))
    while state.active and state.step < steps:
        saver.between(state)
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
            yield from _check(state, validation, options, exits)
    yield from _leave(state, dict.fromkeys(range(len(state.active)), "finished"))
    saver.between(state)


def take_step(
    state: TrainingState, rows: Rows, batch: np.ndarray, options: TrainingOptions, lr_share: float
) -> list[float]:
    """Take one optimiser step for every run of the pack; return each run's weighted mean loss over the batch.

    The losses are summed over the pack, so each run's gradient equals, up to rounding, the gradient in a pack of one. A
    run with a loss or gradient that is not finite keeps its parameters and returns NaN.
    """
    weights = rows.weights.of(batch, [s.run.fold for s in state.active])
    own = replace(gather(rows.tokens, batch, rows.targets), row_weights=weights)
    losses, gradient = state.program.losses_and_gradient(state.parameters, own, state.task.row_losses, state.step)
    finite = losses.isfinite()
    finite = state.optimiser.update(state.backend, state.parameters, gradient, lr_share, options.clip, finite)
    state.step += 1
    return torch.where(finite, losses, torch.nan).tolist()


def _check(state: TrainingState, validation: Rows, options: TrainingOptions, exits: Exits) -> Iterator[Event]:
    """Check every run; runs that stop early leave, and at a rung the worse half leaves."""
    started = time.perf_counter()
    checks = check(state, validation, options)
    _spend(state, time.perf_counter() - started)
    yield from checks
    places = {s.run.id: i for i, s in enumerate(state.active)}
    found = [(places[c.run], c) for c in checks]
    enough = {i for i, c in found if has_enough(c, state.active[i].stale, options.patience, exits)}
    yield from _leave(state, dict.fromkeys(enough, "early-stopped"))
    if state.step in exits.rungs:
        yield from _halve(state, checks, exits.rungs.index(state.step) + 1)


def check(state: TrainingState, validation: Rows, options: TrainingOptions) -> list[Checked]:
    """Score every run of the pack on the validation sample and keep the best tensors.

    With folds, the out-of-fold logits of the sample are one check of the run that is trained on all rows. There is none
    if the pack does not contain that run and one for each fold.

    Args:
        state: state of the pack.
        validation: the validation sample.
        options: with the value that selects, and the score at which a run counts as converged.
    """
    forward = state.program.logits(state.parameters)
    logits = logits_of(state.backend, forward, validation.tokens, len(state.active))
    places, logits = _checked(state, logits, validation)
    targets = validation.targets.numpy()
    events: list[Checked] = []
    for i, own, found in zip(places, logits, state.task.check(logits, targets), strict=True):
        s = state.active[i]
        value = _selected(state.task, found, own, targets, options.select_by)
        rank = rank_of(value, found.loss)
        best, better = (s.best_rank is None or compare(rank, s.best_rank) for compare in (ge, gt))
        s.stale = 0 if better else s.stale + 1
        if best:
            s.best_rank, s.best = rank, state.pack.extract(state.parameters, i)
        if s.converged_step is None and found.score >= options.target_score:
            s.converged_step = state.step
        events.append(Checked(state.step, s.run.id, found.score, found.loss, len(validation), best, value))
    return events


def _checked(state: TrainingState, logits: np.ndarray, validation: Rows) -> tuple[list[int], np.ndarray]:
    """The positions of the runs to check, and their logits ``[j m c]``."""
    every = list(range(len(state.active)))
    if validation.weights.folds is None:
        return every, logits
    held_out = [s.run.fold for s in state.active]
    whole = [i for i in every if held_out[i] is None]
    found = out_of_fold(logits, held_out, validation.weights.folds.numpy())
    return (whole, found[None]) if whole and found is not None else ([], logits[:0])


def _selected(task: Task, found: Check, logits: np.ndarray, targets: np.ndarray, select_by: SelectBy) -> float:
    """The value of a check that selects; other metrics than those of the check are computed if they select."""
    selection = selection_of(select_by, task)
    values = {task.selection: found.score}
    if select_by == "macro-f1":
        values = dict(task.score_predictions(task.predicted(logits), targets).values)
    return selected_value(values, found.loss, selection)


def _leave(state: TrainingState, leaving: dict[int, Status]) -> Iterator[RunEnded]:
    states = [state.active[i] for i in leaving]
    state.remove(leaving)
    for s in states:
        yield RunEnded(state.step, s.run.id, s.status or "finished", s.converged_step, s.seconds)


def _halve(state: TrainingState, checks: Sequence[Checked], rung: int) -> Iterator[Event]:
    """Remove the worse half of the adapter runs from the pack; the linear probe stays."""
    places = {s.run.id: i for i, s in enumerate(state.active) if s.run.role == "lora"}
    ranked, kept = halve([check for check in checks if check.run in places])
    if len(ranked) > 1:
        yield Halved(state.step, rung, tuple(c.run for c in ranked), tuple(c.score for c in ranked), kept)
        yield from _leave(state, {places[c.run]: "halved" for c in ranked[kept:]})


def _spend(state: TrainingState, seconds: float) -> None:
    """Distribute time evenly among the runs of the pack."""
    for s in state.active:
        s.seconds += seconds / len(state.active)
