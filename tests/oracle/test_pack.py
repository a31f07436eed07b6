"""A run in a pack is the run it would be alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from models import CLASSES, VOCABULARY, Pair, make_pair
from tolerances import FP32_TRAINED
from torch import Tensor

from loralet.adapters.lora import Adapter, DropoutMasks
from loralet.config import TARGETS, TrainingOptions
from loralet.data.tokens import Tokens
from loralet.events import Checked, RunEnded, Stepped
from loralet.training.loop import Rows, TrainingState, train
from loralet.training.packs import Run, build_pack, lora_run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("model"))


def rows(count: int, seed: int) -> Rows:
    """Random token rows whose label is decided by their second token."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, 15, count)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = generator.integers(5, len(VOCABULARY), starts[-1]).astype(np.int32)
    return Rows(Tokens(ids, starts), torch.from_numpy(ids[starts[:-1] + 1].astype(np.int64) % CLASSES))


RUNS = [
    lora_run("m", 4, 16.0, 0.0, ("query", "value"), "alpha/r", 3e-3, 0),
    lora_run("m", 0, 1.0, 0.0, (), "alpha/r", 1e-2, 1),
    lora_run("m", 16, 64.0, 0.1, ("query", "key"), "alpha/r", 1e-3, 2),
    lora_run("m", 32, 64.0, 0.0, TARGETS, "rslora", 5e-4, 3),
    lora_run("m", 4, 8.0, 0.3, ("intermediate", "output"), "alpha/r", 2e-3, 4),
]
OPTIONS = TrainingOptions(steps=50, batch_size=8, eval_every=10, head_dropout=0.1, weight_decay=0.01)


def carry_out(pair: Pair, runs: list[Run], options: TrainingOptions) -> TrainingState:
    pack = build_pack(runs, pair.ours.weights, pair.ours.shape, CLASSES, "pooler", options.head_dropout)
    state = TrainingState.start(pack, runs, options.weight_decay)
    for _ in train(state, rows(100, 0), rows(40, 1), options, seed=5):
        pass
    return state


def ended(state: TrainingState, run: Run) -> dict[str, Tensor]:
    return next(s.last for s in state.ended if s.run == run)


def test_initial_values_are_those_of_the_run_alone(pair: Pair) -> None:
    def start(runs: list[Run]) -> list[dict[str, Tensor]]:
        pack = build_pack(runs, pair.ours.weights, pair.ours.shape, CLASSES, "pooler", 0.0)
        parameters = pack.start()
        return [pack.extract(parameters, i) for i in range(len(runs))]

    together = start(RUNS)
    for run, own in zip(RUNS, together, strict=True):
        (alone,) = start([run])
        assert own.keys() == alone.keys()
        assert all(torch.equal(own[name], alone[name]) for name in own)
    assert not torch.equal(together[0]["classifier.weight"], together[1]["classifier.weight"])
    assert together[0]["layers.0.query.A"].abs().max() <= 1 / 32**0.5
    assert together[0]["layers.0.query.A"].abs().max() > 0.8 / 32**0.5
    assert not together[0]["layers.0.query.B"].any()


def test_fifty_steps_are_those_of_the_runs_alone(pair: Pair) -> None:
    together = carry_out(pair, RUNS, OPTIONS)
    for run in RUNS:
        own, alone = ended(together, run), ended(carry_out(pair, [run], OPTIONS), run)
        assert own.keys() == alone.keys()
        worst = max(float((own[name] - alone[name]).abs().max()) for name in own)
        assert worst <= FP32_TRAINED, (run.id, worst)
    first, last = (
        ended(together, RUNS[0]),
        ended(carry_out(pair, [RUNS[0]], TrainingOptions(steps=49, batch_size=8)), RUNS[0]),
    )
    assert max(float((first[n] - last[n]).abs().max()) for n in first) > FP32_TRAINED


def test_padded_ranks_stay_exactly_zero(pair: Pair) -> None:
    pack = build_pack(RUNS, pair.ours.weights, pair.ours.shape, CLASSES, "pooler", 0.1)
    state = TrainingState.start(pack, RUNS, 0.01)
    for event in train(state, rows(100, 0), rows(40, 1), OPTIONS, seed=5):
        if isinstance(event, Stepped) and event.step == 40:
            break
    tensors = pack.split(state.parameters)
    for name in pack.adapted:
        for i, adapter in enumerate(pack.adapters):
            rank = adapter.rank if name in adapter.linears else 0
            assert not tensors[f"{name}.A"][i, rank:].any()
            assert not tensors[f"{name}.B"][i, :, rank:].any()
            if rank:
                assert tensors[f"{name}.B"][i, :, :rank].all()


def test_a_run_that_leaves_changes_nothing_for_the_others(pair: Pair) -> None:
    wild = lora_run("m", 8, 1e30, 0.0, ("query", "value"), "alpha/r", 1e8, 9)
    state = carry_out(pair, [RUNS[0], wild, RUNS[2]], OPTIONS)
    assert {s.run.id: s.status for s in state.ended}[wild.id] == "diverged"
    for run in (RUNS[0], RUNS[2]):
        own, alone = ended(state, run), ended(carry_out(pair, [run], OPTIONS), run)
        assert max(float((own[name] - alone[name]).abs().max()) for name in own) <= FP32_TRAINED
    assert all(t.isfinite().all() for t in ended(state, wild).values())


def test_early_stop_keeps_the_best_state_and_convergence_is_the_first_check_at_target(pair: Pair) -> None:
    runs = [RUNS[1], RUNS[3]]
    options = TrainingOptions(steps=400, batch_size=8, eval_every=5, patience=3, target_accuracy=0.4)
    pack = build_pack(runs, pair.ours.weights, pair.ours.shape, CLASSES, "pooler", 0.1)
    state = TrainingState.start(pack, runs, 0.0)
    checks: dict[str, list[Checked]] = {run.id: [] for run in runs}
    for event in train(state, rows(100, 0), rows(40, 1), options, seed=5):
        if isinstance(event, Checked):
            checks[event.run].append(event)
        if isinstance(event, RunEnded) and event.status == "early-stopped":
            own = [check.accuracy for check in checks[event.run]]
            assert max(own[-3:]) <= max(own[:-3])
            assert event.step == checks[event.run][-1].step
            reached = [check.step for check in checks[event.run] if check.accuracy >= 0.4]
            assert event.converged_step == (reached[0] if reached else None)
    assert any(s.status == "early-stopped" for s in state.ended)
    for s in state.ended:
        assert s.best_accuracy == max(check.accuracy for check in checks[s.run.id])


def test_dropout_masks_are_independent_and_belong_to_the_adapter() -> None:
    def adapters(*dropouts: float) -> list[Adapter]:
        return [Adapter(4, 1.0, p, ("layers.0.query",), i) for i, p in enumerate(dropouts)]

    def masks(*dropouts: float) -> DropoutMasks:
        return DropoutMasks(adapters(*dropouts), [torch.Generator().manual_seed(i) for i in range(len(dropouts))])

    x = torch.ones(1, 50, 20, 10)
    first = masks(0.5, 0.5, 0.0, 0.1).apply("layers.0.query", x)
    again = masks(0.5, 0.0, 0.2, 0.1).apply("layers.0.query", x)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[3], again[3])
    assert torch.equal(first[2], x[0])
    assert not torch.equal(first[1], again[1])
    both = (first[0] == 0) & (first[1] == 0)
    assert both.float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert (first[3] == 0).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert first.mean().item() == pytest.approx(1.0, abs=0.02)
    assert masks(0.5).apply("layers.0.key", x) is x


def test_full_fine_tuning_moves_every_tensor_it_should(pair: Pair) -> None:
    run = Run("full", "m", "full", 0, 1.0, 0.0, (), "alpha/r", 1e-3, 0)
    state = carry_out(pair, [run], TrainingOptions(steps=5, batch_size=8))
    learned = ended(state, run)
    assert learned.keys() - {"classifier.weight", "classifier.bias"} == pair.ours.weights.keys()
    still = [name for name, weight in pair.ours.weights.items() if torch.equal(learned[name], weight)]
    assert still == []
    assert all((learned[name] - weight).abs().max() < 0.01 for name, weight in pair.ours.weights.items())
