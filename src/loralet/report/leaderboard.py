"""A comparison of trained runs on the same rows: scores, paired tests of all pairs, prediction time and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from loralet.records import plain
from loralet.report.configurations import ALPHA_LEVEL
from loralet.report.statistics import holm, paired
from loralet.tasks.base import Scores, Task


@dataclass(frozen=True)
class Contender:
    """A trained run to compare.

    Args:
        name: its name, unique in the comparison.
        run: id of the run.
        model: name of its backbone.
        predicted: predicted target of each row.
        parameters: number of parameters of the whole model; None if unknown.
        bytes: size of its trained weights on disk; None if unknown.
        seconds: prediction time per text; None if it was not measured.
    """

    name: str
    run: str
    model: str
    predicted: np.ndarray
    parameters: int | None = None
    bytes: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Pair:
    """A paired test of two runs.

    Args:
        better, worse: names of the runs, the one with the higher score first.
        difference: score of the first minus that of the second.
        low, high: 95 % interval of the difference.
        p, p_holm: p-value without and with Holm's correction for all pairs.
        method: name of the test.
    """

    better: str
    worse: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    method: str

    @property
    def distinguishable(self) -> bool:
        """Whether the test shows a difference."""
        return self.p_holm < ALPHA_LEVEL


@dataclass(frozen=True)
class Standing:
    """One line of the leaderboard.

    Args:
        contender: the run.
        scores: its scores.
        versus: its test against the best run; None for the best run.
    """

    contender: Contender
    scores: Scores
    versus: Pair | None

    @property
    def tied(self) -> bool:
        """Whether it cannot be distinguished from the best run."""
        return self.versus is not None and not self.versus.distinguishable


@dataclass(frozen=True)
class Leaderboard:
    """A comparison.

    Args:
        source: where the rows come from.
        rows: number of rows.
        metric: the main metric, which the tests compare.
        standings: the runs, the best first.
        pairs: tests of all pairs, those of the best run first.
        timing: how prediction times were measured, or why they are missing.
    """

    source: str
    rows: int
    metric: str
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    timing: str

    def to_json(self) -> dict[str, object]:
        """One object; ``runs`` and ``pairs`` are lists of objects."""
        return {
            "data": self.source,
            "rows": self.rows,
            "metric": self.metric,
            "runs": [_standing_json(standing) for standing in self.standings],
            "pairs": [plain(pair) for pair in self.pairs],
            "timing": self.timing,
        }


def _standing_json(standing: Standing) -> dict[str, object]:
    one, versus = standing.contender, standing.versus
    found: dict[str, object] = {"name": one.name, "run": one.run, "model": one.model}
    found |= standing.scores.to_json()
    found |= {"difference": -versus.difference if versus else None, "p_holm": versus.p_holm if versus else None}
    return found | {"seconds_per_text": one.seconds, "parameters": one.parameters, "bytes": one.bytes}


def compare(contenders: Sequence[Contender], targets: np.ndarray, task: Task, source: str, timing: str) -> Leaderboard:
    """Rank runs by the main metric of the task, ties by macro F1, and test all pairs.

    The best run is known only from the rows that it is tested on. Holm's correction therefore covers all pairs, and
    not only those with the best run.

    Args:
        contenders: the runs, with their predictions of the same rows.
        targets: targets of the rows.
        task: the task, whose main metric is the share of right rows.
        source: where the rows come from.
        timing: how prediction times were measured.
    """
    scores = {one.name: task.score_predictions(one.predicted, targets) for one in contenders}
    metric = task.selection

    def key(one: Contender) -> tuple[float, float]:
        return scores[one.name][metric], scores[one.name].values.get("macro_f1", 0.0)

    ranked = sorted(contenders, key=key, reverse=True)
    pairs = _pairs({one.name: one.predicted == targets for one in ranked})
    best = ranked[0].name
    versus = {pair.worse: pair for pair in pairs if pair.better == best}
    standings = tuple(Standing(one, scores[one.name], versus.get(one.name)) for one in ranked)
    return Leaderboard(source, len(targets), metric, standings, tuple(pairs), timing)


def _pairs(right: Mapping[str, np.ndarray]) -> list[Pair]:
    """The tests of all pairs of runs, which are given the best first."""
    names = list(combinations(right, 2))
    tests = [paired(right[worse][None], right[better][None]) for better, worse in names]
    corrected = holm([test.p for test in tests])
    return [
        Pair(*pair, test.difference, test.low, test.high, test.p, p_holm, test.method)
        for pair, test, p_holm in zip(names, tests, corrected, strict=True)
    ]
