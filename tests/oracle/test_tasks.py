"""Tasks: single-label loss compared with torch, scores in JSON, and a regression trained by the same loop."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import CLASSES, Pair, make_pair
from programs import CPU, TASK, run_of
from safetensors.numpy import save_file
from tolerances import FP32, FP32_TRAINED
from torch import Tensor
from torch.nn import functional as F

from loralet.adapters.dropout import Dropout
from loralet.backends.batch import Batch
from loralet.config import TrainingOptions
from loralet.data.batches import BatchOrder, gather
from loralet.data.columns import memory_dataset, text_column
from loralet.data.tokens import Tokens
from loralet.events import Checked, Event, RunEnded
from loralet.runs.folder import PREDICTIONS, TARGETS, read_predictions
from loralet.runs.selection import rank_of
from loralet.tasks.base import BaselineKind, Check, RawLabels, Scores, Task
from loralet.tasks.labels import LabelType
from loralet.tasks.registry import TASKS
from loralet.tasks.single_label import SingleLabel
from loralet.training.corpus import Rows
from loralet.training.halving import Exits
from loralet.training.loop import TrainingState, train
from loralet.training.optimizer import schedule
from loralet.training.packs import build_pack, resolved


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("model"))


def random_logits(
    k: int, b: int, c: int, dtype: torch.dtype = torch.float64, size: float = 3.0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(k + 10 * b + 100 * c)
    logits = size * torch.randn(k, b, c, generator=generator, dtype=torch.float64)
    return logits.to(dtype), torch.randint(0, c, (b,), generator=generator)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [0.1, 3.0, 1e3])
@pytest.mark.parametrize(("k", "b", "c"), [(1, 1, 2), (3, 7, 4), (2, 5, 40)])
def test_row_losses_match_torch_cross_entropy(k: int, b: int, c: int, size: float, dtype: torch.dtype) -> None:
    task = SingleLabel(tuple(map(str, range(c))))
    logits, targets = random_logits(k, b, c, dtype, size)
    close = 1e-12 if dtype == torch.float64 else 1e-6
    given, kept = logits.clone(), targets.clone()
    losses, gradient = task.row_losses(logits, targets)
    leaf = logits.clone().requires_grad_()
    expected = torch.stack([F.cross_entropy(own, targets, reduction="none") for own in leaf])
    (wanted,) = torch.autograd.grad(expected.sum(), leaf)
    assert (losses.shape, gradient.shape) == ((k, b), (k, b, c))
    assert (losses.dtype, gradient.dtype) == (dtype, dtype)
    assert (losses - expected.detach()).abs().max() <= close * max(1.0, size)
    assert (gradient - wanted).abs().max() <= close
    assert wanted.abs().max() > 1e-3
    assert torch.equal(logits, given)
    assert torch.equal(targets, kept)


def test_the_gradient_matches_finite_differences() -> None:
    """Central differences in float64, as in torch's gradcheck."""
    logits, targets = random_logits(2, 3, 4)
    _, gradient = TASK.row_losses(logits, targets)
    step = 1e-6
    for place in np.ndindex(*logits.shape):
        higher, lower = logits.clone(), logits.clone()
        higher[place] += step
        lower[place] -= step
        difference = (TASK.row_losses(higher, targets)[0] - TASK.row_losses(lower, targets)[0])[place[:2]] / (2 * step)
        assert gradient[place].item() == pytest.approx(difference.item(), abs=1e-8)


class CrossEntropy(torch.autograd.Function):
    """The task's loss as a differentiable function, for torch.autograd.gradcheck."""

    @staticmethod
    def forward(ctx: object, logits: Tensor, targets: Tensor) -> Tensor:
        losses, gradient = TASK.row_losses(logits, targets)
        ctx.save_for_backward(gradient)  # type: ignore[attr-defined]
        return losses

    @staticmethod
    def backward(ctx: object, above: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return above[..., None] * gradient, None


def test_the_gradient_passes_torchs_gradcheck() -> None:
    logits, targets = random_logits(2, 5, CLASSES)
    assert torch.autograd.gradcheck(CrossEntropy.apply, (logits.requires_grad_(), targets))


def test_a_check_gives_accuracy_and_mean_loss_per_adapter() -> None:
    logits, targets = random_logits(3, 50, CLASSES, torch.float32)
    checks = TASK.check(logits.numpy(), targets.numpy())
    assert len(checks) == 3
    for check, own in zip(checks, logits, strict=True):
        assert check.score == pytest.approx((own.argmax(1) == targets).float().mean().item())
        assert check.loss == pytest.approx(F.cross_entropy(own, targets).item(), abs=1e-6)
        scores = TASK.score(own.numpy(), targets.numpy())
        assert (scores["accuracy"], scores.loss) == (pytest.approx(check.score), pytest.approx(check.loss))


NAMES = st.sampled_from(["accuracy", "macro_f1", "mse", "pearson", "recall at 5", "low", "loss_of_x"])
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(
    values=st.dictionaries(NAMES, NUMBERS, min_size=1),
    ends=st.dictionaries(NAMES, st.tuples(NUMBERS, NUMBERS)),
    loss=st.one_of(st.none(), NUMBERS),
)
def test_scores_round_trip_through_json(
    values: dict[str, float], ends: dict[str, tuple[float, float]], loss: float | None
) -> None:
    scores = Scores(values, {name: pair for name, pair in ends.items() if name in values}, loss)
    flat = json.loads(json.dumps(scores.to_json()))
    back = Scores.from_json(flat)
    assert back == scores
    assert list(back.values) == list(scores.values)
    assert flat["loss"] == loss
    assert len(flat) == 1 + len(scores.values) + 2 * len(scores.intervals)


def test_the_scores_of_the_task_round_trip_through_json() -> None:
    logits, targets = random_logits(1, 50, CLASSES, torch.float32)
    for scores in (
        TASK.score(logits[0].numpy(), targets.numpy()),
        TASK.score((logits[0] * torch.nan).numpy(), targets.numpy()),
        TASK.score_predictions(logits[0].argmax(1).numpy(), targets.numpy()),
    ):
        assert Scores.from_json(json.loads(json.dumps(scores.to_json()))) == scores
        assert tuple(scores.values) == TASK.metrics
        assert TASK.metrics[0] == TASK.selection
        assert scores.intervals["accuracy"][0] < scores["accuracy"] < scores.intervals["accuracy"][1]
    with pytest.raises(ValueError, match="accuracy has no value"):
        Scores.from_json({"accuracy": None, "loss": 0.1})


def test_the_registry_creates_every_task_from_its_labels() -> None:
    assert list(TASKS) == ["single-label"]
    for name, kind in TASKS.items():
        task = kind(("a", "b", "c"))
        assert (task.name, task.labels) == (name, ("a", "b", "c"))
        assert task.metrics[0] == task.selection
        assert task.outputs == 3
        assert task.decode([0.1, 0.7, 0.2]) == "b"


@dataclass(frozen=True)
class Regression:
    """Mean squared error of one output. The score is the negative error, so higher is better."""

    labels: tuple[str, ...] = ("value",)
    values: tuple[str, ...] = ("value",)
    label_type: LabelType = "float"
    name = "regression"
    problem_type = "regression"
    selection = "negative_mse"
    metrics = ("negative_mse",)
    outputs = 1

    def baselines(self) -> Sequence[BaselineKind]:
        return ()

    def encode(self, raw: RawLabels) -> np.ndarray:
        return np.asarray(raw.values.to_pylist(), np.float32)

    def encode_other(self, parts: Sequence[RawLabels], indices: bool = False) -> list[np.ndarray]:
        return [self.encode(raw) for raw in parts]

    def require_trainable(self, source: str, targets: np.ndarray) -> None:
        pass

    def strata(self, targets: np.ndarray) -> np.ndarray:
        return (targets > np.median(targets)).astype(np.int64)

    def row_losses(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        apart = logits[..., 0] - targets
        return apart**2, 2 * apart[..., None]

    def check(self, logits: np.ndarray, targets: np.ndarray) -> list[Check]:
        return [Check(-error, error) for error in ((logits[..., 0] - targets) ** 2).mean(-1).tolist()]

    def score(self, logits: np.ndarray, targets: np.ndarray) -> Scores:
        return self.score_predictions(logits[:, 0], targets)

    def score_predictions(self, predicted: np.ndarray, targets: np.ndarray) -> Scores:
        error = float(((predicted - targets) ** 2).mean())
        return Scores({"negative_mse": -error}, {}, error)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        return logits

    def predicted(self, scores: np.ndarray) -> np.ndarray:
        return scores[:, 0]

    def average(self, logits: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(list(logits)).mean(0)

    def decode(self, probabilities: Sequence[float]) -> str:
        return f"{probabilities[0]:.2f}"

    def prediction_problems(
        self, targets: np.ndarray, probabilities: Mapping[str, np.ndarray], predicted: Mapping[str, np.ndarray]
    ) -> Iterator[str]:
        return iter(())


def test_saved_predictions_are_read_as_the_task_decodes_them(tmp_path: Path) -> None:
    """Classes are the columns with the highest probability; values are the outputs themselves."""
    scores = np.array([[0.2, 0.8], [0.7, 0.3]])
    save_file({TARGETS: np.zeros(2, np.int64), "run": scores}, tmp_path / PREDICTIONS)
    assert read_predictions(tmp_path, SingleLabel(("a", "b")))[2]["run"].tolist() == [1, 0]
    assert read_predictions(tmp_path, Regression())[2]["run"].tolist() == [0.2, 0.7]


def test_rows_given_in_python_keep_their_task() -> None:
    assert isinstance(memory_dataset(text_column(["a", "b"]), np.zeros(2), Regression()).task, Regression)


def valued_rows(count: int, seed: int) -> Rows:
    """Random rows of tokens of two kinds; the kind determines the target, -1 or 2."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, 10, count)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    high = generator.integers(0, 2, count)
    ids = generator.integers(0, 6, starts[-1]) + np.repeat(np.where(high, 10, 60), lengths)
    values = high.astype(np.float32) * 3 - 1
    return Rows(Tokens(ids.astype(np.int32), starts), torch.from_numpy(values))


RUNS = [
    run_of(1e-2, 0, rank=4, alpha=8.0, targets=("query", "output")),
    run_of(1e-2, 1, rank=0),
    run_of(3e-3, 2, rank=8, alpha=8.0, dropout=0.2, targets=("value",)),
]


def regression(pair: Pair, head_dropout: float = 0.1) -> TrainingState:
    runs, table = [resolved(run, pair.ours.table) for run in RUNS], pair.ours.table
    pack = build_pack(runs, table, Regression().outputs, "pooler", head_dropout)
    encoder = CPU.load(pair.ours.weights, table, torch.float32)
    task: Task = Regression()
    return TrainingState.start(CPU, encoder, task, pack, runs, 0.01)


def test_the_loop_trains_a_task_of_another_kind(pair: Pair) -> None:
    """The loop does not depend on classes: it minimises the task's loss and keeps the state with the best score."""
    train_rows, validation = valued_rows(80, 0), valued_rows(40, 1)
    state = regression(pair)
    options = TrainingOptions(steps=150, batch_size=16, eval_every=10, target_score=-0.5)
    checks: dict[str, list[Checked]] = {run.id: [] for run in RUNS}
    ended: list[RunEnded] = []
    event: Event
    for event in train(state, train_rows, validation, options, 0, Exits(target=-0.2)):
        if isinstance(event, Checked):
            checks[event.run].append(event)
        if isinstance(event, RunEnded):
            ended.append(event)
    assert {event.run: event.status for event in ended} == {
        RUNS[0].id: "early-stopped",
        RUNS[1].id: "finished",
        RUNS[2].id: "early-stopped",
    }
    for s in state.ended:
        own = checks[s.run.id]
        assert s.best_rank == max(rank_of(check.score, check.loss) for check in own)
        assert all(check.score == -check.loss for check in own)
        reached = [check.step for check in own if check.score >= -0.5]
        assert s.converged_step == (reached[0] if reached else None)
        assert own[0].score < -2.0
    assert all(s.best_rank and s.best_rank[0] > -0.2 for s in state.ended if s.status == "early-stopped")
    assert float(validation.targets.var()) > 2.0


def test_the_steps_of_another_task_match_torch(pair: Pair) -> None:
    """Compared with torch's AdamW, gradient clipping and autograd through F.mse_loss, run by run."""
    data, steps, clip = valued_rows(50, 2), 12, 0.5
    state = regression(pair)
    pack, start = state.pack, state.parameters.clone()
    options = TrainingOptions(steps=steps, batch_size=8, eval_every=100, clip=clip, weight_decay=0.01)
    for _ in train(state, data, valued_rows(10, 3), options, 4):
        pass
    order = BatchOrder(data.tokens.lengths, 8, 4)
    decay = pack.decay(0.01)
    program = CPU.load(pair.ours.weights, pair.ours.table, torch.float32).program(pack)
    for i, run in enumerate(RUNS):
        parts = [(start[i, decay > 0].clone(), 0.01), (start[i, decay == 0].clone(), 0.0)]
        leaves = [values.requires_grad_() for values, _ in parts]
        groups = [{"params": [leaf], "weight_decay": d} for leaf, (_, d) in zip(leaves, parts, strict=True)]
        theirs = torch.optim.AdamW(groups, lr=1.0)
        for step in range(steps):
            batch = gather(data.tokens, order.at(step), data.targets)
            whole = start[i].index_put((decay > 0,), leaves[0]).index_put((decay == 0,), leaves[1])
            matrix = start.index_put((torch.tensor(i),), whole)
            assert batch.targets is not None
            predicted = program.differentiable_logits(matrix, batch, step)[i, :, 0]
            theirs.zero_grad()
            F.mse_loss(predicted, batch.targets).backward()
            torch.nn.utils.clip_grad_norm_(leaves, clip)
            for group in theirs.param_groups:
                group["lr"] = run.lr * schedule(options.schedule, step, steps, options.warmup)
            theirs.step()
        whole = start[i].index_put((decay > 0,), leaves[0]).index_put((decay == 0,), leaves[1]).detach()
        wanted = pack.extract(start.index_put((torch.tensor(i),), whole), i)
        learned = next(s.last for s in state.ended if s.run.id == run.id)
        for name, tensor in wanted.items():
            assert (learned[name] - tensor).abs().max() <= 5 * FP32_TRAINED, name
        assert max((tensor - pack.extract(start, i)[name]).abs().max() for name, tensor in wanted.items()) > 1e-3


def test_the_losses_of_another_task_match_torch(pair: Pair) -> None:
    """Row losses, row weights and gradient compared with torch, with and without dropout, in one part and in two."""
    state, data = regression(pair), valued_rows(20, 5)
    batch: Batch = gather(data.tokens, np.arange(20), data.targets)
    parameters = state.parameters + 0.1 * torch.randn(
        state.parameters.shape, generator=torch.Generator().manual_seed(0)
    )
    for step in (None, 3):
        leaf = parameters.clone().requires_grad_()
        logits = state.program.differentiable_logits(leaf, batch, step)  # type: ignore[attr-defined]
        expected = ((logits[..., 0] - data.targets) ** 2).mean(1)
        (wanted,) = torch.autograd.grad(expected.sum(), leaf)
        for parts in (1, 2):
            state.program.parts = parts  # type: ignore[attr-defined]
            losses, gradient = state.program.losses_and_gradient(parameters, batch, Regression().row_losses, step)
            assert (losses - expected.detach()).abs().max() <= FP32 * expected.detach().abs().max()
            assert (gradient - wanted).abs().max() <= FP32 * wanted.abs().max()
    assert Dropout(pair.ours.table, state.pack.adapters, 0, 0.1).applies("layers.0.value")


def test_a_registered_task_is_found_by_an_artifact(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    from test_adapters import RUNS as ADAPTERS
    from test_adapters import trained

    from loralet.artifacts.artifact import read_description

    monkeypatch.setitem(TASKS, "regression", Regression)
    _, _, artifact = trained(pair, ADAPTERS["probe"], "pooler")
    described: Mapping[str, object] = artifact.describe() | {"task": "regression", "labels": ["value"]}
    read = read_description(json.loads(json.dumps(described)))
    assert isinstance(read.as_task(), Regression)
    assert read.as_task().labels == ("value",)
    monkeypatch.delitem(TASKS, "regression")
    with pytest.raises(ValueError, match="task is 'regression'"):
        read_description(json.loads(json.dumps(described)))
