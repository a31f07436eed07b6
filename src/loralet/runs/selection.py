"""The rule that selects the best state, run and configuration.

The highest selection metric wins. Ties are resolved by lower validation loss, then by fewer trained parameters
(:mod:`loralet.ranking`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from loralet.adapters.spec import AdapterSpec
from loralet.errors import RunError
from loralet.ranking import Rank, rank_of
from loralet.runs.results import Results, RunResult
from loralet.runs.run import HYBRID, Role
from loralet.tasks.base import Scores

LEFT = ("diverged", "halved")
"""Statuses of runs that were trained for fewer steps than the others."""


def rank_of_scores(scores: Scores, selection: str, parameters: int = 0) -> Rank:
    """:func:`loralet.ranking.rank_of` of scores on the validation split, by the task's selection metric."""
    return rank_of(scores[selection], scores.loss, parameters)


def rank_of_run(run: RunResult, selection: str) -> Rank:
    """:func:`loralet.ranking.rank_of` of a trained run."""
    assert run.validation is not None
    return rank_of_scores(run.validation, selection, run.trainable_parameters)


def chosen_run(results: Results) -> RunResult:
    """The run selected on validation: the best trained run, or its hybrid with a linear model on words.

    A hybrid is in the results only if it is used (:mod:`loralet.studies.hybrid`).

    Raises:
        RunError: the folder has no trained run.
    """
    trained = [run for run in results.runs if run.trained]
    if not trained:
        raise RunError("this folder has no trained run")
    hybrids = [run for run in results.runs if run.role == HYBRID]
    if hybrids:
        return hybrids[0]
    return max(trained, key=lambda run: rank_of_run(run, results.selection))


Setting = tuple[Role, AdapterSpec | None, float | None, float | None]


def setting_of(run: RunResult) -> Setting:
    """What the runs of one configuration on one backbone have in common: all but the seed."""
    return run.role, run.adapter, run.learning_rate, run.lr_ratio


@dataclass(frozen=True)
class Means:
    """The validation scores of a configuration.

    Args:
        score, loss: selection metric and loss, means over the runs that have them; None if none has.
        diverged: share of the runs that diverged.
        parameters: trained parameters.
    """

    score: float | None
    loss: float | None
    diverged: float
    parameters: int


def means_of(runs: Sequence[RunResult], selection: str) -> Means:
    """The validation scores of a configuration, given its runs."""
    validated = [run.validation for run in runs if run.validation]
    scores, losses = [scores[selection] for scores in validated], [s.loss for s in validated if s.loss is not None]
    diverged = [run.status == "diverged" for run in runs]
    return Means(
        fmean(scores) if scores else None,
        fmean(losses) if losses else None,
        fmean(diverged),
        runs[0].trainable_parameters,
    )


def rank_of_configuration(means: Means) -> tuple[float, Rank]:
    """Sort key of a configuration; a better one has a larger key.

    The criteria are the share of diverged seeds (smaller is better), then :func:`loralet.ranking.rank_of` of the means
    over seeds.
    """
    assert means.score is not None
    return -means.diverged, rank_of(means.score, means.loss, means.parameters)


def _configurations(runs: Iterable[RunResult]) -> list[list[RunResult]]:
    """The adapter runs, grouped by configuration."""
    grouped: dict[tuple[str | None, Setting], list[RunResult]] = {}
    for run in runs:
        if run.role == "lora":
            grouped.setdefault((run.model, setting_of(run)), []).append(run)
    return list(grouped.values())


def _completed(runs: Iterable[RunResult]) -> list[RunResult]:
    return [run for run in runs if run.validation and run.status not in LEFT]


def over_seeds(runs: Iterable[RunResult]) -> list[list[RunResult]]:
    """The completed runs of each adapter configuration with at least two of them."""
    completed = [_completed(members) for members in _configurations(runs)]
    return [members for members in completed if len(members) > 1]


def chosen_seeds(results: Results) -> list[str]:
    """Ids of the completed runs of the best configuration on validation that has at least two of them.

    Raises:
        RunError: no configuration has two seeds.
    """
    several = [members for members in _configurations(results.runs) if len(_completed(members)) > 1]
    if not several:
        raise RunError(
            "no adapter configuration of this study was trained with two seeds: "
            "give run ids with --runs, or more run folders"
        )
    best = max(several, key=lambda runs: rank_of_configuration(means_of(runs, results.selection)))
    return [run.id for run in _completed(best)]


def with_test_read(results: Results) -> Results:
    """A copy of the results with one more read of the test split."""
    return replace(results, test_reads=results.test_reads + 1)
