"""Rows made of trained runs: the average of one configuration's seeds, and an ensemble of runs that decide together.

Several of each can be made; as everywhere, validation chooses the one that goes into the results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from loralet.artifacts.artifact import Artifact
from loralet.artifacts.average import average
from loralet.errors import RunError
from loralet.events import Stage
from loralet.runs.folder import TARGETS, RunFolder
from loralet.runs.run import Role, Run
from loralet.runs.selection import LEFT, Rank, over_seeds, rank_of_scores
from loralet.studies.plan import Plan
from loralet.tasks.base import Task
from loralet.training.corpus import Corpus
from loralet.training.session import Listen, Row, Session, make_artifact, with_scores

BEST = 3
"""Runs of the ensemble of the best, where no configuration has more seeds."""


@dataclass(frozen=True)
class Candidates:
    """The adapter runs of one model that were trained to their end, with their validation logits ``[k m c]``."""

    session: Session
    rows: tuple[Row, ...]
    logits: Tensor

    def seeds(self) -> list[list[Row]]:
        """The runs of each configuration that has several seeds."""
        by_id = {row.run.id: row for row in self.rows}
        return [[by_id[run.id] for run in runs] for runs in over_seeds(row.result() for row in self.rows)]

    def best(self) -> list[Row]:
        """As many of the best runs as a configuration has seeds, and three at least."""
        count = max([BEST, *map(len, self.seeds())])
        return sorted(self.rows, key=lambda row: _rank(row, self.session.task), reverse=True)[:count]


def combine(
    rows: Sequence[Row], sessions: Mapping[str, Session], corpus: Corpus, plan: Plan, folder: RunFolder, tell: Listen
) -> list[Row]:
    """The average and the ensemble that do best on the validation rows; what too few runs were trained for is left out.

    The average is saved like a run. An ensemble leaves no folder: its members are named in its row.
    """
    tell(Stage("combining runs: averages of seeds, and ensembles"))
    task = corpus.dataset.task
    averages: list[tuple[Row, Artifact, Session]] = []
    ensembles: list[Row] = []
    for model, session in sessions.items():
        able = tuple(row for row in rows if row.run.model == model and _is_candidate(row))
        if len(able) < 2:
            continue
        logits = session.logits([row.run for row in able], [row.tensors for row in able], session.rows.validation)
        found = Candidates(session, able, logits)
        averages += _averages(found, corpus, plan, tell)
        ensembles += [_ensemble(found, members) for members in (*found.seeds(), found.best())]
    made: list[Row] = []
    if averages:
        row, artifact, session = max(averages, key=lambda candidate: _rank(candidate[0], task))
        assert row.validation
        folder.save(with_scores(artifact, "validation", len(corpus.validation), row.validation), session.backbone)
        made.append(row)
    if not ensembles:
        tell(Stage("nothing to combine: fewer than two adapter runs of a model were trained to their end"))
    return made + ([max(ensembles, key=lambda row: _rank(row, task))] if ensembles else [])


def _is_candidate(row: Row) -> bool:
    return row.run.role == "lora" and bool(row.tensors) and row.status not in LEFT


def measure_ensembles(rows: Sequence[Row], probabilities: dict[str, Tensor], task: Task) -> None:
    """Score the ensembles on the test rows.

    Args:
        rows: of the results.
        probabilities: of the members on the test rows, to which the ensembles' own are added.
        task: what the labels mean.
    """
    for row in rows:
        if row.run.role == "ensemble":
            together = task.average([probabilities[member].log() for member in row.members])
            row.test = task.score(together, probabilities[TARGETS].numpy())
            probabilities[row.run.id] = task.probabilities(together)


def _rank(row: Row, task: Task) -> Rank:
    assert row.validation
    return rank_of_scores(row.validation, task.selection, row.trainable)


def _averages(found: Candidates, corpus: Corpus, plan: Plan, tell: Listen) -> list[tuple[Row, Artifact, Session]]:
    """The average of each configuration's seeds, where its method has one, measured on the validation rows."""
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
            row.validation = session.task.score(own, validation.targets.numpy())
    for refusal in refusals:
        tell(Stage(refusal))
    return made


def _ensemble(found: Candidates, members: Sequence[Row]) -> Row:
    row = _row("ensemble", members, sum(member.trainable for member in members), found.session)
    task = found.session.task
    together = task.average([found.logits[found.rows.index(member)] for member in members])
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
