"""Runs that leave their pack early: the decision as a pure function, and its effect on a pack."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import numpy as np
import pytest
import torch
from models import CLASSES, VOCABULARY, Pair, make_pair

from loralet.adapters.spec import HEAD_ALONE, AdapterSpec
from loralet.backends.torch import TorchBackend
from loralet.config import TrainingOptions
from loralet.data.tokens import Tokens
from loralet.events import Checked, Event, Halved, RunEnded
from loralet.runs.run import Run
from loralet.tasks.single_label import SingleLabel
from loralet.training.corpus import Rows
from loralet.training.halving import Exits, halve, has_enough, ranking, rungs_of
from loralet.training.loop import TrainingState, train
from loralet.training.packs import adapter_run, build_pack


def checked(run: str, score: float, loss: float = 1.0) -> Checked:
    return Checked(10, run, score, loss, 100, True)


@pytest.mark.parametrize(
    ("steps", "rungs"), [(800, (100, 200, 400)), (60, (8, 15, 30)), (9, (2, 3, 5)), (4, (1, 2)), (2, (1,)), (1, ())]
)  # fmt: skip
def test_rungs_are_at_an_eighth_a_quarter_and_half_of_the_steps(steps: int, rungs: tuple[int, ...]) -> None:
    assert rungs_of(steps) == rungs


def test_runs_are_ranked_by_accuracy_then_loss_then_position() -> None:
    checks = [
        checked("a", 0.5),
        checked("b", 0.9, 2.0),
        checked("c", 0.9, 1.0),
        checked("d", 0.5),
        checked("e", 0.5, nan),
    ]
    assert [c.run for c in ranking(checks)] == ["c", "b", "a", "d", "e"]


def test_runs_are_ranked_by_the_value_that_selects() -> None:
    values = {"a": 0.3, "b": 0.1, "c": 0.2}
    checks = [replace(checked(run, 0.5, loss=value), selected=value) for run, value in values.items()]
    assert [c.run for c in ranking(checks)] == ["a", "c", "b"]
    assert [c.run for c in ranking([replace(c, selected=None) for c in checks])] == ["b", "c", "a"]


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (2, 1), (3, 2), (8, 4), (9, 5)])
def test_the_better_half_continues(count: int, kept: int) -> None:
    ranked, left = halve([checked(str(i), i / 10) for i in range(count)])
    assert left == kept
    assert [c.run for c in ranked] == [str(i) for i in reversed(range(count))]


def test_a_run_stops_at_its_target_or_when_patience_is_exhausted() -> None:
    assert not has_enough(checked("a", 0.9), 99, None, Exits())
    assert has_enough(checked("a", 0.8), 0, None, Exits(target=0.8))
    assert not has_enough(checked("a", 0.79), 99, None, Exits(target=0.8))
    assert has_enough(checked("a", 0.1), 3, 3, Exits())
    assert not has_enough(checked("a", 0.1), 2, 3, Exits(target=0.8))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("model"))


def rows(count: int, seed: int) -> Rows:
    """Random token rows. The second token determines the label."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, 9, count)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = generator.integers(5, len(VOCABULARY), starts[-1]).astype(np.int32)
    return Rows(Tokens(ids, starts), torch.from_numpy(ids[starts[:-1] + 1].astype(np.int64) % CLASSES))


TASK = SingleLabel(tuple(map(str, range(CLASSES))))
PROBE = adapter_run("m", HEAD_ALONE, 1e-9, 0)
ADAPTERS = [
    AdapterSpec(rank=4, alpha=alpha, dropout=0.1, targets=("query", "value")) for alpha in (1.0, 8.0, 16.0, 32.0, 64.0)
]
RUNS = [PROBE, *(adapter_run("m", adapter, 3e-3, 0) for adapter in ADAPTERS)]


def carry_out(
    pair: Pair, runs: list[Run], options: TrainingOptions, halving: bool, target: float | None = None
) -> tuple[TrainingState, list[Event]]:
    pack, backend = build_pack(runs, pair.ours.table, CLASSES, "pooler", 0.0), TorchBackend(torch.device("cpu"))
    encoder = backend.load(pair.ours.weights, pair.ours.table, torch.float32)
    state = TrainingState.start(backend, encoder, TASK, pack, runs, 0.0)
    exits = Exits(rungs_of(options.steps or 0) if halving else (), target)
    return state, list(train(state, rows(60, 0), rows(40, 1), options, 0, exits))


def test_each_rung_halves_the_lora_runs_but_not_the_probe(pair: Pair) -> None:
    options = TrainingOptions(steps=40, batch_size=8, eval_every=10)
    state, events = carry_out(pair, RUNS, options, halving=True)
    rungs = [event for event in events if isinstance(event, Halved)]
    assert [(r.step, r.rung, len(r.runs), r.kept) for r in rungs] == [(5, 1, 5, 3), (10, 2, 3, 2), (20, 3, 2, 1)]
    for rung in rungs:
        assert list(rung.scores) == sorted(rung.scores, reverse=True)
        left = [
            event.run
            for event in events
            if isinstance(event, RunEnded) and event.status == "halved" and event.step == rung.step
        ]
        assert set(left) == set(rung.runs[rung.kept :])
        measured = {
            event.run: event.score for event in events if isinstance(event, Checked) and event.step == rung.step
        }
        assert rung.scores == tuple(measured[run] for run in rung.runs)
    ended = {s.run.id: (s.status, s.steps) for s in state.ended}
    assert ended[PROBE.id] == ("finished", 40)
    assert sorted(steps for status, steps in ended.values() if status == "halved") == [5, 5, 10, 20]
    assert sum(status == "finished" for status, _ in ended.values()) == 2
    assert all(s.best and s.last for s in state.ended)


def test_halving_does_not_change_the_surviving_run(pair: Pair) -> None:
    options = TrainingOptions(steps=40, batch_size=8, eval_every=5)
    halved, _ = carry_out(pair, RUNS, options, halving=True)
    plain, events = carry_out(pair, RUNS, options, halving=False)
    assert not any(isinstance(event, Halved) for event in events)
    assert {s.status for s in plain.ended} == {"finished"}
    survivor = next(s for s in halved.ended if s.status == "finished" and s.run is not PROBE)
    alone = next(s for s in plain.ended if s.run == survivor.run)
    worst = max(float((survivor.last[name] - alone.last[name]).abs().max()) for name in alone.last)
    assert worst < 1e-4


def test_a_single_lora_run_is_never_halved(pair: Pair) -> None:
    state, events = carry_out(pair, RUNS[:2], TrainingOptions(steps=16, batch_size=8), halving=True)
    assert {s.status for s in state.ended} == {"finished"}
    assert not any(isinstance(event, Halved) for event in events)


def test_a_run_at_its_target_stops_with_its_convergence_step(pair: Pair) -> None:
    options = TrainingOptions(steps=40, batch_size=8, eval_every=4, target_score=0.3)
    state, _ = carry_out(pair, RUNS, options, halving=False, target=0.3)
    stopped = [s for s in state.ended if s.status == "early-stopped"]
    assert stopped
    for s in stopped:
        assert s.converged_step == s.steps < 40
        assert s.best_rank is not None
        assert s.best_rank[0] >= 0.3
    assert all(
        s.best_rank is not None and s.best_rank[0] < 0.3
        for s in state.ended
        if s.status == "finished" and s.steps == 40 and s.converged_step is None
    )
