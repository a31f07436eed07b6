"""Cross-validation in one pack: a run for each fold, and the run on all rows that becomes the classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from loralet.events import Stage
from loralet.runs.out_of_fold import OutOfFold
from loralet.runs.run import Run
from loralet.tasks.base import BaselineKind
from loralet.training.corpus import Corpus
from loralet.training.loop import UNSAVED, PackSaver, RunState
from loralet.training.row import Row
from loralet.training.session import Listen, Session, run_pack


@dataclass(frozen=True)
class CrossValidated:
    """Results of a cross-validation.

    Args:
        rows: the baselines, then the run on all rows; their ``validation`` scores are out of fold.
        predictions: the out-of-fold predictions.
    """

    rows: list[Row]
    predictions: OutOfFold


def remarks(corpus: Corpus) -> list[str]:
    """The folds in one sentence, for the user; empty with a validation split."""
    if not corpus.folds:
        return []
    return [
        f"{corpus.folds} folds: one run per fold, and one on all {len(corpus.train):,} rows, which becomes the "
        "classifier (--folds 0: a validation split instead)"
    ]


def cross_validate(
    session: Session,
    corpus: Corpus,
    packs: Sequence[Sequence[Run]],
    kinds: Sequence[BaselineKind],
    tell: Listen,
    savers: Sequence[PackSaver] = (),
) -> CrossValidated:
    """Train the runs of a cross-validation, and fit baselines on the same folds.

    The run on all rows keeps its last state: no rows are left to select another one. Its temperature
    is fitted on the out-of-fold logits. Its seconds are those of all runs.

    Args:
        session: the session.
        corpus: data with folds.
        packs: the run on all rows and the runs of all folds (:func:`loralet.training.folds.fold_runs`), in packs.
        kinds: the baselines.
        tell: called with every event.
        savers: restore and save the state of each pack; empty: nothing is saved.
    """
    rows: list[Row] = []
    predicted: dict[str, np.ndarray] = {}
    for kind in kinds:
        tell(Stage(f"fitting {kind.description} on {corpus.folds} folds"))
        row, predicted[row.run.id] = _baseline(kind, corpus)
        rows.append(row)
    trained: list[Row] = []
    ended: list[RunState] = []
    for runs, saver in zip(packs, savers or [UNSAVED for _ in packs], strict=True):
        saver.begin()
        made, states = run_pack(session, runs, tell, saver=saver)
        saver.save()
        trained += made
        ended += states
    whole = next(row for row in trained if row.run.fold is None)
    whole.seconds = sum(row.seconds or 0.0 for row in trained)
    tell(Stage(f"measuring {corpus.folds} runs on the rows that each held out: {len(corpus.train):,} in total"))
    logits = _out_of_fold(session, ended, tell)
    task, targets = session.task, corpus.train.targets
    whole.measure_validation(task, logits, targets)
    last = next(s for s in ended if s.run.fold is None)
    whole.tensors = last.last if last.status != "diverged" else {}
    assert corpus.train.folds is not None
    found = OutOfFold(targets, corpus.train.folds, {whole.run.id: logits}, predicted)
    return CrossValidated([*rows, whole], found)


def _out_of_fold(session: Session, ended: Sequence[RunState], tell: Listen) -> Float[np.ndarray, "m c"]:
    """For each training row, the logits of the last state of the run that held it out."""
    rows = session.rows.train
    assert rows.weights.folds is not None
    folds = rows.weights.folds.numpy()
    found = np.empty((len(rows), session.task.outputs), np.float32)
    for s in ended:
        if s.run.fold is None:
            continue
        if s.status == "diverged":
            tell(Stage(f"{s.run.id} diverged at step {s.steps}: its last finite state is measured"))
        own = np.flatnonzero(folds == s.run.fold)
        found[own] = session.logits([s.run], [s.last], rows.take(own))[0]
    return found


def _baseline(kind: BaselineKind, corpus: Corpus) -> tuple[Row, np.ndarray]:
    """A baseline fitted on all rows, with out-of-fold scores, and its out-of-fold predictions."""
    task, targets, folds = corpus.dataset.task, corpus.train.targets, corpus.train.folds
    assert folds is not None
    texts = np.array(corpus.train.texts.to_pylist(), object)
    baseline = kind.fit(texts.tolist(), targets)
    seconds, predicted = baseline.seconds, np.empty_like(targets)
    for fold in range(corpus.folds):
        own = folds == fold
        fitted = kind.fit(texts[~own].tolist(), targets[~own])
        predicted[own] = fitted.predict(texts[own].tolist())
        seconds = None if seconds is None or fitted.seconds is None else seconds + fitted.seconds
    run = Run(baseline.role, "", baseline.role)
    row = Row(run, baseline.parameters, baseline.parameters, seconds=seconds, predict=baseline.predict)
    row.validation = task.score_predictions(predicted, targets)
    return row, predicted
