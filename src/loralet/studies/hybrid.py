"""Hybrids: a trained run combined with a linear model on words, with a weight chosen on validation rows.

A hybrid is a copy of the run's adapter folder with the linear model and the weight. It is only kept if it is used: with
``--hybrid auto`` if it pays on the validation rows (:attr:`loralet.tasks.mixing.Mixture.pays`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from loralet.artifacts.artifact import Artifact, Measured
from loralet.events import Stage
from loralet.runs.folder import TARGETS, RunFolder
from loralet.runs.run import HYBRID, Run
from loralet.runs.selection import rank_of_scores
from loralet.studies.plan import Plan
from loralet.tasks.base import Scores
from loralet.tasks.mixing import Mixture, choose_weight, mixed
from loralet.tasks.words import FittedWords, fit_words
from loralet.training.corpus import Corpus
from loralet.training.session import Listen, Row, Session, make_artifact

WORDS = "tfidf-lr"
"""Role and id of the linear model's row."""


@dataclass(frozen=True)
class Hybrid:
    """A linear model, and its best weight with a run.

    Args:
        words: the linear model.
        mixture: the weight and its gain.
        encoder_weight: the weight of the run's encoder; 1 if the linear model is not used.
        words_scores: scores of the linear model on the validation rows.
        scores: scores of the hybrid on the validation rows.
    """

    words: FittedWords
    mixture: Mixture
    encoder_weight: float
    words_scores: Scores
    scores: Scores

    @property
    def used(self) -> bool:
        """Whether the linear model is used."""
        return self.encoder_weight < 1


def fit_hybrid(row: Row, session: Session, corpus: Corpus, tell: Listen) -> Hybrid:
    """Fit the linear model on the training rows, and choose the weight on the validation rows.

    With ``--hybrid auto``, the weight of the encoder is 1 if the linear model does not pay.

    Args:
        row: a trained run.
        session: the session that trained it.
        corpus: the data.
        tell: called with stages and the result.
    """
    tell(Stage("fitting TF-IDF + logistic regression for the hybrid"))
    task, validation = session.task, corpus.validation
    words = fit_words(corpus.train.texts.to_pylist(), corpus.train.targets, task.outputs)
    own = session.logits([row.run], [row.tensors], session.rows.validation)[0]
    others = words.model.logits(validation.texts)
    mixture = choose_weight(own, others, validation.targets)
    weight = mixture.weight if session.training.hybrid == "on" or mixture.pays else 1.0
    scores = task.score(mixed(own, others, weight), validation.targets)
    found = Hybrid(words, mixture, weight, task.score(others, validation.targets), scores)
    tell(Stage(_outcome(found, row, task.selection)))
    return found


def _outcome(found: Hybrid, row: Row, selection: str) -> str:
    if not found.used:
        return "hybrid: the linear model on words does not pay on the validation rows; the encoder is used alone"
    assert row.validation
    weight = f"weight {found.encoder_weight:.2f} of the encoder, {1 - found.encoder_weight:.2f} of the linear model"
    before, after = row.validation[selection], found.scores[selection]
    return f"hybrid: {weight}; validation {selection} {before:.4f} without, {after:.4f} with the linear model"


def hybrid_artifact(artifact: Artifact, found: Hybrid, rows: int) -> Artifact:
    """The artifact of a hybrid; ``artifact`` itself if the linear model is not used.

    Args:
        artifact: the trained run.
        found: its hybrid.
        rows: number of validation rows.
    """
    if not found.used:
        return artifact
    return replace(
        artifact,
        id=hybrid_id(artifact.id),
        encoder_weight=found.encoder_weight,
        words=found.words.model,
        provenance=replace(artifact.provenance, hybrid_of=artifact.id),
        metrics={"validation": Measured(rows, found.scores)},
    )


def with_hybrid(artifact: Artifact, row: Row, session: Session, corpus: Corpus, tell: Listen) -> Artifact:
    """The artifact of a trained row, or of its hybrid if the option asks for it and it is used."""
    if session.training.hybrid == "off":
        return artifact
    return hybrid_artifact(artifact, fit_hybrid(row, session, corpus, tell), len(corpus.validation))


def hybrid_id(run: str) -> str:
    """The id of the hybrid of a run."""
    return f"{HYBRID}-{run}"


def add_hybrid(
    rows: Sequence[Row], sessions: Mapping[str, Session], corpus: Corpus, plan: Plan, folder: RunFolder, tell: Listen
) -> list[Row]:
    """The rows of the linear model and, if it is used, of the hybrid of the best run on validation, which is saved."""
    trained = [row for row in rows if row.tensors and row.validation and row.run in plan.runs]
    selection = corpus.dataset.task.selection

    def rank(row: Row) -> tuple[float, float, int]:
        assert row.validation
        return rank_of_scores(row.validation, selection, row.trainable)

    best = max(trained, key=rank)
    session = sessions[best.run.model]
    found = fit_hybrid(best, session, corpus, tell)
    size, seconds = found.words.model.parameters, found.words.seconds
    words = Row(Run(WORDS, "", WORDS), size, size, seconds=seconds, validation=found.words_scores)
    words.words = found.words.model
    if not found.used:
        return [words]
    artifact = make_artifact(best, session, corpus, plan.source, plan.reading)
    folder.save(hybrid_artifact(artifact, found, len(corpus.validation)), session.backbone)
    hybrid = Row(
        Run(hybrid_id(best.run.id), best.run.model, HYBRID),
        best.trainable + size,
        best.total + size,
        seconds=(best.seconds or 0.0) + seconds,
        validation=found.scores,
        members=(best.run.id, WORDS),
        encoder_weight=found.encoder_weight,
    )
    return [words, hybrid]


def measure_hybrid(
    rows: Sequence[Row],
    logits: Mapping[str, np.ndarray],
    texts: Sequence[str],
    probabilities: dict[str, np.ndarray],
    corpus: Corpus,
    folder: RunFolder,
) -> None:
    """Score the linear model on words and the hybrid on the test rows.

    Args:
        rows: rows of the results.
        logits: test logits of the trained runs, by id.
        texts: the test texts.
        probabilities: test probabilities by id, and the targets; those of the two rows are added.
        corpus: the data.
        folder: the run folder, whose hybrid receives the scores.
    """
    task, targets = corpus.dataset.task, probabilities[TARGETS]
    of_words = next((row for row in rows if row.words), None)
    if of_words is None or of_words.words is None:
        return
    others = of_words.words.logits(texts)
    found = {of_words.run.id: others}
    for row in rows:
        if row.encoder_weight is not None:
            found[row.run.id] = mixed(logits[row.members[0]], others, row.encoder_weight)
    for row in rows:
        if row.run.id in found:
            row.test = task.score(found[row.run.id], targets)
            probabilities[row.run.id] = task.probabilities(found[row.run.id])
            folder.add_metrics(row.run.id, "test", len(targets), row.test)
