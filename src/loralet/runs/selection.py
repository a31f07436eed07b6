"""The rule that selects the best state, run and configuration.

The highest value of ``--select-by`` wins: accuracy, macro F1 or the negative loss, on validation rows. Ties are
resolved by lower validation loss, then by fewer trained parameters; of two states of one run, by the later state
(:mod:`loralet.ranking`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import fsum, inf

from loralet.adapters.spec import AdapterSpec
from loralet.errors import RunError
from loralet.ranking import LOSS, Rank, SelectBy, rank_of, selected_value
from loralet.runs.results import Results, RunResult
from loralet.runs.run import HYBRID, Role
from loralet.tasks.base import Scores, Task

LEFT = ("diverged", "halved")
"""Statuses of runs that were trained for fewer steps than the others."""


def selection_of(select_by: SelectBy, task: Task) -> str:
    """The metric that an option selects by, as recorded in the results: a metric of the task, or ``loss``.

    ``accuracy`` is the main metric of the task.
    """
    return {"accuracy": task.selection, "macro-f1": "macro_f1", "loss": LOSS}[select_by]


def rank_of_scores(scores: Scores, selection: str, parameters: int = 0) -> Rank:
    """:func:`loralet.ranking.rank_of` of scores on the validation split.

    Args:
        scores: the scores.
        selection: the metric that selects, or ``loss``.
        parameters: trained parameters.
    """
    return rank_of(selected_value(scores.values, scores.loss, selection), scores.loss, parameters)


def rank_of_run(run: RunResult, selection: str) -> Rank:
    """:func:`loralet.ranking.rank_of` of a trained run; ``selection`` as for :func:`rank_of_scores`."""
    assert run.validation is not None
    return rank_of_scores(run.validation, selection, run.trainable_parameters)


def chosen_run(results: Results) -> RunResult:
    """The run selected on validation: the best trained run, or its hybrid with a linear model on words.

    A hybrid is in the results only if it is used (:mod:`loralet.studies.hybrid`).

    Raises:
        RunError: the folder has no trained run.
    """
    trained = [run for run in results.runs if run.trained]
    if not trained and not results.finished:
        raise RunError("this folder has no trained run yet: continue it with `loralet resume FOLDER`")
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
        selected: the value that selects (:func:`loralet.ranking.selected_value`), mean over the runs that have scores;
            None if none has.
        loss: mean over the runs that have one; None if none has.
        diverged: share of the runs that diverged.
        parameters: trained parameters.
    """

    selected: float | None
    loss: float | None
    diverged: float
    parameters: int


def means_of(runs: Sequence[RunResult], selection: str) -> Means:
    """The validation scores of a configuration, given its runs; ``selection`` as for :func:`rank_of_scores`."""
    validated = [run.validation for run in runs if run.validation]
    losses = [s.loss for s in validated if s.loss is not None]
    counted = validated if selection != LOSS else [s for s in validated if s.loss is not None]
    scores = [selected_value(s.values, s.loss, selection) for s in counted]
    diverged = [run.status == "diverged" for run in runs]
    return Means(
        _mean(scores) if scores else None,
        _mean(losses) if losses else None,
        _mean(diverged),
        runs[0].trainable_parameters,
    )


def _mean(values: Sequence[float]) -> float:
    """As :func:`statistics.fmean`, whose module takes 10 ms to import."""
    return fsum(values) / len(values)


def rank_of_configuration(means: Means) -> tuple[float, Rank]:
    """Sort key of a configuration; a better one has a larger key.

    The criteria are the share of diverged seeds (smaller is better), then :func:`loralet.ranking.rank_of` of the means
    over seeds.
    """
    selected = -inf if means.selected is None else means.selected
    return -means.diverged, rank_of(selected, means.loss, means.parameters)


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
