"""Combinations of trained runs: the average of one configuration's seeds, and an ensemble of runs.

Of all averages, and of all ensembles, the best on validation is added to the results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from loralet.artifacts.artifact import Artifact, Measured
from loralet.artifacts.average import average
from loralet.errors import RunError
from loralet.events import Stage
from loralet.ranking import Rank
from loralet.runs.folder import TARGETS, RunFolder
from loralet.runs.run import Role, Run
from loralet.runs.selection import LEFT, over_seeds, rank_of_scores, selection_of
from loralet.studies.plan import Plan
from loralet.tasks.base import Task
from loralet.training.corpus import Corpus
from loralet.training.row import Row
from loralet.training.session import Listen, Session, make_artifact, with_scores

BEST = 3
"""Minimum number of runs in the ensemble of the best runs."""


@dataclass(frozen=True)
class Candidates:
    """The completed adapter runs of one model, with their calibrated validation logits ``[k m c]``."""

    session: Session
    rows: tuple[Row, ...]
    logits: np.ndarray

    def seeds(self) -> list[list[Row]]:
        """The runs of each configuration with several seeds."""
        by_id = {row.run.id: row for row in self.rows}
        return [[by_id[run.id] for run in runs] for runs in over_seeds(row.result() for row in self.rows)]

    def best(self) -> list[Row]:
        """The best runs: as many as a configuration has seeds, but at least three."""
        count = max([BEST, *map(len, self.seeds())])
        return sorted(self.rows, key=lambda row: _rank(row, self.session), reverse=True)[:count]


def combine(
    rows: Sequence[Row], sessions: Mapping[str, Session], corpus: Corpus, plan: Plan, folder: RunFolder, tell: Listen
) -> list[Row]:
    """Add the best average and the best ensemble on the validation rows, if there are enough runs.

    The average is saved like a run. An ensemble has no folder; its row lists the members.
    """
    tell(Stage("combining runs: averages of seeds, and ensembles"))
    averages: list[tuple[Row, Artifact, Session]] = []
    ensembles: list[Row] = []
    for model, session in sessions.items():
        candidates = tuple(row for row in rows if row.run.model == model and _is_candidate(row))
        if len(candidates) < 2:
            continue
        found = Candidates(session, candidates, session.calibrated_logits(candidates, session.rows.validation))
        averages += _averages(found, corpus, plan, tell)
        ensembles += [_ensemble(found, members) for members in (*found.seeds(), found.best())]
    made: list[Row] = []
    if averages:
        row, artifact, session = max(averages, key=lambda candidate: _rank(candidate[0], candidate[2]))
        assert row.validation
        measured = Measured(len(corpus.validation), row.validation, row.classes["validation"])
        folder.save(with_scores(artifact, "validation", measured), session.backbone)
        made.append(row)
    if not ensembles:
        tell(Stage("nothing to combine: no model has two completed adapter runs"))
    best = sorted(ensembles, key=lambda row: _rank(row, sessions[row.run.model]), reverse=True)[:1]
    return made + best


def _is_candidate(row: Row) -> bool:
    return row.run.role == "lora" and bool(row.tensors) and row.status not in LEFT


def measure_ensembles(rows: Sequence[Row], probabilities: dict[str, np.ndarray], task: Task) -> None:
    """Score the ensembles on the test rows.

    Args:
        rows: rows of the results.
        probabilities: test probabilities of the members; those of the ensembles are added.
        task: the task.
    """
    for row in rows:
        if row.run.role == "ensemble":
            with np.errstate(divide="ignore"):
                together = task.average([np.log(probabilities[member]) for member in row.members])
            row.test = task.score(together, probabilities[TARGETS])
            probabilities[row.run.id] = task.probabilities(together)


def _rank(row: Row, session: Session) -> Rank:
    assert row.validation
    selection = selection_of(session.training.select_by, session.task)
    return rank_of_scores(row.validation, selection, row.trainable)


def _averages(found: Candidates, corpus: Corpus, plan: Plan, tell: Listen) -> list[tuple[Row, Artifact, Session]]:
    """The average of each configuration's seeds, if the method supports it, with validation scores."""
    made: list[tuple[Row, Artifact, Session]] = []
    refusals: dict[str, None] = {}
    session = found.session
    for members in found.seeds():
        artifacts = {row.run.id: make_artifact(row, session, corpus, plan.source, plan.reading) for row in members}
        try:
            artifact = average(artifacts, "average")
        except RunError as error:
            refusals.setdefault(str(error))
            continue
        row = _row("average", members, sum(tensor.numel() for tensor in artifact.tensors.values()), session)
        row.run = Run("average", row.run.model, "average", artifact.adapter)
        row.tensors = artifact.tensors
        made.append((row, artifact, session))
    if made:
        validation = session.rows.validation
        logits = session.logits([row.run for row, _, _ in made], [row.tensors for row, _, _ in made], validation)
        for (row, _, _), own in zip(made, logits, strict=True):
            row.measure_validation(session.task, own, validation.targets.numpy())
        made = [(row, replace(artifact, temperature=row.temperature), session) for row, artifact, _ in made]
    for refusal in refusals:
        tell(Stage(refusal))
    return made


def _ensemble(found: Candidates, members: Sequence[Row]) -> Row:
    row = _row("ensemble", members, sum(member.trainable for member in members), found.session)
    task = found.session.task
    together = task.average([found.logits[found.rows.index(member)] for member in members])
    row.held_out = task.predicted(together)
    row.validation = task.score(together, found.session.rows.validation.targets.numpy())
    return row


def _row(role: Role, members: Sequence[Row], parameters: int, session: Session) -> Row:
    seconds = [member.seconds for member in members if member.seconds is not None]
    return Row(
        Run(role, members[0].run.model, role),
        parameters,
        session.backbone.parameters + parameters,
        seconds=sum(seconds),
        members=tuple(member.run.id for member in members),
    )
