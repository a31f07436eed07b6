"""Rows that are made of trained runs: the average of one configuration's seeds, and the ensemble of runs that decide together.

Several of each can be made; as everywhere, validation chooses the one that stands in the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log

import torch
from torch import Tensor

from loralet.artifacts.average import average
from loralet.artifacts.folder import Artifact
from loralet.events import Stage
from loralet.inference.evaluation import score_logits
from loralet.runs.folder import RunFolder
from loralet.runs.results import Row, base_run
from loralet.runs.selection import LEFT, over_seeds
from loralet.studies.plan import Plan
from loralet.training.corpus import Corpus
from loralet.training.packs import Role, Run
from loralet.training.session import Bench, Listen, make_artifact, metrics_of

BEST = 3
"""Runs of the ensemble of the best, where no configuration has more seeds."""


@dataclass(frozen=True)
class Able:
    """The LoRA runs of one model that were trained to their end, with their validation logits ``[k m c]``."""

    bench: Bench
    rows: tuple[Row, ...]
    logits: Tensor

    def seeds(self) -> list[list[Row]]:
        """The runs of each configuration that has several seeds."""
        by_id = {row.run.id: row for row in self.rows}
        return [[by_id[run["id"]] for run in runs] for runs in over_seeds(row.to_json() for row in self.rows)]

    def best(self) -> list[Row]:
        """As many of the best runs as a configuration has seeds, and three at least."""
        count = max([BEST, *map(len, self.seeds())])
        return sorted(self.rows, key=_rank_of, reverse=True)[:count]


def combine(
    rows: Sequence[Row], benches: dict[str, Bench], corpus: Corpus, plan: Plan, folder: RunFolder, tell: Listen
) -> list[Row]:
    """The average and the ensemble that do best on the validation rows; what cannot be made, for want of runs, is left out.

    The average is saved like a run. An ensemble leaves no folder: its members are named in its row.
    """
    tell(Stage("combining runs: averages of seeds, and ensembles"))
    averages: list[tuple[Row, Artifact, Bench]] = []
    ensembles: list[Row] = []
    for model, bench in benches.items():
        able = tuple(
            row
            for row in rows
            if row.run.model == model and row.run.role == "lora" and row.tensors and row.status not in LEFT
        )
        if len(able) < 2:
            continue
        logits = bench.logits([row.run for row in able], [row.tensors for row in able], bench.rows.validation)
        found = Able(bench, able, logits)
        averages += _averages(found, corpus, plan)
        ensembles += [_ensemble(found, members) for members in (*found.seeds(), found.best())]
    made: list[Row] = []
    if averages:
        row, artifact, bench = max(averages, key=lambda candidate: _rank_of(candidate[0]))
        assert row.validation
        folder.save(
            replace(artifact, metrics={"validation": metrics_of(row.validation, len(corpus.validation))}),
            bench.backbone,
        )
        made.append(row)
    if not ensembles:
        tell(Stage("nothing to combine: fewer than two LoRA runs of a model were trained to their end"))
    return made + ([max(ensembles, key=_rank_of)] if ensembles else [])


def measure_ensembles(rows: Sequence[Row], probabilities: dict[str, Tensor]) -> None:
    """Score the ensembles on the test rows, from the probabilities that their members gave there, to which their own are added."""
    for row in rows:
        if row.run.role == "ensemble":
            together = mean_of([probabilities[member].log() for member in row.members])
            row.test = score_logits(together, probabilities["labels"].numpy())
            probabilities[row.run.id] = together.exp()


def mean_of(log_probabilities: Sequence[Tensor]) -> Tensor:
    """Logarithms ``[m c]`` of the mean of probabilities."""
    return torch.stack(list(log_probabilities)).logsumexp(0) - log(len(log_probabilities))


def _rank_of(row: Row) -> tuple[float, float, int]:
    """As a run is chosen: the higher accuracy, then the lower loss, then the fewer numbers."""
    assert row.validation
    return row.validation.accuracy, -(row.validation.loss or 0.0), -row.trainable


def _averages(able: Able, corpus: Corpus, plan: Plan) -> list[tuple[Row, Artifact, Bench]]:
    """The average of each configuration's seeds, measured on the validation rows."""
    made: list[tuple[Row, Artifact, Bench]] = []
    bench = able.bench
    for members in able.seeds():
        artifact = average({row.run.id: make_artifact(row, bench, corpus, plan) for row in members}, "average")
        row = _row("average", members, sum(tensor.numel() for tensor in artifact.tensors.values()), bench)
        sizes = (artifact.rank, artifact.alpha, artifact.dropout, artifact.targets, artifact.scaling)
        row.run, row.tensors = Run("average", row.run.model, "average", *sizes, 0.0, 0), artifact.tensors
        made.append((row, artifact, bench))
    if made:
        logits = bench.logits(
            [row.run for row, _, _ in made], [row.tensors for row, _, _ in made], bench.rows.validation
        )
        for (row, _, _), own in zip(made, logits, strict=True):
            row.validation = score_logits(own, bench.rows.validation.labels.numpy())
    return made


def _ensemble(able: Able, members: Sequence[Row]) -> Row:
    row = _row("ensemble", members, sum(member.trainable for member in members), able.bench)
    together = mean_of([able.logits[able.rows.index(member)].log_softmax(-1) for member in members])
    row.validation = score_logits(together, able.bench.rows.validation.labels.numpy())
    return row


def _row(role: Role, members: Sequence[Row], numbers: int, bench: Bench) -> Row:
    run = base_run(role, role, members[0].run.model)
    seconds = [member.seconds for member in members if member.seconds is not None]
    return Row(
        run,
        numbers,
        bench.backbone.parameters + numbers,
        seconds=sum(seconds),
        members=tuple(m.run.id for m in members),
    )
