"""The estimate of a study before anything is trained or written: its packs in order, their memory and time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from loralet.data.batches import BatchOrder, epoch_batches
from loralet.events import Planned, PlannedPack
from loralet.runs.run import Run
from loralet.studies.plan import Plan
from loralet.training.loop import check, steps_of, take_step
from loralet.training.memory import Load, budget, pack_bytes, pack_work
from loralet.training.packs import group
from loralet.training.session import Session

PROBE_STEPS = 10


@dataclass(frozen=True)
class Packs:
    """The packs of a plan, the most expensive first, and the bytes that each of them was allowed."""

    packs: tuple[tuple[Run, ...], ...]
    budget: int


@dataclass(frozen=True)
class Pace:
    """Seconds of one step, and of one check on the validation sample."""

    step: float
    check: float


def load_of(session: Session) -> Load:
    """What a step works on: the longest row of the training split decides."""
    train, training = session.rows.train, session.training
    return Load(
        table=session.backbone.table,
        outputs=session.task.outputs,
        head=training.head,
        batch_size=min(training.batch_size, len(train)),
        tokens=int(train.tokens.lengths.max()),
        item=session.item,
        pooling=session.backbone.family.pooling,
    )


def pack_up(runs: Sequence[Run], sessions: Mapping[str, Session], memory: float | None) -> Packs:
    """Which runs share a pass, in which order: as many as the memory holds, the longest first.

    Args:
        runs: what is to be trained.
        sessions: of their models.
        memory: GiB that a pack may take; None: a share of what is free.
    """
    allowed = budget(memory, next(iter(sessions.values())).device)
    loads = {model: load_of(session) for model, session in sessions.items()}
    packs = group(runs, lambda members: pack_bytes(members, loads[members[0].model]) <= allowed)
    ordered = sorted(packs, key=lambda members: -pack_work(members, loads[members[0].model]))
    return Packs(tuple(tuple(members) for members in ordered), allowed)


@dataclass(frozen=True)
class Stretch:
    """Steps of a pack in which no run leaves it: from after ``start`` to ``end``, with so many checks, by these runs."""

    start: int
    end: int
    checks: int
    runs: tuple[Run, ...]


def course(runs: Sequence[Run], load: Load, steps: int, every: int, rungs: Sequence[int] = ()) -> list[Stretch]:
    """The stretches of a pack between the rungs at which half of its LoRA runs leave. Which half is not known: the costlier is taken to stay.

    Args:
        runs: the pack at its start.
        load: what a step works on.
        steps, every: of the training, and from check to check.
        rungs: steps of successive halving, each below ``steps``.
    """
    left, start, stretches = tuple(runs), 0, []
    for end in (*rungs, steps):
        stretches.append(Stretch(start, end, end // every - start // every + (end % every > 0), left))
        rivals = sorted((run for run in left if run.role == "lora"), key=lambda run: -pack_work([run], load))
        gone = rivals[ceil(len(rivals) / 2) :]
        left, start = tuple(run for run in left if run not in gone), end
    return stretches


def survey(packs: Packs, sessions: Mapping[str, Session], plan: Plan) -> Planned:
    """The plan in numbers. The first pack is tried for a few steps, the others are put in proportion to it by their arithmetic."""
    first = packs.packs[0]
    session = sessions[first[0].model]
    pace = probe(session, first)
    unit = pack_work(first, load_of(session))
    planned = [_planned(sessions[runs[0].model], runs, pace, unit, plan) for runs in packs.packs]
    stopping = plan.stop_at_target or plan.training.patience is not None
    return Planned(tuple(planned), len(session.rows.train), packs.budget, plan.halving, stopping)


def _planned(session: Session, runs: Sequence[Run], pace: Pace, unit: float, plan: Plan) -> PlannedPack:
    pack, rows, load = session.pack(runs), len(session.rows.train), load_of(session)
    trainable = tuple(pack.trainable(i) for i in range(len(runs)))
    steps, work = steps_of(session.training, rows), pack_work(runs, load)
    stretches = course(runs, load, steps, session.training.eval_every, plan.exits(rows).rungs)
    shares = tuple((stretch.start, pack_work(stretch.runs, load) / work) for stretch in stretches)
    seconds = training_seconds(pace, session, stretches) * work / unit
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
    """The pace of a pack, from a few steps and a check whose results are thrown away; nothing that the real training uses is touched."""
    training, rows, seed = session.training, session.rows.train, runs[0].seed
    state = session.start(runs)
    order = BatchOrder(rows.tokens.lengths, training.batch_size, seed)
    take_step(state, rows, order.at(0), training, 0.0)  # the first step pays for what is set up once
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
    check(state, session.rows.sample, training.target_score)
    return Pace(seconds / tokens * sum(epoch) / len(epoch), time.perf_counter() - started)


def _padded(lengths: np.ndarray, batch: np.ndarray) -> int:
    return len(batch) * int(lengths[batch].max())


def training_seconds(pace: Pace, session: Session, stretches: Sequence[Stretch]) -> float:
    """Seconds of a pack: its steps and checks, cheaper where runs have left, and best and last state of all its runs on the whole validation split.

    Args:
        pace: of the whole pack; of a smaller one it is put in proportion by the arithmetic of a step.
        session: what is worked on.
        stretches: the pack's course. Runs that stop of their own accord are not foreseen.
    """
    load = load_of(session)
    whole = pack_work(stretches[0].runs, load)
    training = sum(
        ((s.end - s.start) * pace.step + s.checks * pace.check) * pack_work(s.runs, load) / whole for s in stretches
    )
    return training + 2 * len(session.rows.validation) / len(session.rows.sample) * pace.check
