"""Which runs leave a pack before its end: pure functions of what the last check found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from loralet.events import Checked
from loralet.runs.selection import rank_of

RUNGS = (1 / 8, 1 / 4, 1 / 2)
"""Shares of the steps after which the worse half leaves: each rung doubles the steps and halves the runs (Jamieson and Talwalkar 2016, section 3)."""


@dataclass(frozen=True)
class Exits:
    """Ways out of a pack besides patience.

    Args:
        rungs: steps after which the worse half of the LoRA runs leaves.
        target: score on the validation sample at which a run leaves; None: it stays.
    """

    rungs: tuple[int, ...] = ()
    target: float | None = None


def rungs_of(steps: int) -> tuple[int, ...]:
    """The steps at which a training of ``steps`` is halved; fewer rungs where the training is too short to tell them apart."""
    return tuple(sorted({ceil(share * steps) for share in RUNGS} - {steps}))


def ranking(checks: Sequence[Checked]) -> list[Checked]:
    """The checks of one step, best first (:func:`loralet.runs.selection.rank_of`), equals in the order of the pack."""
    return sorted(checks, key=lambda check: rank_of(check.score, check.loss), reverse=True)


def halve(checks: Sequence[Checked]) -> tuple[list[Checked], int]:
    """All of them, best first, and how many go on: half of them, rounded up.

    Args:
        checks: of the runs that compete, at one step.
    """
    return ranking(checks), ceil(len(checks) / 2)


def has_enough(check: Checked, stale: int, patience: int | None, exits: Exits) -> bool:
    """Whether a run stops by itself: it has waited too long for a better check, or it has reached a target that is to stop it.

    Args:
        check: what was measured last.
        stale: checks since the run's best one.
        patience: as many stale checks as are too many; None: none are.
        exits: has the target.
    """
    return (patience is not None and stale >= patience) or (exits.target is not None and check.score >= exits.target)
