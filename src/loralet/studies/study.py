"""Execution of a plan: train packs, select on validation, read the test split once, write results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from loralet.errors import TrainingError
from loralet.events import Event, Stage
from loralet.runs.environment import SessionBackend
from loralet.runs.folder import PREDICTED, TARGETS, RunFolder
from loralet.runs.out_of_fold import save_out_of_fold
from loralet.runs.results import DataFacts, Results, SplitClasses
from loralet.runs.run import Run
from loralet.runs.selection import chosen_run, selection_of
from loralet.studies.combine import combine, measure_ensembles
from loralet.studies.estimate import Packs, pack_up
from loralet.studies.folds import CrossValidated, cross_validate, remarks
from loralet.studies.hybrid import add_hybrid, measure_hybrid
from loralet.studies.plan import Plan
from loralet.training.corpus import Corpus, load_corpus, split_rows
from loralet.training.folds import fold_runs
from loralet.training.packs import resolved
from loralet.training.session import Listen, Row, Session, make_artifact, open_session, train_pack
from loralet.training.weights import class_weights


@dataclass(frozen=True)
class Prepared:
    """A plan with validated inputs.

    Args:
        plan: the plan, with resolved targets.
        corpus: the data.
        sessions: sessions by model.
        packs: the packs of runs.
    """

    plan: Plan
    corpus: Corpus
    sessions: dict[str, Session]
    packs: Packs

    @property
    def backends(self) -> tuple[SessionBackend, ...]:
        """The backends recorded in the run folder."""
        return tuple(backend for session in self.sessions.values() for backend in session.backends)


def prepare(plan: Plan, listen: Listen) -> Prepared:
    """Read all inputs of a plan; only the token cache is written.

    Raises:
        ConfigError: a model does not have a target, or the requested backend is not available.
        DataError, CheckpointError, HubError: the inputs cannot be used.
    """
    listen(Stage(f"reading {plan.source}"))
    corpus = load_corpus(plan.source, plan.reading, plan.training.validation_sample, plan.folds)
    weights = class_weights(plan.training.class_weight, corpus.train.targets, corpus.dataset.task)
    corpus = replace(corpus, class_weights=weights)
    for note in (*corpus.dataset.notes, *remarks(corpus)):
        listen(Stage(note))
    sessions = {
        model: open_session(
            model, corpus, plan.training, plan.reading, plan.compute, listen, plan.methods(model), plan.memory
        )
        for model in dict.fromkeys(run.model for run in plan.runs)
    }
    plan = replace(plan, runs=tuple(resolved(run, sessions[run.model].backbone.table) for run in plan.runs))
    runs = [member for run in plan.runs for member in (run, *fold_runs(run, corpus.folds))]
    return Prepared(plan, corpus, sessions, pack_up(runs, sessions))


def carry_out(prepared: Prepared, folder: RunFolder, listen: Listen) -> Results:
    """Execute a plan.

    Args:
        prepared: the plan and its inputs.
        folder: the run folder.
        listen: called with every event.

    Returns:
        The results, as written.

    Raises:
        TrainingError: every run diverged before its first check.
    """

    def tell(event: Event) -> None:
        folder.record(event)
        listen(event)

    plan, corpus, sessions = prepared.plan, prepared.corpus, prepared.sessions
    validated = _cross_validated(prepared, folder, tell) if corpus.folds else None
    rows = validated.rows if validated else _trained(prepared, folder, tell)
    if not any(row.tensors for row in rows if row.run in plan.runs):
        raise TrainingError("every run diverged before its first check; lower the learning rate")
    rows = _in_order(rows, plan)
    rows += combine(rows, sessions, corpus, plan, folder, tell) if plan.combine else []
    if plan.training.hybrid != "off":
        found = validated.predictions if validated else None
        rows += add_hybrid(rows, sessions, corpus, plan, found, folder, tell)
    reads = _read_test(rows, sessions, corpus, plan, folder, tell)
    results = _results(rows, prepared, reads)
    folder.save_results(results)
    return results


def _trained(prepared: Prepared, folder: RunFolder, tell: Listen) -> list[Row]:
    """Fit the baselines and train the runs, selected on the validation split, and save the trained runs."""
    plan, corpus, sessions = prepared.plan, prepared.corpus, prepared.sessions
    rows = _baselines(corpus, tell) if plan.baselines else []
    for runs in prepared.packs.packs:
        session = sessions[runs[0].model]
        if plan.baselines:
            rows += [_random_head(session, run) for run in runs if run.role == "linear-probe"]
        trained = train_pack(session, runs, tell, plan.exits(len(session.rows.train)))
        _save(trained, session, prepared, folder)
        rows += trained
    return rows


def _cross_validated(prepared: Prepared, folder: RunFolder, tell: Listen) -> CrossValidated:
    """Train the run on all rows and those of the folds, and save the run and the out-of-fold predictions."""
    session = prepared.sessions[prepared.plan.runs[0].model]
    kinds = prepared.corpus.dataset.task.baselines() if prepared.plan.baselines else ()
    found = cross_validate(session, prepared.corpus, prepared.packs.packs, kinds, tell)
    _save(found.rows, session, prepared, folder)
    save_out_of_fold(folder.folder, found.predictions)
    return found


def _save(rows: Sequence[Row], session: Session, prepared: Prepared, folder: RunFolder) -> None:
    plan = prepared.plan
    for row in rows:
        if row.tensors:
            folder.save(make_artifact(row, session, prepared.corpus, plan.source, plan.reading), session.backbone)


def _results(rows: Sequence[Row], prepared: Prepared, reads: int) -> Results:
    plan, corpus = prepared.plan, prepared.corpus
    dataset = corpus.dataset
    data = DataFacts(
        source=plan.source,
        train_rows=len(corpus.train),
        validation_rows=corpus.validation_rows,
        test_rows=len(dataset.test) if dataset.test else 0,
        labels=dataset.task.labels,
        fingerprint=dataset.fingerprint,
        folds=corpus.folds or None,
        lengths=tuple(session.lengths for session in prepared.sessions.values()),
    )
    runs = tuple(row.result() for row in rows)
    selection = selection_of(plan.training.select_by, dataset.task)
    results = Results(plan.kind, data, runs, reads, dataset.task.name, selection)
    chosen = chosen_run(results).id
    classes = next(row.classes for row in rows if row.run.id == chosen)
    names = {"validation": data.held_out}
    found = tuple(SplitClasses(chosen, names.get(split, split), scores) for split, scores in classes.items())
    return replace(results, classes=found)


def _in_order(rows: Sequence[Row], plan: Plan) -> list[Row]:
    """Sort rows in the order of the plan.

    A random head precedes its linear probe; other baselines come first.
    """
    places = {run.id: i for i, run in enumerate(plan.runs)}
    probes = {(run.model, run.seed): i for i, run in enumerate(plan.runs) if run.role == "linear-probe"}
    return sorted(rows, key=lambda row: places.get(row.run.id, probes.get((row.run.model, row.run.seed), 0) - 0.5))


def _baselines(corpus: Corpus, tell: Listen) -> list[Row]:
    """Fit the baselines without an encoder on the training rows."""
    task, texts = corpus.dataset.task, corpus.train.texts.to_pylist()
    rows: list[Row] = []
    for kind in task.baselines():
        tell(Stage(f"fitting {kind.description}"))
        baseline = kind.fit(texts, corpus.train.targets)
        size = baseline.parameters
        row = Row(Run(baseline.role, "", baseline.role), size, size, seconds=baseline.seconds, predict=baseline.predict)
        predicted = baseline.predict(corpus.validation.texts.to_pylist())
        row.validation = task.score_predictions(predicted, corpus.validation.targets)
        rows.append(row)
    return rows


def _random_head(session: Session, like: Run) -> Row:
    """A linear probe's backbone with an untrained classifier (chance level, often called base accuracy)."""
    prefix = like.id[: -len(f"probe-s{like.seed}")]
    run = Run(f"{prefix}random-s{like.seed}", like.model, "random-head", seed=like.seed)
    pack = session.pack([run])
    tensors = pack.extract(pack.start(session.backbone.weights), 0)
    row = Row(run, 0, session.backbone.parameters + pack.trainable(0), tensors=tensors)
    logits = session.logits([run], [row.tensors], session.rows.validation)[0]
    row.validation = session.task.score(logits, session.rows.validation.targets.numpy())
    return row


def _read_test(
    rows: Sequence[Row],
    sessions: Mapping[str, Session],
    corpus: Corpus,
    plan: Plan,
    folder: RunFolder,
    tell: Listen,
) -> int:
    """Evaluate on the test split. Only this function reads it. Returns the number of reads."""
    if corpus.dataset.test is None:
        return 0
    tell(Stage(f"reading the test split: {len(corpus.dataset.test):,} rows, once"))
    test, task = corpus.dataset.test.read(), corpus.dataset.task
    predictions, calibrated = {TARGETS: test.targets}, dict[str, np.ndarray]()
    for row in rows:
        if row.predict:
            predicted = row.predict(test.texts.to_pylist())
            row.test = task.score_predictions(predicted, test.targets)
            predictions[PREDICTED + row.run.id] = predicted
    for model, session in sessions.items():
        own = [row for row in rows if row.run.model == model and row.tensors]
        tokens = split_rows(test, session.backbone, session.lengths.max_length)
        every = session.logits([row.run for row in own], [row.tensors for row in own], tokens)
        for row, logits in zip(own, every, strict=True):
            predictions[row.run.id] = row.measure_test(task, logits, test.targets)
            assert row.test
            folder.add_metrics(row.run.id, "test", len(test), row.test, row.classes["test"])
            calibrated[row.run.id] = logits / row.temperature
    measure_ensembles(rows, predictions, task)
    measure_hybrid(rows, calibrated, test.texts.to_pylist(), predictions, corpus, folder)
    folder.save_predictions(predictions)
    return corpus.dataset.test.reads
