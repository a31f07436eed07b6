"""Loss and heads against torch; the interval against Wilson's formula worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from loralet.inference.evaluation import accuracy_and_loss, score
from loralet.models.head import cross_entropy, mean_over_tokens


def test_cross_entropy_is_torchs() -> None:
    torch.manual_seed(0)
    logits, labels = 5 * torch.randn(3, 40, 4), torch.randint(0, 4, (40,))
    ours = cross_entropy(logits, labels)
    for k in range(3):
        assert ours[k].item() == pytest.approx(F.cross_entropy(logits[k], labels).item(), abs=1e-6)
    accuracy, loss = accuracy_and_loss(logits, labels)
    assert accuracy == pytest.approx([(logits[k].argmax(-1) == labels).float().mean().item() for k in range(3)])
    assert loss == pytest.approx(ours.tolist())
    assert len(set(accuracy)) > 1


def test_interval_is_wilsons() -> None:
    labels = np.array([0] * 100)
    predicted = np.array([0] * 87 + [1] * 13)
    scores = score(predicted, labels, 2, None)
    p, n, z = 0.87, 100, 1.959963984540054
    middle, half = (
        (p + z * z / (2 * n)) / (1 + z * z / n),
        z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)),
    )
    assert scores.accuracy == 0.87
    assert scores.accuracy_low == pytest.approx(middle - half, abs=1e-9)
    assert scores.accuracy_high == pytest.approx(middle + half, abs=1e-9)


def test_macro_figures_count_an_absent_class_as_zero() -> None:
    scores = score(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 3, None)
    assert scores.macro_precision == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert scores.macro_recall == pytest.approx((1.0 + 2 / 3 + 0.0) / 3)


def test_mean_over_tokens_leaves_padding_out() -> None:
    states, lengths = torch.randn(2, 3, 5, 4), torch.tensor([5, 2, 1])
    ours = mean_over_tokens(states, lengths)
    for row, length in enumerate(lengths):
        assert torch.allclose(ours[:, row], states[:, row, :length].mean(1), atol=1e-6)
    assert not torch.allclose(ours[:, 1], states[:, 1].mean(1), atol=1e-3)
