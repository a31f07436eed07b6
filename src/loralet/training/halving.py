"""Rules that stop runs early, as pure functions of the last check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from loralet.events import Checked
from loralet.ranking import rank_of

RUNGS = (1 / 8, 1 / 4, 1 / 2)
"""Fractions of the steps after which the worse half of the runs leaves.

Each rung doubles the steps and halves the runs (Jamieson and Talwalkar 2016, section 3).
"""


@dataclass(frozen=True)
class Exits:
    """Exit conditions of a pack other than patience.

    Args:
        rungs: steps after which the worse half of the LoRA runs leaves.
        target: score on the validation sample at which a run leaves; None: disabled.
    """

    rungs: tuple[int, ...] = ()
    target: float | None = None


def rungs_of(steps: int) -> tuple[int, ...]:
    """The rungs of a training of ``steps`` steps; a short training has fewer distinct rungs."""
    return tuple(sorted({ceil(share * steps) for share in RUNGS} - {steps}))


def ranking(checks: Sequence[Checked]) -> list[Checked]:
    """The checks of one step, best first (:func:`loralet.ranking.rank_of`); ties keep the order of the pack."""
    return sorted(checks, key=lambda check: rank_of(check.value, check.loss), reverse=True)


def halve(checks: Sequence[Checked]) -> tuple[list[Checked], int]:
    """Rank checks, best first, and return the number of runs that continue: half, rounded up.

    Args:
        checks: checks of the competing runs at one step.
    """
    return ranking(checks), ceil(len(checks) / 2)


def has_enough(check: Checked, stale: int, patience: int | None, exits: Exits) -> bool:
    """Whether a run stops early, because its patience is exhausted or because it reached the target.

    Args:
        check: the last check.
        stale: number of checks since the best check.
        patience: number of stale checks after which a run stops; None: unlimited.
        exits: exit conditions with the target.
    """
    return (patience is not None and stale >= patience) or (exits.target is not None and check.score >= exits.target)
