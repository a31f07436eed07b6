"""The check of a data set by cross-validation: rows whose label is likely wrong, copies and near copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from loralet.config import CheckConfig, DataOptions, TrainConfig
from loralet.data.check import near_equal
from loralet.data.near import near_copies
from loralet.data.sources import Split
from loralet.data.splits import copies
from loralet.errors import ConfigError
from loralet.studies.folds import cross_validate
from loralet.studies.hybrid import words_out_of_fold
from loralet.studies.plan import plan_train
from loralet.studies.study import prepare
from loralet.tasks.single_label import SingleLabel
from loralet.tasks.suspects import suspected_labels
from loralet.training.session import Listen

Kind = Literal["spelling", "label", "conflict", "copy", "near copy"]


@dataclass(frozen=True)
class RowFinding:
    """A training row that is worth a look.

    Args:
        row: its number in the training split, from 0.
        kind: ``spelling``: a label that may be another spelling of a more frequent one; ``label``: likely a wrong
            label; ``conflict``: the text of another row, with another label; ``copy`` and ``near copy``: the text, or
            most words, of an earlier row.
        suggestion: the more frequent label, for ``spelling``; the label that the model suggests, for ``label``.
        given_probability, suggested_probability: out-of-fold probabilities of the row's label and of the suggestion.
        other: the other row, for the other kinds.
        similarity: cosine similarity of the two texts, for ``near copy``.
    """

    row: int
    kind: Kind
    suggestion: str = ""
    given_probability: float | None = None
    suggested_probability: float | None = None
    other: int | None = None
    similarity: float | None = None


@dataclass(frozen=True)
class Checked:
    """The training rows and what was found.

    Args:
        train: the rows.
        labels: names of the labels.
        findings: other spellings of labels, likely wrong labels, the clearest first, then conflicts, copies and near
            copies.
        accuracy: out-of-fold accuracy of the classifier.
    """

    train: Split
    labels: tuple[str, ...]
    findings: tuple[RowFinding, ...]
    accuracy: float


def check_rows(config: CheckConfig, listen: Listen) -> Checked:
    """Cross-validate the encoder and a linear model on words on the training rows, and compare their texts.

    The probabilities of a row are the mean of both models', which are trained without its fold.

    Args:
        config: the options.
        listen: called with every event; the findings of the data check before training are stages.

    Raises:
        ConfigError: the data are not single-label classes.
        DataError: the data cannot be read, or have a validation split.
    """
    reading = DataOptions(columns=config.columns, max_length=config.max_length, split_seed=config.seed)
    options = TrainConfig(
        config.data, config.model, seed=config.seed, reading=reading, compute=config.compute, folds=config.folds
    )
    prepared = prepare(replace(plan_train(options), kind="check", baselines=False), listen)
    corpus, session = prepared.corpus, next(iter(prepared.sessions.values()))
    task = corpus.dataset.task
    if not isinstance(task, SingleLabel):
        raise ConfigError(f"{config.data}: loralet check finds wrong labels of single-label classes only")
    validated = cross_validate(session, corpus, prepared.packs.packs, (), listen)
    row = validated.rows[-1]
    logits = next(iter(validated.predictions.logits.values())) / row.temperature
    words, _ = words_out_of_fold(corpus.train, len(task.labels))
    probabilities = (task.probabilities(logits) + task.probabilities(words)) / 2
    targets = corpus.train.targets
    odd = spellings(targets, task.labels)
    spelled = {finding.row for finding in odd}
    suspects = [
        RowFinding(i, "label", task.labels[best], float(probabilities[i, targets[i]]), float(probabilities[i, best]))
        for i, best in suspected_labels(probabilities, targets)
        if i not in spelled
    ]
    accuracy = float((probabilities.argmax(1) == targets).mean())
    return Checked(corpus.train, task.labels, (*odd, *suspects, *_repeated(corpus.train)), accuracy)


def spellings(targets: np.ndarray, labels: Sequence[str]) -> list[RowFinding]:
    """The rows of labels that may be another spelling of a more frequent label."""
    counts = np.bincount(targets, minlength=len(labels)).tolist()
    groups = near_equal({name: count for name, count in zip(labels, counts, strict=True) if count})
    usual = {name: group[0] for group in groups for name in group[1:]}
    names = [labels[target] for target in targets.tolist()]
    return [RowFinding(i, "spelling", usual[name]) for i, name in enumerate(names) if name in usual]


def _repeated(train: Split) -> Sequence[RowFinding]:
    """Copies and near copies; copies with different labels are conflicts, and all of their rows are listed."""
    groups = copies(train.texts, train.seconds)
    first = np.unique(groups, return_index=True)[1]
    conflicting = set(groups[train.targets != train.targets[first][groups]].tolist())
    conflicts: list[RowFinding] = []
    again: list[RowFinding] = []
    for row, group in enumerate(groups.tolist()):
        earlier = int(first[group])
        if group in conflicting:
            other = next(i for i in np.flatnonzero(groups == group) if train.targets[i] != train.targets[row])
            conflicts.append(RowFinding(row, "conflict", other=int(other)))
        elif row != earlier:
            again.append(RowFinding(row, "copy", other=earlier))
    near = [
        RowFinding(row, "near copy", other=other, similarity=similarity)
        for row, other, similarity in near_copies(train.texts.to_pylist(), groups)
    ]
    return [*conflicts, *again, *near]
