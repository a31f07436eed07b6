"""The weighted product of two classifiers, and the choice of its weight, against torch and a grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from loralet.tasks.mixing import LARGEST_FACTOR, SIGNIFICANT, Mixing, Mixture, choose_weight, mixed

GRID = np.linspace(0, 1, 101)
SCALES = np.geomspace(0.05, 20, 200)


def experts(rows: int = 400, classes: int = 3, noise: tuple[float, float] = (1.0, 1.5), seed: int = 0):
    """Logits of two classifiers with independent errors, and the targets."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, classes, rows)
    truth = np.eye(classes)[targets]
    first, second = (truth + sigma * generator.normal(size=truth.shape) for sigma in noise)
    return first.astype(np.float32), second.astype(np.float32), targets


def torch_loss(first: np.ndarray, second: np.ndarray, targets: np.ndarray, weight: float, factor: float) -> float:
    a, b = (torch.from_numpy(x).double().log_softmax(1) for x in (first, second))
    return float(F.cross_entropy(factor * (weight * a + (1 - weight) * b), torch.from_numpy(targets)))


@pytest.mark.parametrize(("weight", "temperature"), [(0.3, 1.0), (1.0, 1.0), (0.0, 1.0), (0.6, 2.5)])
def test_the_product_is_proportional_to_the_weighted_probabilities(weight: float, temperature: float) -> None:
    first, second, _ = experts(20)
    p, q = (F.softmax(torch.from_numpy(x), 1).numpy() for x in (first, second))
    wanted = (p**weight * q ** (1 - weight)) ** (1 / temperature)
    wanted /= wanted.sum(1, keepdims=True)
    found = F.softmax(torch.from_numpy(mixed(first, second, Mixing(weight, temperature))), 1).numpy()
    assert np.abs(found - wanted).max() <= 1e-6
    assert np.abs(found - (q if weight > 0.5 else p)).max() > 1e-2
    assert mixed(first, second, Mixing(weight)).dtype == np.float32


def test_logits_of_any_offset_give_the_same_product() -> None:
    first, second, _ = experts(20)
    moved = mixed(first + 7, second - 3, Mixing(0.4))
    assert np.abs(moved - mixed(first, second, Mixing(0.4))).max() <= 1e-5


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_the_weight_is_the_best_of_all_weights_and_temperatures(scale: float) -> None:
    """Also if one classifier is too confident, which the temperature and the weight correct together."""
    first, second, targets = experts()
    found = choose_weight(scale * first, second, targets)
    losses = {
        (weight, factor): torch_loss(scale * first, second, targets, weight, factor)
        for weight in GRID
        for factor in SCALES
    }
    weight, factor = min(losses, key=losses.__getitem__)
    assert found.weight == pytest.approx(weight, abs=0.01)
    assert 1 / found.temperature == pytest.approx(factor, rel=0.04)
    assert found.loss <= losses[weight, factor] + 1e-6
    own = torch_loss(scale * first, second, targets, found.weight, 1 / found.temperature)
    assert found.loss == pytest.approx(own, abs=1e-6)
    alone = min(torch_loss(scale * first, second, targets, 1.0, factor) for factor in SCALES)
    assert found.first_loss == pytest.approx(alone, abs=1e-4)
    assert 0.2 * scale**-1 < found.weight < 0.9
    assert found.rows == 400
    assert found.pays


def test_the_product_is_better_than_both() -> None:
    first, second, targets = experts(4000)
    found = choose_weight(first[:2000], second[:2000], targets[:2000])
    accuracy = {
        weight: (mixed(first[2000:], second[2000:], Mixing(weight)).argmax(1) == targets[2000:]).mean()
        for weight in (0.0, found.weight, 1.0)
    }
    assert accuracy[found.weight] > max(accuracy[0.0], accuracy[1.0]) + 0.02


def test_a_classifier_without_information_does_not_pay() -> None:
    kept = 0
    for seed in range(20):
        first, _, targets = experts(300, seed=seed)
        noise = np.random.default_rng(100 + seed).normal(size=first.shape).astype(np.float32)
        found = choose_weight(first, noise, targets)
        assert found.loss <= found.first_loss
        kept += found.pays
    assert kept <= 3  # a test at the 5 % level
    assert choose_weight(first, first[::-1].copy(), targets).weight > 0.9


def test_the_second_alone_may_be_best() -> None:
    first, second, targets = experts(noise=(30.0, 0.5))
    found = choose_weight(first, second, targets)
    assert found.weight < 0.05
    assert found.pays


def test_separated_rows_do_not_pay_and_are_finite() -> None:
    targets = np.array([0, 1, 0, 1])
    sure = 4 * np.eye(2, dtype=np.float32)[targets]
    found = choose_weight(sure, sure, targets)
    assert not found.pays
    assert found.temperature >= 1 / LARGEST_FACTOR
    assert np.isfinite([found.loss, found.weight]).all()
    useless = choose_weight(-sure, -sure, targets)
    assert useless.weight == 1.0
    assert not useless.pays
    assert useless.temperature == LARGEST_FACTOR


def test_the_test_is_that_of_the_likelihood_ratio() -> None:
    from scipy.stats import chi2

    assert pytest.approx(chi2.ppf(0.95, 1), abs=2e-3) == SIGNIFICANT
    gain = SIGNIFICANT / 2 / 100
    assert Mixture(0.5, 1.0, 1.0, 1.0 + 1.01 * gain, 100).pays
    assert not Mixture(0.5, 1.0, 1.0, 1.0 + 0.99 * gain, 100).pays
