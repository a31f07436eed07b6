"""Which configuration won, how the others compare with it, and which are on the Pareto fronts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from loralet.ranking import Rank
from loralet.report.configurations import Comparison, Configuration, right_rows
from loralet.report.statistics import Paired, holm, paired, pareto
from loralet.runs.record import Record
from loralet.runs.run import HYBRID, TRAINED
from loralet.runs.selection import Means, rank_of_configuration

COSTS = ("trainable", "bytes", "seconds")
"""Cost fields of a configuration. Each has a Pareto front against accuracy."""


def compare_with_winner(record: Record, rows: list[Configuration]) -> list[Configuration]:
    """Mark the winner and the row with the star, compare every other row with it, and compute the Pareto fronts.

    Args:
        record: the run folder.
        rows: all configurations.
    """
    best = choose([row for row in rows if row.role in TRAINED])
    if best is None:
        return rows
    tests: dict[str, Paired] = {}
    for row in rows:
        pairs = _pairs(record, best, row)
        if row is not best and row.role != "random-head" and pairs:
            own, winners = ([pair[i] for pair in pairs] for i in (1, 0))
            tests[row.name] = paired(right_rows(record, own), right_rows(record, winners))
    corrected = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    versus = {
        name: Comparison(test.difference, test.low, test.high, test.p, corrected[name], test.method)
        for name, test in tests.items()
    }
    hybrid = any(row.role == HYBRID for row in rows)
    fronts = {cost: _front(rows, cost) for cost in COSTS}
    return [
        replace(
            row,
            winner=row is best,
            starred=row.role == HYBRID if hybrid else row is best,
            versus=versus.get(row.name),
            tied=row.name in versus and not versus[row.name].distinguishable,
            front=tuple(cost for cost in COSTS if row.name in fronts[cost]),
        )
        for row in rows
    ]


def choose(rows: Sequence[Configuration]) -> Configuration | None:
    """The best configuration on validation (:func:`loralet.runs.selection.rank_of_configuration`); None if no row has
    validation scores.
    """
    return max((row for row in rows if row.validation is not None), key=_rank, default=None)


def _rank(row: Configuration) -> tuple[float, Rank]:
    return rank_of_configuration(Means(row.value, row.validation_loss, row.diverged, row.trainable))


def _pairs(record: Record, best: Configuration, row: Configuration) -> list[tuple[str, str]]:
    """Runs of the winner, each with the other row's run of the same seed.

    A row without seeds has one run, which is paired with every run of the winner. Runs without predictions are
    skipped.
    """
    own = dict(zip(row.seeds, row.runs, strict=True)) if row.seeds else dict.fromkeys(best.seeds, row.runs[0])
    pairs = [(run, own[seed]) for seed, run in zip(best.seeds, best.runs, strict=True) if seed in own]
    return [(a, b) for a, b in pairs if a in record.predicted and b in record.predicted]


def _front(rows: Sequence[Configuration], cost: str) -> set[str]:
    """Names of the configurations on the Pareto front of test accuracy against one cost."""
    points = [(row.name, getattr(row, cost), row.test.mean) for row in rows if row.test and getattr(row, cost)]
    kept = pareto([point[1] for point in points], [point[2] for point in points])
    return {name for (name, _, _), keep in zip(points, kept, strict=True) if keep}
