"""Weighted products of the probabilities of two classifiers, and the choice of the weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

import numpy as np
from jaxtyping import Float, Int

from loralet.tasks.softmax import log_softmax

LARGEST_FACTOR = 20.0
"""Largest factor of the logarithms of one classifier in the search. Only separated rows would exceed it."""
SIGNIFICANT = 3.84
"""5 % critical value of the chi-squared distribution with one degree of freedom."""


@dataclass(frozen=True)
class Mixing:
    """How two classifiers are combined: probabilities are proportional to ``(p1^w p2^(1-w))^(1/T)``.

    A product of experts (Hinton 2002) with weights that sum to one.

    Args:
        weight: w, from 0 to 1.
        temperature: T.
    """

    weight: float = 1.0
    temperature: float = 1.0

    def problems(self) -> Iterator[str]:
        """Invalid values."""
        if not 0 <= self.weight <= 1:
            yield f"weight is {self.weight}: it must be from 0 to 1"
        if not 0 < self.temperature < inf:
            yield f"temperature is {self.temperature}: it must be finite and above 0"


@dataclass(frozen=True)
class Mixture:
    """The best weighted product on some rows.

    Args:
        weight: weight of the first classifier, from 0 to 1.
        temperature: temperature of the product with the lowest loss.
        loss: mean loss of the product with weight and temperature, in nats.
        first_loss: mean loss of the first classifier alone, with its own best temperature.
        rows: number of rows.
    """

    weight: float
    temperature: float
    loss: float
    first_loss: float
    rows: int

    @property
    def pays(self) -> bool:
        """Whether the second classifier lowers the loss significantly.

        Likelihood-ratio test at the 5 % level between nested models (Wilks 1938): twice the difference of the summed
        losses against chi-squared with one degree of freedom.
        """
        return 2 * self.rows * (self.first_loss - self.loss) > SIGNIFICANT


def mixed(
    first: Float[np.ndarray, "m c"], second: Float[np.ndarray, "m c"], mixing: Mixing
) -> Float[np.ndarray, "m c"]:
    """Logits of the combination of two classifiers.

    Args:
        first, second: logits of the two classifiers, for the same rows and classes.
        mixing: the weight of the first, and the temperature.
    """
    weight = mixing.weight
    found: np.ndarray = (weight * log_softmax(first) + (1 - weight) * log_softmax(second)) / mixing.temperature
    return found


def choose_weight(
    first: Float[np.ndarray, "m c"], second: Float[np.ndarray, "m c"], targets: Int[np.ndarray, "m"]
) -> Mixture:
    """The weight with the lowest mean loss, over all weights and temperatures.

    The temperature is part of the search because the two classifiers may have different confidence: without it, the
    weight would also have to correct the confidence. The loss is convex in ``w/T`` and ``(1-w)/T``.

    Args:
        first, second: logits of the two classifiers on rows that neither was trained on.
        targets: class numbers of the rows.
    """
    from scipy.optimize import minimize

    parts = np.stack([log_softmax(np.asarray(logits, np.float64)) for logits in (first, second)])
    rows = np.arange(len(targets))
    own = parts[:, rows, targets]

    def loss(factors: np.ndarray) -> tuple[float, np.ndarray]:
        logarithms = log_softmax(np.tensordot(factors, parts, 1))
        expected = np.einsum("mc,kmc->km", np.exp(logarithms), parts)
        return -float(logarithms[rows, targets].mean()), (expected - own).mean(1)

    limits = (0.0, LARGEST_FACTOR)
    alone = minimize(loss, [1.0, 0.0], jac=True, bounds=[limits, (0.0, 0.0)])
    both = minimize(loss, [0.5, 0.5], jac=True, bounds=[limits, limits])
    scale = float(both.x.sum())
    first_loss = float(alone.fun)
    if not scale or both.fun >= first_loss:
        temperature = 1 / max(float(alone.x[0]), 1 / LARGEST_FACTOR)
        return Mixture(1.0, temperature, first_loss, first_loss, len(rows))
    return Mixture(float(both.x[0]) / scale, 1 / scale, float(both.fun), first_loss, len(rows))
