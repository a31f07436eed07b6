"""A run in a pack gives the same result as in a pack of one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from backends import FEW, backend_id, each_backend, each_of_few
from models import CLASSES, VOCABULARY, Pair, make_pair
from programs import CPU, TASK, pack_for, run_of
from tolerances import FP32_TRAINED
from torch import Tensor

from loralet.adapters.spec import TARGETS
from loralet.backends.base import Backend
from loralet.backends.native.backend import NativeBackend
from loralet.config import TrainingOptions
from loralet.data.tokens import Tokens
from loralet.events import Checked, RunEnded, Stepped
from loralet.runs.run import Run
from loralet.runs.selection import rank_of
from loralet.training.corpus import Rows
from loralet.training.loop import TrainingState, train

# Long trainings, most of whose lines other tests cover too; measuring them takes half as long again.
pytestmark = pytest.mark.no_cover


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


RUNS = [
    run_of(3e-3, 0, rank=4, alpha=16.0, targets=("query", "value")),
    run_of(1e-2, 1, rank=0),
    run_of(1e-3, 2, rank=16, alpha=64.0, dropout=0.1, targets=("query", "key")),
    run_of(5e-4, 3, rank=32, alpha=64.0, targets=TARGETS, scaling="rslora"),
    run_of(2e-3, 4, rank=4, alpha=8.0, dropout=0.3, targets=("intermediate", "output")),
]
DORA = [replace(run, adapter=replace(run.adapter, method="dora")) if run.adapter.rank else run for run in RUNS]
"""The same runs with DoRA; the linear probe shares their pack."""
PLUS = [replace(run, lr_ratio=ratio) for run, ratio in zip(RUNS, (4.0, 1.0, 16.0, 8.0, 0.5), strict=True)]
"""The same runs with different learning rates of B (LoRA+)."""
METHODS = {"lora": RUNS, "dora": DORA, "lora-plus": PLUS}
each_method = pytest.mark.parametrize("runs", METHODS.values(), ids=METHODS)
each_method_and_backend = pytest.mark.parametrize(
    ("runs", "backend"),
    [
        pytest.param(runs, backend, id=f"{name}-{backend_id(backend)}")
        for name, runs in METHODS.items()
        for backend in FEW
        if name != "dora" or not isinstance(backend, NativeBackend)
    ],
)
"""Each method with each backend that supports it: only torch computes DoRA."""
OPTIONS = TrainingOptions(steps=20, batch_size=8, eval_every=10, head_dropout=0.1, weight_decay=0.01)


def start(
    pair: Pair, runs: list[Run], head_dropout: float = 0.1, weight_decay: float = 0.0, backend: Backend = CPU
) -> TrainingState:
    pack = pack_for(pair, runs, head_dropout=head_dropout)
    encoder = backend.load(pair.ours.weights, pair.ours.table, torch.float32)
    return TrainingState.start(backend, encoder, TASK, pack, runs, weight_decay)


def carry_out(pair: Pair, runs: list[Run], options: TrainingOptions, backend: Backend = CPU) -> TrainingState:
    state = start(pair, runs, options.head_dropout, options.weight_decay, backend)
    for _ in train(state, rows(100, 0), rows(40, 1), options, seed=5):
        pass
    return state


def ended(state: TrainingState, run: Run) -> dict[str, Tensor]:
    return next(s.last for s in state.ended if s.run == run)


@each_method
def test_initial_values_equal_those_of_a_pack_of_one(pair: Pair, runs: list[Run]) -> None:
    def values(runs: list[Run]) -> list[dict[str, Tensor]]:
        pack = pack_for(pair, runs)
        parameters = pack.start(pair.ours.weights)
        return [pack.extract(parameters, i) for i in range(len(runs))]

    together = values(runs)
    for run, own in zip(runs, together, strict=True):
        (alone,) = values([run])
        assert own.keys() == alone.keys()
        assert all(torch.equal(own[name], alone[name]) for name in own)
    assert not torch.equal(together[0]["classifier.weight"], together[1]["classifier.weight"])
    assert together[0]["layers.0.query.A"].abs().max() <= 1 / 32**0.5
    assert together[0]["layers.0.query.A"].abs().max() > 0.8 / 32**0.5
    assert not together[0]["layers.0.query.B"].any()


@each_method_and_backend
def test_twenty_steps_match_a_pack_of_one(pair: Pair, runs: list[Run], backend: Backend) -> None:
    together = carry_out(pair, runs, OPTIONS, backend)
    for run in runs:
        own, alone = ended(together, run), ended(carry_out(pair, [run], OPTIONS, backend), run)
        assert own.keys() == alone.keys()
        worst = max(float((own[name] - alone[name]).abs().max()) for name in own)
        assert worst <= FP32_TRAINED, (run.id, worst)
    first, last = (
        ended(together, runs[0]),
        ended(carry_out(pair, [runs[0]], TrainingOptions(steps=19, batch_size=8), backend), runs[0]),
    )
    assert max(float((first[n] - last[n]).abs().max()) for n in first) > FP32_TRAINED


@each_method_and_backend
def test_padded_ranks_stay_exactly_zero(pair: Pair, runs: list[Run], backend: Backend) -> None:
    state = start(pair, runs, weight_decay=0.01, backend=backend)
    pack = state.pack
    for event in train(state, rows(100, 0), rows(40, 1), OPTIONS, seed=5):
        if isinstance(event, Stepped) and event.step == 16:
            break
    tensors = pack.split(state.parameters)
    for name in pack.adapted:
        for i, adapter in enumerate(pack.adapters):
            rank = adapter.rank if name in adapter.linears else 0
            assert not tensors[f"{name}.A"][i, rank:].any()
            assert not tensors[f"{name}.B"][i, :, rank:].any()
            if rank:
                assert tensors[f"{name}.B"][i, :, :rank].all()
            if f"{name}.magnitude" in tensors:
                assert tensors[f"{name}.magnitude"][i].all() == bool(rank)
                assert tensors[f"{name}.magnitude"][i].any() == bool(rank)


@each_of_few
@pytest.mark.parametrize("runs", [RUNS, PLUS], ids=["lora", "lora-plus"])
def test_a_run_that_leaves_does_not_change_the_others(pair: Pair, runs: list[Run], backend: Backend) -> None:
    wild = run_of(1e8, 9, rank=8, alpha=1e30, targets=("query", "value"))
    state = carry_out(pair, [runs[0], wild, runs[2]], OPTIONS, backend)
    assert {s.run.id: s.status for s in state.ended}[wild.id] == "diverged"
    for run in (runs[0], runs[2]):
        own, alone = ended(state, run), ended(carry_out(pair, [run], OPTIONS, backend), run)
        assert max(float((own[name] - alone[name]).abs().max()) for name in own) <= FP32_TRAINED
    assert all(t.isfinite().all() for t in ended(state, wild).values())


@each_backend
def test_early_stopping_keeps_the_best_state_and_records_the_first_check_at_target(
    pair: Pair, backend: Backend
) -> None:
    runs = [RUNS[1], RUNS[3]]
    options = TrainingOptions(steps=400, batch_size=8, eval_every=5, patience=3, target_score=0.4)
    state = start(pair, runs, backend=backend)
    checks: dict[str, list[Checked]] = {run.id: [] for run in runs}
    for event in train(state, rows(100, 0), rows(40, 1), options, seed=5):
        if isinstance(event, Checked):
            checks[event.run].append(event)
        if isinstance(event, RunEnded) and event.status == "early-stopped":
            own = [rank_of(check.score, check.loss) for check in checks[event.run]]
            assert max(own[-3:]) <= max(own[:-3])
            assert event.step == checks[event.run][-1].step
            reached = [check.step for check in checks[event.run] if check.score >= 0.4]
            assert event.converged_step == (reached[0] if reached else None)
    assert any(s.status == "early-stopped" for s in state.ended)
    for s in state.ended:
        assert s.best_rank == max(rank_of(check.score, check.loss) for check in checks[s.run.id])


@each_backend
def test_full_fine_tuning_changes_every_tensor(pair: Pair, backend: Backend) -> None:
    run = Run("full", "m", "full", lr=1e-3)
    state = carry_out(pair, [run], TrainingOptions(steps=5, batch_size=8), backend)
    learned = {name: tensor.cpu() for name, tensor in ended(state, run).items()}
    assert learned.keys() - {"classifier.weight", "classifier.bias"} == pair.ours.weights.keys()
    still = [name for name, weight in pair.ours.weights.items() if torch.equal(learned[name], weight)]
    assert still == []
    assert all((learned[name] - weight).abs().max() < 0.01 for name, weight in pair.ours.weights.items())
