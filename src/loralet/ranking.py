"""The order of candidates: checks, states, runs and configurations."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from typing import Literal

SelectBy = Literal["accuracy", "macro-f1", "loss"]
LOSS = "loss"
"""The selection that is not a metric of a task."""

NAMES = {"macro_f1": "macro F1"}
"""Names of selections in texts, if they differ from the selection."""

Rank = tuple[float, float, int]


def rank_of(score: float, loss: float | None, parameters: int = 0) -> Rank:
    """Sort key of a candidate; a better candidate has a larger key.

    Of two states of a run with equal keys, the later one is better: it was trained for longer.

    Args:
        score: the value that selects (:func:`selected_value`) on validation rows; higher is better.
        loss: mean validation loss; None or not finite counts as the worst.
        parameters: trained parameters.
    """
    return score, _negative(loss), -parameters


def selected_value(values: Mapping[str, float], loss: float | None, selection: str) -> float:
    """The value that selects among candidates; higher is better.

    Args:
        values: metrics by name.
        loss: mean loss.
        selection: name of a metric, or ``loss`` for the negative loss.
    """
    return _negative(loss) if selection == LOSS else values[selection]


def _negative(loss: float | None) -> float:
    return -loss if loss is not None and isfinite(loss) else -inf
