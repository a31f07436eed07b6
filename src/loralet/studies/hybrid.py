"""Hybrids: a trained run combined with a linear model on words, with a weight chosen on held-out rows.

The held-out rows are those of the validation split, or with folds all training rows, out of fold. A hybrid is a copy of
the run's adapter folder with the linear model and the weight. It is only kept if it is used: with ``--hybrid auto`` if
it pays on the held-out rows (:attr:`loralet.tasks.mixing.Mixture.pays`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from loralet.artifacts.artifact import OUT_OF_FOLD, Artifact, Measured
from loralet.data.sources import Split
from loralet.events import Stage
from loralet.runs.folder import TARGETS, RunFolder
from loralet.runs.out_of_fold import OutOfFold, save_out_of_fold
from loralet.runs.run import HYBRID, Run
from loralet.runs.selection import rank_of_scores, selection_of
from loralet.studies.plan import Plan
from loralet.tasks.mixing import Mixing, choose_weight, mixed
from loralet.tasks.words import FittedWords, fit_words
from loralet.training.corpus import Corpus
from loralet.training.row import Row
from loralet.training.session import Listen, Session, make_artifact

WORDS = "tfidf-lr"
"""Role and id of the linear model's row."""


@dataclass(frozen=True)
class Hybrid:
    """The linear model and its combination with a run.

    Args:
        words: row of the linear model, with scores on the held-out rows.
        row: row of the hybrid, with scores and temperature; None if the linear model is not used.
        logits: logits of both on the held-out rows, not divided by the temperature of the hybrid, by id.
    """

    words: Row
    row: Row | None = None
    logits: Mapping[str, Float[np.ndarray, "m c"]] = field(default_factory=dict)

    @property
    def mixing(self) -> Mixing:
        """How the hybrid combines both."""
        if self.row is None or self.row.encoder_weight is None:
            return Mixing()
        return Mixing(self.row.encoder_weight, self.row.temperature)


def fit_hybrid(row: Row, logits: Float[np.ndarray, "m c"], session: Session, corpus: Corpus, tell: Listen) -> Hybrid:
    """Fit the linear model on the training rows, and choose its weight on the held-out rows.

    With ``--hybrid auto``, it is not used if it does not pay there.

    Args:
        row: a trained run.
        logits: its logits of the held-out rows, not divided by its temperature.
        session: the session that trained it.
        corpus: the data.
        tell: called with stages and the result.
    """
    tell(Stage("fitting TF-IDF + logistic regression for the hybrid"))
    task, targets = session.task, corpus.validation.targets
    fitted, others = _fit(session, corpus)
    size = fitted.model.parameters
    words = Row(Run(WORDS, "", WORDS), size, size, seconds=fitted.seconds, validation=task.score(others, targets))
    words.words, words.held_out = fitted.model, task.predicted(others)
    own = logits / row.temperature
    mixture = choose_weight(own, others, targets)
    if not (mixture.weight < 1 and (session.training.hybrid == "on" or mixture.pays)):
        tell(Stage("hybrid: the linear model on words does not pay on held-out rows; the encoder is used alone"))
        return Hybrid(words, logits={words.run.id: others})
    hybrid = Row(
        Run(f"{HYBRID}-{row.run.id}", row.run.model, HYBRID),
        row.trainable + size,
        row.total + size,
        seconds=(row.seconds or 0.0) + fitted.seconds,
        members=(row.run.id, WORDS),
        encoder_weight=mixture.weight,
    )
    together = mixed(own, others, Mixing(mixture.weight))
    hybrid.measure_validation(task, together, targets)
    tell(Stage(_outcome(hybrid, row, selection_of(session.training.select_by, task))))
    return Hybrid(words, hybrid, {words.run.id: others, hybrid.run.id: together})


def _fit(session: Session, corpus: Corpus) -> tuple[FittedWords, Float[np.ndarray, "m c"]]:
    """The linear model on all training rows, and logits of the held-out rows; out of fold, those of one per fold."""
    train, classes = corpus.train, session.task.outputs
    texts, weights = np.array(train.texts.to_pylist(), object), session.rows.train.weights.rows
    rows = None if weights is None else weights[: len(texts)].numpy()  # a taught session has rows without labels too
    fitted = fit_words(texts.tolist(), train.targets, classes, rows)
    if train.folds is None:
        return fitted, fitted.model.logits(corpus.validation.texts)
    logits, seconds = words_out_of_fold(train, classes, rows)
    return replace(fitted, seconds=fitted.seconds + seconds), logits


def words_out_of_fold(
    train: Split, classes: int, weights: Float[np.ndarray, "m"] | None = None
) -> tuple[Float[np.ndarray, "m c"], float]:
    """For each training row, logits of a linear model on words fitted without the row's fold.

    Args:
        train: the training rows, with folds.
        classes: number of classes.
        weights: weight of each row; None: all 1.

    Returns:
        The logits, and the seconds of the fits.
    """
    assert train.folds is not None
    texts, seconds = np.array(train.texts.to_pylist(), object), 0.0
    logits = np.empty((len(train), classes), np.float32)
    for fold in np.unique(train.folds):
        own = train.folds == fold
        kept = None if weights is None else weights[~own]
        part = fit_words(texts[~own].tolist(), train.targets[~own], classes, kept)
        logits[own] = part.model.logits(texts[own].tolist())
        seconds += part.seconds
    return logits, seconds


def _outcome(hybrid: Row, row: Row, selection: str) -> str:
    assert row.validation
    assert hybrid.validation
    assert hybrid.encoder_weight is not None
    weights = f"{hybrid.encoder_weight:.2f} of the encoder, {1 - hybrid.encoder_weight:.2f} of the linear model"
    before, after = row.validation[selection], hybrid.validation[selection]
    return f"hybrid: weight {weights}; held-out {selection} {before:.4f} without, {after:.4f} with the linear model"


def hybrid_artifact(artifact: Artifact, found: Hybrid, corpus: Corpus) -> Artifact:
    """The artifact of a hybrid; ``artifact`` itself if the linear model is not used.

    Args:
        artifact: the trained run.
        found: its hybrid.
        corpus: the data.
    """
    row = found.row
    if row is None or row.validation is None:
        return artifact
    measured = Measured(len(corpus.validation), row.validation, row.classes["validation"])
    return replace(
        artifact,
        id=row.run.id,
        mixing=found.mixing,
        words=found.words.words,
        provenance=replace(artifact.provenance, hybrid_of=artifact.id),
        metrics={OUT_OF_FOLD if corpus.folds else "validation": measured},
    )


def with_hybrid(artifact: Artifact, row: Row, session: Session, corpus: Corpus, tell: Listen) -> Artifact:
    """The artifact of a run trained with a validation split, or of its hybrid if the option asks for it and it pays."""
    if session.training.hybrid == "off":
        return artifact
    logits = session.logits([row.run], [row.tensors], session.rows.validation)[0]
    return hybrid_artifact(artifact, fit_hybrid(row, logits, session, corpus, tell), corpus)


def best_row(rows: Sequence[Row], plan: Plan, corpus: Corpus) -> Row:
    """The trained run of a plan that is best on the held-out rows."""
    trained = [row for row in rows if row.tensors and row.validation and row.run in plan.runs]
    selection = selection_of(plan.training.select_by, corpus.dataset.task)

    def rank(row: Row) -> tuple[float, float, int]:
        assert row.validation
        return rank_of_scores(row.validation, selection, row.trainable)

    return max(trained, key=rank)


def add_hybrid(
    rows: Sequence[Row],
    sessions: Mapping[str, Session],
    corpus: Corpus,
    plan: Plan,
    out_of_fold: OutOfFold | None,
    folder: RunFolder,
    tell: Listen,
) -> list[Row]:
    """The rows of the linear model and, if it is used, of the hybrid of the best run, which is saved.

    With folds, their out-of-fold logits are saved next to those of the run.

    Args:
        rows: rows of the results.
        sessions: sessions by model.
        corpus: the data.
        plan: the plan.
        out_of_fold: the out-of-fold predictions; None with a validation split.
        folder: the run folder.
        tell: called with every event.
    """
    best = best_row(rows, plan, corpus)
    session = sessions[best.run.model]
    if out_of_fold is None:
        logits = session.logits([best.run], [best.tensors], session.rows.validation)[0]
    else:
        logits = out_of_fold.logits[best.run.id]
    found = fit_hybrid(best, logits, session, corpus, tell)
    if out_of_fold is not None:
        save_out_of_fold(folder.folder, replace(out_of_fold, logits={**out_of_fold.logits, **found.logits}))
    if found.row is None:
        return [found.words]
    artifact = make_artifact(best, session, corpus, plan.source, plan.reading)
    folder.save(hybrid_artifact(artifact, found, corpus), session.backbone)
    return [found.words, found.row]


def held_out_probabilities(
    rows: Sequence[Row], sessions: Mapping[str, Session], plan: Plan, corpus: Corpus
) -> dict[str, Float[np.ndarray, "m c"]]:
    """Calibrated probabilities of the validation rows, by id: of the best run, and of its hybrid if there is one.

    Runs with logits that are not finite are left out.
    """
    best, task = best_row(rows, plan, corpus), corpus.dataset.task
    session = sessions[best.run.model]
    logits = session.logits([best.run], [best.tensors], session.rows.validation)[0] / best.temperature
    found = {best.run.id: logits}
    words = next((row.words for row in rows if row.words), None)
    for row in rows:
        if words is not None and row.encoder_weight is not None and row.members[0] == best.run.id:
            mixing = Mixing(row.encoder_weight, row.temperature)
            found[row.run.id] = mixed(logits, words.logits(corpus.validation.texts), mixing)
    return {run: task.probabilities(values) for run, values in found.items() if np.isfinite(values).all()}


def measure_hybrid(
    rows: Sequence[Row],
    logits: Mapping[str, Float[np.ndarray, "m c"]],
    texts: Sequence[str],
    predictions: dict[str, np.ndarray],
    corpus: Corpus,
    folder: RunFolder,
) -> None:
    """Score the linear model on words and the hybrid on the test rows.

    Args:
        rows: rows of the results.
        logits: calibrated test logits of the trained runs, by id.
        texts: the test texts.
        predictions: test probabilities by id, and the targets; those of the two rows are added.
        corpus: the data.
        folder: the run folder, whose hybrid receives the scores.
    """
    task, targets = corpus.dataset.task, predictions[TARGETS]
    words = next((row for row in rows if row.words), None)
    if words is None or words.words is None:
        return
    others = words.words.logits(texts)
    words.test, predictions[words.run.id] = task.score(others, targets), task.probabilities(others)
    for row in rows:
        if row.encoder_weight is None:
            continue
        together = mixed(logits[row.members[0]], others, Mixing(row.encoder_weight))
        predictions[row.run.id] = row.measure_test(task, together, targets)
        assert row.test
        folder.add_metrics(row.run.id, "test", len(targets), row.test, row.classes["test"])
