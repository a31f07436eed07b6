"""The order of candidates: checks, states, runs and configurations."""

from __future__ import annotations

from math import inf, isfinite

Rank = tuple[float, float, int]


def rank_of(score: float, loss: float | None, parameters: int = 0) -> Rank:
    """Sort key of a candidate; a better candidate has a larger key.

    Args:
        score: the selection metric on validation rows; higher is better.
        loss: mean validation loss; None or not finite counts as the worst.
        parameters: trained parameters.
    """
    return score, -loss if loss is not None and isfinite(loss) else -inf, -parameters
