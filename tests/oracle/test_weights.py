"""Weights of rows in the loss: compared with torch's cross-entropy and scikit-learn's class weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from backends import each_of_few
from hypothesis import given
from hypothesis import strategies as st
from models import CLASSES, Pair, make_pair
from programs import CPU, TASK, pack_for, run_of
from sklearn.utils.class_weight import compute_class_weight
from test_pack import rows
from tolerances import FP32, FP32_TRAINED
from torch import Tensor
from torch.nn import functional as F

from loralet.backends.base import Backend
from loralet.backends.batch import Batch
from loralet.config import TrainingOptions
from loralet.data.batches import gather
from loralet.errors import ConfigError
from loralet.runs.run import Run
from loralet.tasks.single_label import SingleLabel
from loralet.training.corpus import Rows
from loralet.training.loop import TrainingState, take_step, train
from loralet.training.weights import RowWeights, class_weights, row_weights, weights_by_label

# Long trainings, most of whose lines other tests cover too; measuring them takes half as long again.
pytestmark = pytest.mark.no_cover

WEIGHTS = tuple(0.25 * 3**i for i in range(CLASSES))
"""One weight per class, far apart."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("model"))


def started(pair: Pair, runs: list[Run], backend: Backend) -> TrainingState:
    encoder = backend.load(pair.ours.weights, pair.ours.table, torch.float32)
    return TrainingState.start(backend, encoder, TASK, pack_for(pair, runs), runs, 0.0)


def weighted(own: Rows, **weights: object) -> Rows:
    return replace(own, weights=row_weights(own.targets.numpy(), TASK, **weights))  # type: ignore[arg-type]


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_balanced_weights_are_those_of_scikit_learn(labels: list[int]) -> None:
    task, targets = SingleLabel(("a", "b", "c", "d")), np.array(labels)
    present = np.unique(targets)
    found = class_weights("balanced", targets, task)
    assert found is not None
    assert [found[i] for i in present] == compute_class_weight("balanced", classes=present, y=targets).tolist()
    assert [found[i] for i in range(4) if i not in present] == [1.0] * (4 - len(present))
    assert class_weights("none", targets, task) is None


@each_of_few
def test_class_weights_match_torch_cross_entropy(pair: Pair, backend: Backend) -> None:
    """Loss and gradient of a batch equal those of CrossEntropyLoss(weight=...), whose mean divides by the weights."""
    own, runs = rows(24, 0), [run_of(seed=i, rank=4, alpha=8.0, targets=("query", "output")) for i in range(2)]
    state = started(pair, runs, backend)
    batch = np.arange(4, 20)
    heavy = weighted(own, classes=WEIGHTS).weights.of(batch, [None, None])
    plain = gather(own.tokens, batch, own.targets)
    losses, gradient = state.program.losses_and_gradient(
        state.parameters, replace(plain, row_weights=heavy), TASK.row_losses
    )
    oracle = CPU.load(pair.ours.weights, pair.ours.table, torch.float32).program(state.pack)
    parameters = state.parameters.cpu().clone().requires_grad_()
    logits = oracle.differentiable_logits(parameters, plain)
    expected = torch.stack([F.cross_entropy(one, plain.targets, weight=torch.tensor(WEIGHTS)) for one in logits])
    (wanted,) = torch.autograd.grad(expected.sum(), parameters)
    assert (losses.cpu() - expected).abs().max() <= FP32
    assert (gradient.cpu() - wanted).abs().max() <= FP32
    unweighted, _ = state.program.losses_and_gradient(state.parameters, plain, TASK.row_losses)
    assert (losses - unweighted).abs().max() > 1e-2


def test_weights_of_rows_and_classes_are_multiplied() -> None:
    targets = np.arange(12) % CLASSES
    own = np.linspace(0, 2, 12)
    found = row_weights(targets, TASK, WEIGHTS, own).of(np.array([1, 5, 3]), [None])
    assert found is not None
    expected = (np.array(WEIGHTS)[targets] * own)[[1, 5, 3]]
    assert np.allclose(found[0] / found.sum(), expected / expected.sum(), atol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_scale_of_weights_does_not_matter(scale: float) -> None:
    targets = np.arange(12) % CLASSES
    small, usual = (row_weights(targets, TASK, rows=np.linspace(0.5, 2, 12) * s) for s in (scale, 1.0))
    shares = []
    for found in (small, usual):
        batch = gather(rows(12, 0).tokens, np.arange(12))
        shares.append(replace(batch, row_weights=found.of(np.arange(12), [None])).shares)
    assert torch.allclose(*shares)
    assert not torch.allclose(shares[0], torch.full((1, 12), 1 / 12))


def test_equal_weights_are_computed_as_no_weights() -> None:
    targets = np.arange(12) % CLASSES
    for found in (
        RowWeights(),
        row_weights(targets, TASK, (2.0,) * CLASSES),
        row_weights(targets, TASK, rows=np.ones(12)),
    ):
        assert found.of(np.arange(4), [None, None]) is None
    folds = np.arange(12) % 3
    assert row_weights(targets, TASK, folds=folds).of(np.arange(4), [None]) is None
    assert row_weights(targets, TASK, folds=folds).of(np.arange(4), [None, 1]).tolist() == [[1, 1, 1, 1], [1, 0, 1, 1]]


def folded(own: Rows, count: int) -> Rows:
    return weighted(own, folds=np.arange(len(own)) % count)


def runs_of(count: int) -> list[Run]:
    """A run on all rows, and one for each fold."""
    run = run_of(1e-2, rank=4, alpha=16.0, dropout=0.1, targets=("query", "value"))
    return [run, *(replace(run, id=f"{run.id}-fold{i + 1}", fold=i) for i in range(count))]


OPTIONS = TrainingOptions(steps=30, batch_size=8, eval_every=10, weight_decay=0.01)


def trained(pair: Pair, runs: list[Run], own: Rows, backend: Backend) -> dict[str, dict[str, Tensor]]:
    state = started(pair, runs, backend)
    for _ in train(state, own, rows(20, 1), OPTIONS, seed=5):
        pass
    assert {s.status for s in state.ended} == {"finished"}
    return {s.run.id: s.last for s in state.ended}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@each_of_few
def test_a_run_does_not_depend_on_the_labels_of_its_own_fold(pair: Pair, backend: Backend) -> None:
    own, runs = folded(rows(60, 0), 3), runs_of(3)
    held_out = torch.arange(60) % 3 == 1
    wrong = replace(own, targets=torch.where(held_out, (own.targets + 1) % CLASSES, own.targets))
    first, second = (trained(pair, runs, some, backend) for some in (own, wrong))
    assert [same(first[run.id], second[run.id]) for run in runs] == [run.fold == 1 for run in runs]


@each_of_few
def test_the_run_on_all_rows_is_that_of_a_training_without_folds(pair: Pair, backend: Backend) -> None:
    own, runs = rows(60, 0), runs_of(3)
    together, alone = trained(pair, runs, folded(own, 3), backend), trained(pair, runs[:1], own, backend)
    first, second = together[runs[0].id], alone[runs[0].id]
    assert max(float((first[name] - second[name]).abs().max()) for name in first) <= FP32_TRAINED
    assert not same(first, together[runs[1].id])


@each_of_few
def test_a_batch_without_weight_for_a_run_leaves_it_finite(pair: Pair, backend: Backend) -> None:
    """The loss is 0, the optimiser takes its step, and the other runs are trained as usual."""
    own = weighted(rows(16, 0), folds=np.arange(16) // 8)
    runs = runs_of(2)
    state = started(pair, runs, backend)
    before = state.parameters.clone()
    losses = take_step(state, own, np.arange(8), OPTIONS, 1.0)
    assert losses[1] == 0
    assert losses[0] == losses[2] > 0
    assert state.parameters.isfinite().all()
    assert torch.equal(state.parameters[1], before[1])
    assert not torch.equal(state.parameters[2], before[2])
    assert torch.equal(state.parameters[2], state.parameters[0])
    take_step(state, own, np.arange(8, 16), OPTIONS, 1.0)
    assert state.parameters.isfinite().all()
    assert not torch.equal(state.parameters[1], before[1])


def test_class_weights_are_read_by_label(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text(json.dumps({"b": 2, "a": 0.5}), encoding="utf-8")
    assert class_weights(str(path), np.array([0, 1]), SingleLabel(("a", "b"))) == (0.5, 2.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1}', ["label 'b' has no weight"]),
        ('{"a": 1, "b": 1, "c": 1}', ["'c' is not a label of the data; its labels are 'a', 'b'"]),
        ('{"A": 1, "b": 0}', ["'A' is not a label", "label 'a' has no weight", "the weight of 'b' is 0: it must be"]),
        ('{"a": -1, "b": true}', ["the weight of 'a' is -1", "the weight of 'b' is True"]),
        ('{"a": NaN, "b": Infinity}', ["the weight of 'a' is nan", "the weight of 'b' is inf"]),
        (f'{{"a": 1, "b": 1{"0" * 400}}}', ["the weight of 'b' is 1000"]),
        ('{"a": "1", "b": null}', ["the weight of 'a' is '1'", "the weight of 'b' is None"]),
        ('{"a": 1, "a": 2, "b": 1}', ["not valid JSON ('a' occurs more than once)"]),
        ("[1, 2]", ['not an object; write {"label": weight, ...}']),
        ("{", ["not valid JSON"]),
    ],
)
def test_problems_of_a_file_of_weights_are_reported(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "weights.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        class_weights(str(path), np.array([0, 1]), SingleLabel(("a", "b")))
    for part in (f"--class-weight {path}: ", *words):
        assert part in str(caught.value)


def test_a_file_of_weights_that_is_missing_or_no_text_is_reported(tmp_path: Path) -> None:
    task = SingleLabel(("a", "b"))
    with pytest.raises(ConfigError, match=r"--class-weight blanced: no such file; give none, balanced, or a JSON file"):
        class_weights("blanced", np.array([0, 1]), task)
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        class_weights(str(tmp_path), np.array([0, 1]), task)
    (tmp_path / "a.json").write_bytes(b'{"caf\xe9": 1}')
    with pytest.raises(ConfigError, match="not valid JSON"):
        class_weights(str(tmp_path / "a.json"), np.array([0, 1]), task)


def test_weights_are_in_the_order_of_the_labels() -> None:
    assert weights_by_label({"b": 2, "a": 1}, ("a", "b"), "x") == (1.0, 2.0)
    assert weights_by_label({"b": 2, "a": 1}, ("b", "a"), "x") == (2.0, 1.0)


def test_a_part_of_a_batch_keeps_the_weights_of_the_whole_batch() -> None:
    whole = replace(gather(rows(6, 0).tokens, np.arange(6)), row_weights=torch.tensor([[1.0, 0, 2, 0, 0, 1]]))
    assert isinstance(whole, Batch)
    assert whole.shares.tolist() == [[0.25, 0, 0.5, 0, 0, 0.25]]
