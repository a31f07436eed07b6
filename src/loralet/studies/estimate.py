"""What is about to be trained: packs in their order, and how long they will take, before anything is trained or written."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from loralet.data.batches import BatchOrder, epoch_batches
from loralet.events import Planned, PlannedPack
from loralet.studies.plan import Plan
from loralet.training.loop import TrainingState, check, steps_of, take_step
from loralet.training.memory import Load, budget, pack_bytes, pack_work
from loralet.training.packs import Run, group
from loralet.training.session import Bench

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


def load_of(bench: Bench) -> Load:
    """What a step works on: the longest row of the training split decides."""
    longest = int(bench.rows.train.tokens.lengths.max())
    weights, training = bench.weights["embeddings.word"], bench.training
    return Load(
        bench.backbone.shape,
        bench.classes,
        training.head,
        min(training.batch_size, len(bench.rows.train)),
        longest,
        weights.element_size(),
    )


def pack_up(runs: Sequence[Run], benches: Mapping[str, Bench], memory: float | None) -> Packs:
    """Which runs share a pass, in which order: as many as the memory holds, the longest first.

    Args:
        runs: what is to be trained.
        benches: of their models.
        memory: GiB that a pack may take; None: a share of what is free.
    """
    allowed = budget(memory, next(iter(benches.values())).weights["embeddings.word"].device)
    loads = {model: load_of(bench) for model, bench in benches.items()}
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


def survey(packs: Packs, benches: Mapping[str, Bench], plan: Plan) -> Planned:
    """The plan in numbers. The first pack is tried for a few steps, the others are put in proportion to it by their arithmetic."""
    first = packs.packs[0]
    bench = benches[first[0].model]
    pace = probe(bench, first)
    unit = pack_work(first, load_of(bench))
    planned = [_planned(benches[runs[0].model], runs, pace, unit, plan) for runs in packs.packs]
    stopping = plan.stop_at_target or plan.training.patience is not None
    return Planned(tuple(planned), len(bench.rows.train), packs.budget, plan.halving, stopping)


def _planned(bench: Bench, runs: Sequence[Run], pace: Pace, unit: float, plan: Plan) -> PlannedPack:
    pack, rows, load = bench.pack(runs), len(bench.rows.train), load_of(bench)
    trainable = tuple(pack.trainable(i) for i in range(len(runs)))
    steps, work = steps_of(bench.training, rows), pack_work(runs, load)
    stretches = course(runs, load, steps, bench.training.eval_every, plan.exits(rows).rungs)
    shares = tuple((stretch.start, pack_work(stretch.runs, load) / work) for stretch in stretches)
    seconds = training_seconds(pace, bench, stretches) * work / unit
    return PlannedPack(
        tuple(run.id for run in runs),
        trainable,
        steps,
        bench.training.batch_size,
        pack_bytes(runs, load),
        seconds,
        shares,
    )


def probe(bench: Bench, runs: Sequence[Run]) -> Pace:
    """The pace of a pack, from a few steps and a check whose results are thrown away; nothing that the real training uses is touched."""
    training, rows, seed = bench.training, bench.rows.train, runs[0].seed
    state = TrainingState.start(bench.pack(runs), runs, training.weight_decay)
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
    check(state, bench.rows.sample, training.target_accuracy)
    return Pace(seconds / tokens * sum(epoch) / len(epoch), time.perf_counter() - started)


def _padded(lengths: np.ndarray, batch: np.ndarray) -> int:
    return len(batch) * int(lengths[batch].max())


def training_seconds(pace: Pace, bench: Bench, stretches: Sequence[Stretch]) -> float:
    """Seconds of a pack: its steps and checks, cheaper where runs have left, and best and last state of all its runs on the whole validation split.

    Args:
        pace: of the whole pack; of a smaller one it is put in proportion by the arithmetic of a step.
        bench: what is worked on.
        stretches: the pack's course. Runs that stop of their own accord are not foreseen.
    """
    load = load_of(bench)
    whole = pack_work(stretches[0].runs, load)
    training = sum(
        ((s.end - s.start) * pace.step + s.checks * pace.check) * pack_work(s.runs, load) / whole for s in stretches
    )
    return training + 2 * len(bench.rows.validation) / len(bench.rows.sample) * pace.check
