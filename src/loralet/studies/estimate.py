"""The estimate of a study before training: its packs in order, with memory and time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from loralet.data.batches import BatchOrder, epoch_batches
from loralet.errors import ConfigError
from loralet.events import Planned, PlannedPack
from loralet.runs.run import Run
from loralet.studies.plan import Plan
from loralet.training.loop import check, steps_of, take_step
from loralet.training.memory import GIB, Load, pack_bytes, pack_work, total_memory
from loralet.training.packs import group
from loralet.training.session import Session

PROBE_STEPS = 10


@dataclass(frozen=True)
class Packs:
    """The packs of a plan, the most expensive first, and the memory limit of a pack in bytes."""

    packs: tuple[tuple[Run, ...], ...]
    budget: int


@dataclass(frozen=True)
class Pace:
    """Seconds per step, and per check on the validation sample."""

    step: float
    check: float


def pack_up(runs: Sequence[Run], sessions: Mapping[str, Session]) -> Packs:
    """Group runs into packs that fit into memory, the most expensive pack first.

    Args:
        runs: runs to train.
        sessions: sessions by model.

    Raises:
        ConfigError: a run needs more memory than the device has.
    """
    for run in runs:
        _require_memory(run, sessions[run.model])
    allowed = min(session.memory for session in sessions.values())
    loads = {model: session.load for model, session in sessions.items()}
    packs = group(runs, lambda members: pack_bytes(members, loads[members[0].model]) <= allowed)
    ordered = sorted(packs, key=lambda members: -pack_work(members, loads[members[0].model]))
    return Packs(tuple(tuple(members) for members in ordered), allowed)


def _require_memory(run: Run, session: Session) -> None:
    needed, there = pack_bytes([run], session.load), total_memory(session.device)
    if needed > there:
        raise ConfigError(
            f"{run.id} needs about {needed / GIB:,.0f} GiB of memory, and there are {there / GIB:,.0f} GiB in all: use "
            "a smaller rank, --batch-size or --max-length"
        )


@dataclass(frozen=True)
class Phase:
    """Steps ``start + 1`` to ``end`` of a pack, with a constant set of runs, and the number of checks."""

    start: int
    end: int
    checks: int
    runs: tuple[Run, ...]


def course(runs: Sequence[Run], load: Load, steps: int, every: int, rungs: Sequence[int] = ()) -> list[Phase]:
    """The phases of a pack between the rungs at which half of its LoRA runs leave.

    The runs that leave are not known; the more expensive half is assumed to stay.

    Args:
        runs: the pack at its start.
        load: the size of a step.
        steps, every: steps of the training, and steps between checks.
        rungs: steps of successive halving, each below ``steps``.
    """
    left, start, phases = tuple(runs), 0, []
    for end in (*rungs, steps):
        phases.append(Phase(start, end, end // every - start // every + (end % every > 0), left))
        rivals = sorted((run for run in left if run.role == "lora"), key=lambda run: -pack_work([run], load))
        gone = rivals[ceil(len(rivals) / 2) :]
        left, start = tuple(run for run in left if run not in gone), end
    return phases


def survey(packs: Packs, sessions: Mapping[str, Session], plan: Plan) -> Planned:
    """Estimate a plan. The first pack is timed for a few steps; the others are scaled by their arithmetic."""
    first = packs.packs[0]
    session = sessions[first[0].model]
    pace = probe(session, first)
    unit = pack_work(first, session.load)
    planned = [_planned(sessions[runs[0].model], runs, pace, unit, plan) for runs in packs.packs]
    stopping = plan.stop_at_target or plan.training.patience is not None
    return Planned(tuple(planned), len(session.rows.train), packs.budget, plan.halving, stopping)


def _planned(session: Session, runs: Sequence[Run], pace: Pace, unit: float, plan: Plan) -> PlannedPack:
    pack, rows, load = session.pack(runs), len(session.rows.train), session.load
    trainable = tuple(pack.trainable(i) for i in range(len(runs)))
    steps, work = steps_of(session.training, rows), pack_work(runs, load)
    phases = course(runs, load, steps, session.training.eval_every, plan.exits(rows).rungs)
    shares = tuple((phase.start, pack_work(phase.runs, load) / work) for phase in phases)
    seconds = training_seconds(pace, session, phases) * work / unit
    return PlannedPack(
        tuple(run.id for run in runs),
        trainable,
        steps,
        session.training.batch_size,
        pack_bytes(runs, load),
        seconds,
        shares,
    )


def probe(session: Session, runs: Sequence[Run]) -> Pace:
    """Measure the pace of a pack with a few steps and a check; the results are discarded."""
    training, rows, seed = session.training, session.rows.train, runs[0].seed
    state = session.start(runs)
    order = BatchOrder(rows.tokens.lengths, training.batch_size, seed)
    take_step(state, rows, order.at(0), training, 0.0)  # warm-up
    batches = [order.at(step) for step in range(1, PROBE_STEPS + 1)]
    started = time.perf_counter()
    for batch in batches:
        take_step(state, rows, batch, training, 0.0)
    seconds = time.perf_counter() - started
    tokens = sum(_padded(rows.tokens.lengths, batch) for batch in batches)
    epoch = [
        _padded(rows.tokens.lengths, batch)
        for batch in epoch_batches(rows.tokens.lengths, training.batch_size, seed, 0)
    ]
    started = time.perf_counter()
    check(state, session.rows.sample, training)
    return Pace(seconds / tokens * sum(epoch) / len(epoch), time.perf_counter() - started)


def _padded(lengths: np.ndarray, batch: np.ndarray) -> int:
    return len(batch) * int(lengths[batch].max())


def training_seconds(pace: Pace, session: Session, phases: Sequence[Phase]) -> float:
    """Estimate the seconds of a pack.

    The estimate covers steps and checks, and the final evaluation of each run's best and last state on the validation
    split.

    Args:
        pace: pace of the whole pack; for a smaller pack it is scaled by the arithmetic of a step.
        session: the session.
        phases: phases of the pack. Early stopping is not considered.
    """
    load = session.load
    whole = pack_work(phases[0].runs, load)
    training = sum(
        ((s.end - s.start) * pace.step + s.checks * pace.check) * pack_work(s.runs, load) / whole for s in phases
    )
    return training + 2 * len(session.rows.validation) / len(session.rows.sample) * pace.check
