"""Losses and pooling compared with torch, the interval with Wilson's formula, macro scores with hand calculation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from loralet.models.heads import mean_over_tokens
from loralet.tasks.base import Scores
from loralet.tasks.single_label import SingleLabel


def task(classes: int) -> SingleLabel:
    return SingleLabel(tuple(map(str, range(classes))))


def test_cross_entropy_matches_torch() -> None:
    torch.manual_seed(0)
    logits, labels = 5 * torch.randn(3, 40, 4), torch.randint(0, 4, (40,))
    leaf = logits.clone().requires_grad_()
    theirs = torch.stack([F.cross_entropy(leaf[k], labels, reduction="none") for k in range(3)])
    theirs.sum().backward()
    losses, gradient = task(4).row_losses(logits, labels)
    assert torch.allclose(losses, theirs.detach(), atol=1e-6)
    assert leaf.grad is not None
    assert torch.allclose(gradient, leaf.grad, atol=1e-6)
    checks = task(4).check(logits.numpy(), labels.numpy())
    assert [check.loss for check in checks] == pytest.approx(losses.mean(-1).tolist())
    scores = [check.score for check in checks]
    assert scores == pytest.approx([(logits[k].argmax(-1) == labels).float().mean().item() for k in range(3)])
    assert len(set(scores)) > 1


def test_a_score_and_a_check_agree() -> None:
    torch.manual_seed(1)
    logits, labels = torch.randn(50, 3), torch.randint(0, 3, (50,))
    (check,) = task(3).check(logits[None].numpy(), labels.numpy())
    scores = task(3).score(logits.numpy(), labels.numpy())
    assert (scores["accuracy"], scores.loss) == pytest.approx((check.score, check.loss))
    assert scores.loss == pytest.approx(F.cross_entropy(logits, labels).item(), abs=1e-6)
    plain = task(3).score_predictions(logits.argmax(-1).numpy(), labels.numpy())
    assert plain == Scores(scores.values, scores.intervals, None)


def test_the_interval_is_that_of_wilson() -> None:
    labels = np.array([0] * 100)
    predicted = np.array([0] * 87 + [1] * 13)
    scores = task(2).score_predictions(predicted, labels)
    p, n, z = 0.87, 100, 1.959963984540054
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert scores["accuracy"] == 0.87
    low, high = scores.intervals["accuracy"]
    assert low == pytest.approx(middle - half, abs=1e-9)
    assert high == pytest.approx(middle + half, abs=1e-9)


@pytest.mark.parametrize(
    ("predicted", "targets"),
    [
        ([0, 0, 1, 1], [0, 0, 1, 1]),
        ([0, 0, 1, 1], [0, 1, 1, 1]),
        ([0, 0, 3, 1], [0, 1, 1, 2]),
        ([2, 2, 2], [3, 3, 3]),
    ],
)
def test_macro_scores_are_those_of_scikit_learn(predicted: list[int], targets: list[int]) -> None:
    """With its default labels: those among targets or predictions."""
    from sklearn.metrics import f1_score, precision_score, recall_score

    scores = task(5).score_predictions(np.array(predicted), np.array(targets))
    for name, theirs in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        wanted = theirs(targets, predicted, average="macro", zero_division=0)
        assert scores[f"macro_{name}"] == pytest.approx(wanted), name
    assert scores["accuracy"] == np.mean(np.array(predicted) == targets)


def test_perfect_predictions_of_a_split_without_one_class_have_a_macro_f1_of_1() -> None:
    labels = np.array([0, 1, 1, 0])
    assert [task(3).score_predictions(labels, labels)[name] for name in SingleLabel.metrics] == [1.0] * 4
    # A class that is predicted, but has no rows, counts as 0.
    assert task(3).score_predictions(np.array([0, 1, 1, 2]), labels)["macro_f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_scores_round_trip_through_json() -> None:
    scores = task(3).score_predictions(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))
    flat = scores.to_json()
    assert list(flat)[:3] == ["accuracy", "accuracy_low", "accuracy_high"]
    assert flat["loss"] is None
    assert Scores.from_json(flat) == scores
    # validation scores of version 0.1: no interval, fewer metrics
    assert Scores.from_json({"accuracy": 0.5, "macro_f1": 0.4, "loss": 0.7}) == Scores(
        {"accuracy": 0.5, "macro_f1": 0.4}, {}, 0.7
    )
    with pytest.raises(ValueError, match="macro_f1 has no value"):
        Scores.from_json({"accuracy": 0.5, "macro_f1": None, "loss": 0.7})


def test_mean_over_tokens_excludes_padding() -> None:
    states, lengths = torch.randn(2, 3, 5, 4), torch.tensor([5, 2, 1])
    ours = mean_over_tokens(states, lengths)
    for row, length in enumerate(lengths):
        assert torch.allclose(ours[:, row], states[:, row, :length].mean(1), atol=1e-6)
    assert not torch.allclose(ours[:, 1], states[:, 1].mean(1), atol=1e-3)


def test_probabilities_of_logits_that_are_not_finite_are_not_finite() -> None:
    """Without a warning: a diverged run has such logits."""
    logits = np.array([[np.nan, 0.0, 1.0], [0.0, 1.0, 2.0]], np.float32)
    for found in (task(3).probabilities(logits), np.exp(task(3).average([logits, logits]))):
        assert np.isnan(found[0]).all()
        assert found[1] == pytest.approx(torch.softmax(torch.tensor(logits[1]), 0).numpy(), abs=1e-6)
