"""The best state of a run: higher value of what selects, then lower loss, then later check."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf, nan

import numpy as np
import pytest
import torch
from models import Pair, make_pair
from programs import CPU, TASK, pack_for, run_of
from test_pack import rows
from torch import Tensor
from torch.nn import functional as F

from loralet.config import ComputeOptions, TrainingOptions
from loralet.data.batches import gather
from loralet.events import Checked, Event, RunEnded
from loralet.ranking import SelectBy
from loralet.runs.results import TextLengths
from loralet.runs.run import Run
from loralet.runs.selection import rank_of
from loralet.tasks.base import Check, Scores
from loralet.tasks.single_label import SingleLabel
from loralet.training.corpus import CorpusRows
from loralet.training.loop import TrainingState, train
from loralet.training.session import Loaded, Session, train_pack


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("model"))


@dataclass(frozen=True)
class Scripted(SingleLabel):
    """Trains as usual, with scripted check results: one tuple per check, one entry per run."""

    script: Iterator[tuple[Check, ...]] = field(default_factory=lambda: iter(()))

    def check(self, logits: np.ndarray, targets: np.ndarray) -> list[Check]:
        return list(next(self.script))


def scripted(*checks: tuple[Check, ...]) -> Scripted:
    return Scripted(TASK.labels, script=iter(checks))


def started(pair: Pair, runs: list[Run], task: SingleLabel) -> TrainingState:
    encoder = CPU.load(pair.ours.weights, pair.ours.table, torch.float32)
    return TrainingState.start(CPU, encoder, task, pack_for(pair, runs), runs, 0.0)


def test_the_lower_loss_wins_between_equal_scores(pair: Pair) -> None:
    checks = [
        Check(0.5, 0.9),  # the first check is the best so far
        Check(0.5, 0.7),  # equal score, lower loss
        Check(0.5, 0.8),
        Check(0.4, 0.1),  # a lower loss does not compensate for a lower score
        Check(0.5, nan),
        Check(0.5, 0.7),  # equal: the later check is kept
        Check(0.6, 5.0),  # a higher score wins at any loss
        Check(0.6, inf),
        Check(0.6, 4.9),
    ]
    best = [True, True, False, False, False, True, True, False, True]
    run = run_of(1e-2, rank=4, alpha=8.0, targets=("query",))
    other = run_of(1e-3, rank=2, alpha=8.0, targets=("query",))
    # The other run's checks get worse, so it keeps its first state.
    script = [(check, Check(0.9 - i / 10, 1.0)) for i, check in enumerate(checks)]
    state = started(pair, [run, other], scripted(*script))
    options = TrainingOptions(steps=9, batch_size=4, eval_every=1, target_score=0.55)
    at: list[dict[str, Tensor]] = []
    flags: dict[str, list[bool]] = {run.id: [], other.id: []}
    converged: dict[str, int | None] = {}
    for event in train(state, rows(40, 0), rows(10, 1), options, seed=0):
        if isinstance(event, Checked):
            flags[event.run].append(event.best)
            if event.run == run.id:
                at.append(state.pack.extract(state.parameters, 0))
        if isinstance(event, RunEnded):
            converged[event.run] = event.converged_step
    kept = {s.run.id: s for s in state.ended}
    assert flags == {run.id: best, other.id: [True, *[False] * 8]}
    assert kept[run.id].best_rank == rank_of(0.6, 4.9)
    assert kept[run.id].stale == 0
    assert kept[other.id].stale == 8
    assert converged == {run.id: 7, other.id: 1}
    assert all(torch.equal(tensor, at[8][name]) for name, tensor in kept[run.id].best.items())
    assert not torch.equal(at[8]["classifier.weight"], at[6]["classifier.weight"])


@pytest.mark.parametrize(
    ("checks", "kept", "steps"),
    [
        ([Check(0.5, 0.9), Check(0.5, 0.7), Check(0.5, 0.8), Check(0.5, 0.75), Check(0.5, 0.1)], 1, 4),
        ([Check(0.5, nan), Check(0.5, inf), Check(0.5, 3.0), Check(0.5, nan), Check(0.4, 0.0)], 2, 5),
        ([Check(0.5, nan), Check(0.5, inf), Check(0.5, nan), Check(0.9, 0.1), Check(0.9, 0.1)], 2, 3),
        ([Check(0.5, 0.7), Check(0.5, 0.7), Check(0.5, 0.7), Check(0.9, 0.1), Check(0.9, 0.1)], 2, 3),
    ],
)
def test_patience_counts_checks_since_the_last_improvement(
    pair: Pair, checks: list[Check], kept: int, steps: int
) -> None:
    """An equal check is kept, as the later state, but it is no improvement."""
    run = run_of(1e-2, rank=4, alpha=8.0, targets=("query",))
    state = started(pair, [run], scripted(*((check,) for check in checks)))
    options = TrainingOptions(steps=5, batch_size=4, eval_every=1, patience=2)
    events = train(state, rows(40, 0), rows(10, 1), options, seed=0)
    at = [state.pack.extract(state.parameters, 0) for event in events if isinstance(event, Checked)]
    (ended,) = state.ended
    assert (ended.steps, ended.status) == (steps, "early-stopped")
    assert all(torch.equal(tensor, at[kept][name]) for name, tensor in ended.best.items())


@pytest.mark.parametrize(("select_by", "kept"), [("accuracy", 1), ("loss", 2)])
def test_states_are_selected_by_the_option(pair: Pair, select_by: SelectBy, kept: int) -> None:
    checks = [Check(0.5, 0.9), Check(0.7, 0.8), Check(0.6, 0.3), Check(0.6, nan), Check(0.6, 0.4)]
    run = run_of(1e-2, rank=4, alpha=8.0, targets=("query",))
    state = started(pair, [run], scripted(*((check,) for check in checks)))
    options = TrainingOptions(steps=5, batch_size=4, eval_every=1, select_by=select_by)
    events, at = [], []
    for event in train(state, rows(40, 0), rows(10, 1), options, seed=0):
        if isinstance(event, Checked):
            events.append(event)
            at.append(state.pack.extract(state.parameters, 0))
    assert all(torch.equal(tensor, at[kept][name]) for name, tensor in state.ended[0].best.items())
    assert [i for i, event in enumerate(events) if event.best][-1] == kept
    values = [c.score for c in checks] if select_by == "accuracy" else [-0.9, -0.8, -0.3, -inf, -0.4]
    assert [event.value for event in events] == values


def test_macro_f1_selects_the_state_with_the_highest_f1_of_scikit_learn(pair: Pair) -> None:
    from sklearn.metrics import f1_score

    run = run_of(3e-2, rank=4, alpha=8.0, targets=("query",))
    state, validation = started(pair, [run], TASK), rows(60, 1)
    every = gather(validation.tokens, np.arange(60))
    options = TrainingOptions(steps=12, batch_size=4, eval_every=1, select_by="macro-f1")
    found: list[tuple[float, float, dict[str, Tensor]]] = []
    for event in train(state, rows(40, 0), validation, options, seed=0):
        if isinstance(event, Checked):
            predicted = state.program.logits(state.parameters)(every)[0].argmax(1)
            f1 = f1_score(validation.targets, predicted, average="macro", zero_division=0)
            assert event.value == pytest.approx(f1)
            assert event.score == pytest.approx((predicted == validation.targets).float().mean().item())
            found.append((f1, -event.loss, state.pack.extract(state.parameters, 0)))
    best = max(found, key=lambda check: check[:2])
    assert all(torch.equal(tensor, best[2][name]) for name, tensor in state.ended[0].best.items())
    assert len({f1 for f1, _, _ in found}) > 3


def test_a_check_is_the_tasks_accuracy_and_mean_loss(pair: Pair) -> None:
    run = run_of(1e-2, rank=4, alpha=8.0, targets=("query",))
    state, validation = started(pair, [run], TASK), rows(30, 1)
    every = gather(validation.tokens, np.arange(30))
    options = TrainingOptions(steps=4, batch_size=4, eval_every=2)
    seen = []
    for event in train(state, rows(40, 0), validation, options, seed=0):
        if isinstance(event, Checked):
            logits = state.program.logits(state.parameters)(every)[0]
            right = (logits.argmax(1) == validation.targets).float().mean()
            assert event.score == pytest.approx(right.item())
            assert event.loss == pytest.approx(F.cross_entropy(logits, validation.targets).item(), abs=1e-5)
            assert event.rows == 30
            seen.append(event.loss)
    assert len(set(seen)) == 2


@dataclass(frozen=True)
class Judge(SingleLabel):
    """Trains and checks as usual, with scripted scores on the whole validation split."""

    script: Iterator[Scores] = field(default_factory=lambda: iter(()))

    def score(self, logits: np.ndarray, targets: np.ndarray) -> Scores:
        return next(self.script)


@pytest.mark.parametrize(
    ("best", "last", "kept"),
    [
        ((0.7, 0.5), (0.7, 0.4), "last"),
        ((0.7, 0.4), (0.7, 0.5), "best"),
        ((0.7, 0.4), (0.7, 0.4), "last"),
        ((0.7, None), (0.7, 9.0), "last"),
        ((0.8, 9.0), (0.7, 0.1), "best"),
        ((0.7, 0.1), (0.8, 9.0), "last"),
    ],
)
def test_the_whole_validation_split_decides_between_best_and_last(
    pair: Pair, best: tuple[float, float | None], last: tuple[float, float | None], kept: str
) -> None:
    judged = [Scores({"accuracy": score}, {}, loss) for score, loss in (best, last)]
    assert kept_state(pair, judged, "accuracy") == kept


@pytest.mark.parametrize(
    ("select_by", "best", "last", "kept"),
    [
        ("accuracy", (0.8, 0.6, 0.5), (0.7, 0.7, 0.4), "best"),
        ("macro-f1", (0.8, 0.6, 0.4), (0.7, 0.7, 0.5), "last"),
        ("macro-f1", (0.7, 0.6, 0.4), (0.8, 0.6, 0.5), "best"),
        ("loss", (0.8, 0.6, 0.5), (0.7, 0.5, 0.4), "last"),
        ("loss", (0.7, 0.5, 0.4), (0.8, 0.6, 0.4), "last"),
    ],
)
def test_the_option_decides_on_the_whole_validation_split(
    pair: Pair,
    select_by: SelectBy,
    best: tuple[float, float, float],
    last: tuple[float, float, float],
    kept: str,
) -> None:
    judged = [Scores({"accuracy": score, "macro_f1": f1}, {}, loss) for score, f1, loss in (best, last)]
    assert kept_state(pair, judged, select_by) == kept


def kept_state(pair: Pair, judged: list[Scores], select_by: SelectBy) -> str:
    """Which state a run keeps, ``best`` or ``last``, if they have these scores on the whole validation split."""
    task = Judge(TASK.labels, script=iter(judged))
    run = run_of(1e-1, rank=4, alpha=8.0, targets=("query",))
    corpus = CorpusRows(rows(40, 0), rows(20, 1), rows(10, 1))
    encoder = CPU.load(pair.ours.weights, pair.ours.table, torch.float32)
    loaded = {"lora": Loaded(CPU, encoder, CPU.info(torch.float32))}
    # At this learning rate the last state is not the best one.
    options = TrainingOptions(steps=6, batch_size=4, eval_every=1, schedule="constant", select_by=select_by)
    lengths = TextLengths("model", max_length=40, longest=10, truncated=0)
    session = Session(pair.ours, loaded, corpus, lengths, task, options, "pooler", ComputeOptions(), memory=10**9)
    events: list[Event] = []
    (row,) = train_pack(session, [run], events.append)
    checks = [event for event in events if isinstance(event, Checked)]
    assert not checks[-1].best
    state = session.start([run])
    states: dict[str, dict[str, Tensor]] = {}
    for event in train(state, corpus.train, corpus.sample, options, run.seed):
        if isinstance(event, Checked):
            own = state.pack.extract(state.parameters, 0)
            states |= {"last": own} | ({"best": own} if event.best else {})
    assert not torch.equal(states["best"]["classifier.weight"], states["last"]["classifier.weight"])
    (kept,) = (
        name for name, own in states.items() if all(torch.equal(row.tensors[slot], own[slot]) for slot in row.tensors)
    )
    assert row.validation
    assert row.validation.values is judged[("best", "last").index(kept)].values
    return kept
