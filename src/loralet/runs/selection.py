"""Which state, which run and which configuration is best: one rule, used everywhere.

The higher selection metric wins; among equals the lower validation loss, then fewer trained parameters.
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
"""Ends of a run that was not trained as far as the others."""

Rank = tuple[float, float, int]


def rank_of(score: float, loss: float | None, parameters: int = 0) -> Rank:
    """A key by which the better candidate is the larger one.

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
    """The trained run that validation chose.

    Raises:
        RunError: no run was trained to the end.
    """
    trained = [run for run in results.runs if run.trained]
    if not trained:
        raise RunError("no run of this folder was trained to the end")
    return max(trained, key=lambda run: rank_of_run(run, results.selection))


def over_seeds(runs: Iterable[RunResult]) -> list[list[RunResult]]:
    """Runs of adapters that were trained to their end, by configuration, where there are two seeds or more."""
    grouped: dict[tuple[str | None, AdapterSpec | None, float | None, float | None], list[RunResult]] = {}
    for run in runs:
        if run.role == "lora" and run.validation and run.status not in LEFT:
            key = (run.model, run.adapter, run.learning_rate, run.lr_ratio)
            grouped.setdefault(key, []).append(run)
    return [members for members in grouped.values() if len(members) > 1]


def chosen_seeds(results: Results) -> list[str]:
    """Ids of the seeds of the configuration that validation prefers, by means over its seeds.

    Raises:
        RunError: no configuration has two seeds.
    """
    configurations = over_seeds(results.runs)
    if not configurations:
        raise RunError(
            "no adapter configuration of this study was trained with two seeds: "
            "name runs, with --runs, or further run folders"
        )
    return [run.id for run in max(configurations, key=lambda runs: _mean_rank(runs, results.selection))]


def _mean_rank(runs: Sequence[RunResult], selection: str) -> Rank:
    ranks = [rank_of_run(run, selection) for run in runs]
    return fmean(rank[0] for rank in ranks), fmean(rank[1] for rank in ranks), ranks[0][2]


def with_test_read(results: Results) -> Results:
    """The results after one more reading of the test split."""
    return replace(results, test_reads=results.test_reads + 1)
