"""What is about to be trained: packs in their order, and how long they will take, before anything is trained or written."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from loralet.config import TrainingOptions
from loralet.data.batches import BatchOrder, epoch_batches
from loralet.engine.footprint import Load, budget, pack_bytes, pack_work
from loralet.engine.packs import Run, group
from loralet.engine.train import TrainingState, check, steps_of, take_step
from loralet.events import Planned, PlannedPack
from loralet.studies.bench import Bench

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
    return Load(bench.backbone.shape, bench.classes, training.head, min(training.batch_size, len(bench.rows.train)), longest, weights.element_size())


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


def survey(packs: Packs, benches: Mapping[str, Bench]) -> Planned:
    """The plan in numbers. The first pack is tried for a few steps, the others are put in proportion to it by their arithmetic."""
    first = packs.packs[0]
    bench = benches[first[0].model]
    pace = probe(bench, first)
    unit = pack_work(first, load_of(bench))
    shares = [pack_work(runs, load_of(benches[runs[0].model])) / unit for runs in packs.packs]
    planned = [_planned(benches[runs[0].model], runs, pace, share) for share, runs in zip(shares, packs.packs, strict=True)]
    return Planned(tuple(planned), len(bench.rows.train), packs.budget)


def _planned(bench: Bench, runs: Sequence[Run], pace: Pace, share: float) -> PlannedPack:
    pack, rows = bench.pack(runs), len(bench.rows.train)
    trainable = tuple(pack.trainable(i) for i in range(len(runs)))
    memory = pack_bytes(runs, load_of(bench))
    return PlannedPack(
        tuple(run.id for run in runs),
        trainable,
        steps_of(bench.training, rows),
        bench.training.batch_size,
        memory,
        share * training_seconds(pace, bench),
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
    epoch = [_padded(rows.tokens.lengths, batch) for batch in epoch_batches(rows.tokens.lengths, training.batch_size, seed, 0)]
    started = time.perf_counter()
    check(state, bench.rows.sample, training.target_accuracy)
    return Pace(seconds / tokens * sum(epoch) / len(epoch), time.perf_counter() - started)


def _padded(lengths: np.ndarray, batch: np.ndarray) -> int:
    return len(batch) * int(lengths[batch].max())


def training_seconds(pace: Pace, bench: Bench) -> float:
    """Seconds of a pack that nothing leaves early: its steps, its checks, and best and last state on the whole validation split."""
    options: TrainingOptions = bench.training
    steps = steps_of(options, len(bench.rows.train))
    looks = -(-steps // options.eval_every) + 2 * len(bench.rows.validation) / len(bench.rows.sample)
    return steps * pace.step + looks * pace.check
