"""The rule that selects the best state, run and configuration.

The highest selection metric wins. Ties are resolved by lower validation loss, then by fewer trained parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf, isfinite
from statistics import fmean

from loralet.adapters.spec import AdapterSpec
from loralet.errors import RunError
from loralet.runs.results import Results, RunResult
from loralet.tasks.base import Scores

LEFT = ("diverged", "halved")
"""Statuses of runs that were trained for fewer steps than the others."""

Rank = tuple[float, float, int]


def rank_of(score: float, loss: float | None, parameters: int = 0) -> Rank:
    """Sort key of a candidate; a better candidate has a larger key.

    Args:
        score: the selection metric on validation rows; higher is better.
        loss: mean validation loss; None or not finite counts as the worst.
        parameters: trained parameters.
    """
    return score, -loss if loss is not None and isfinite(loss) else -inf, -parameters


def rank_of_scores(scores: Scores, selection: str, parameters: int = 0) -> Rank:
    """:func:`rank_of` of scores on the validation split, by the task's selection metric."""
    return rank_of(scores[selection], scores.loss, parameters)


def rank_of_run(run: RunResult, selection: str) -> Rank:
    """:func:`rank_of` of a trained run."""
    assert run.validation is not None
    return rank_of_scores(run.validation, selection, run.trainable_parameters)


def chosen_run(results: Results) -> RunResult:
    """The trained run selected on validation.

    Raises:
        RunError: the folder has no trained run.
    """
    trained = [run for run in results.runs if run.trained]
    if not trained:
        raise RunError("this folder has no trained run")
    return max(trained, key=lambda run: rank_of_run(run, results.selection))


def over_seeds(runs: Iterable[RunResult]) -> list[list[RunResult]]:
    """Groups of completed adapter runs that share a configuration; groups with at least two seeds."""
    grouped: dict[tuple[str | None, AdapterSpec | None, float | None, float | None], list[RunResult]] = {}
    for run in runs:
        if run.role == "lora" and run.validation and run.status not in LEFT:
            key = (run.model, run.adapter, run.learning_rate, run.lr_ratio)
            grouped.setdefault(key, []).append(run)
    return [members for members in grouped.values() if len(members) > 1]


def chosen_seeds(results: Results) -> list[str]:
    """Ids of the runs of the best configuration on validation, by the mean over seeds.

    Raises:
        RunError: no configuration has two seeds.
    """
    configurations = over_seeds(results.runs)
    if not configurations:
        raise RunError(
            "no adapter configuration of this study was trained with two seeds: "
            "give run ids with --runs, or more run folders"
        )
    return [run.id for run in max(configurations, key=lambda runs: _mean_rank(runs, results.selection))]


def _mean_rank(runs: Sequence[RunResult], selection: str) -> Rank:
    ranks = [rank_of_run(run, selection) for run in runs]
    return fmean(rank[0] for rank in ranks), fmean(rank[1] for rank in ranks), ranks[0][2]


def with_test_read(results: Results) -> Results:
    """A copy of the results with one more read of the test split."""
    return replace(results, test_reads=results.test_reads + 1)
