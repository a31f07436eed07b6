"""A training that is interrupted between any two steps and resumed equals an uninterrupted one, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from backends import FEW, backend_id
from models import CLASSES, VOCABULARY, Pair, make_pair
from programs import TASK, pack_for, run_of

from loralet.adapters.spec import TARGETS
from loralet.backends.base import Backend
from loralet.backends.native.backend import NativeBackend
from loralet.config import TrainingOptions
from loralet.data.tokens import Tokens
from loralet.errors import RunError
from loralet.events import Event, PackResumed, RunEnded
from loralet.runs.checkpoints import Checkpoints, Saved
from loralet.runs.run import Run
from loralet.training.checkpoint import restore_state, save_state
from loralet.training.corpus import Rows
from loralet.training.halving import Exits
from loralet.training.loop import TrainingState, train

# Long trainings, most of whose lines other tests cover too; measuring them takes half as long again.
pytestmark = pytest.mark.no_cover

RUNS = [
    run_of(3e-3, 0, rank=4, alpha=16.0, dropout=0.2, targets=("query", "value")),
    run_of(1e-2, 0, rank=0),
    run_of(1e-3, 0, rank=16, alpha=64.0, dropout=0.1, targets=("query", "key")),
    run_of(5e-4, 0, rank=8, alpha=64.0, targets=TARGETS, scaling="rslora"),
    run_of(2e-2, 0, rank=4, alpha=8.0, dropout=0.3, targets=("intermediate", "output")),
]
PACKS: dict[str, list[Run]] = {
    "lora": RUNS,
    "dora": [replace(r, adapter=replace(r.adapter, method="dora")) if r.adapter.rank else r for r in RUNS],
    "lora-plus": [replace(r, lr_ratio=ratio) for r, ratio in zip(RUNS, (4.0, 1.0, 16.0, 8.0, 0.5), strict=True)],
    "full": [Run("full", "m", "full", lr=1e-3)],
}
OPTIONS = TrainingOptions(
    steps=16, batch_size=8, eval_every=4, head_dropout=0.1, weight_decay=0.05, patience=3, target_score=0.5
)
EXITS = Exits(rungs=(6,))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("model"))


def rows(count: int, seed: int) -> Rows:
    """Random token rows; the second token determines the label."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, 15, count)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = generator.integers(5, len(VOCABULARY), starts[-1]).astype(np.int32)
    return Rows(Tokens(ids, starts), torch.from_numpy(ids[starts[:-1] + 1].astype(np.int64) % CLASSES))


@dataclass
class Stop:
    """Interrupts a training after some steps; None: never."""

    after: int | None = None
    saved: Saved | None = None
    events: list[Event] = field(default_factory=list)

    def restore(self, state: TrainingState) -> None:
        pass

    def between(self, state: TrainingState) -> None:
        if state.step == self.after:
            self.saved = save_state(state)
            raise InterruptedError


def start(pair: Pair, runs: Sequence[Run], backend: Backend) -> TrainingState:
    pack = pack_for(pair, list(runs), head_dropout=OPTIONS.head_dropout)
    encoder = backend.load(pair.ours.weights, pair.ours.table, torch.float32)
    return TrainingState.start(backend, encoder, TASK, pack, runs, OPTIONS.weight_decay)


def carry_on(state: TrainingState, stop: Stop) -> TrainingState:
    """Train to the end, or until the interruption."""
    with np.errstate(all="raise"):
        try:
            for event in train(state, rows(100, 0), rows(40, 1), OPTIONS, 5, EXITS, stop):
                stop.events.append(event)
        except InterruptedError:
            pass
    return state


def untimed(events: Sequence[Event]) -> list[Event]:
    ended = [replace(e, seconds=0.0) if isinstance(e, RunEnded) else e for e in events]
    return [event for event in ended if not isinstance(event, PackResumed)]


def outcome(state: TrainingState) -> list[tuple[object, ...]]:
    """All that a run ends with, but its time; tensors as bytes."""

    def contents(tensors: dict[str, torch.Tensor]) -> list[tuple[str, bytes]]:
        return [(name, tensors[name].cpu().numpy().tobytes()) for name in sorted(tensors)]

    return [
        (s.run, s.status, s.steps, s.converged_step, s.stale, s.best_rank, contents(s.best), contents(s.last))
        for s in state.ended
    ]


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        pytest.param(name, backend, id=f"{name}-{backend_id(backend)}")
        for name in PACKS
        for backend in FEW
        if name != "dora" or not isinstance(backend, NativeBackend)
    ],
)
def test_a_resumed_training_equals_an_uninterrupted_one(
    pair: Pair, tmp_path: Path, name: str, backend: Backend
) -> None:
    runs, whole = PACKS[name], Stop()
    expected = outcome(carry_on(start(pair, runs, backend), whole))
    last = max(state[2] for state in expected)  # type: ignore[type-var]  # steps
    store = Checkpoints(tmp_path)
    for after in (1, 4, 7, last):
        first, second = Stop(after), Stop()
        carry_on(start(pair, runs, backend), first)
        assert first.saved
        store.write("pack-1", first.saved)
        saved = store.read("pack-1")
        assert saved
        state = start(pair, runs, backend)
        restore_state(state, saved)
        assert outcome(carry_on(state, second)) == expected
        assert untimed([*first.events, *second.events]) == untimed(whole.events)
        assert after == last or isinstance(second.events[0], PackResumed)


def test_the_runs_of_the_first_pack_leave_early(pair: Pair) -> None:
    ended = carry_on(start(pair, RUNS, FEW[0]), Stop()).ended
    assert {"halved", "early-stopped"} <= {s.status for s in ended}


@pytest.mark.parametrize("part", ["exp_avg", "exp_avg_sq", "parameters", "updates", "step"])
def test_every_part_of_the_state_matters(pair: Pair, part: str) -> None:
    expected, stop = outcome(carry_on(start(pair, RUNS, FEW[0]), Stop())), Stop(7)
    carry_on(start(pair, RUNS, FEW[0]), stop)
    assert stop.saved
    values, tensors = dict(stop.saved.values), dict(stop.saved.tensors)
    if part in values:
        values[part] -= 1
    else:
        tensors[part] = tensors[part] * np.float32(1 + 2**-20)
    state = start(pair, RUNS, FEW[0])
    restore_state(state, Saved(values, tensors))
    assert outcome(carry_on(state, Stop())) != expected


def test_a_state_of_other_runs_is_refused(pair: Pair) -> None:
    stop = Stop(5)
    carry_on(start(pair, RUNS, FEW[0]), stop)
    assert stop.saved
    with pytest.raises(RunError, match="which is not in this pack"):
        restore_state(start(pair, RUNS[:2], FEW[0]), stop.saved)
    more = [*RUNS, run_of(1e-3, 0, rank=2, alpha=2.0)]
    with pytest.raises(RunError, match="of other runs"):
        restore_state(start(pair, more, FEW[0]), stop.saved)
    narrow = {**stop.saved.tensors, "parameters": stop.saved.tensors["parameters"][:, 1:]}
    with pytest.raises(RunError, match="another shape"):
        restore_state(start(pair, RUNS, FEW[0]), Saved(stop.saved.values, narrow))
