"""Execution of a plan: train packs, select on validation, read the test split once, write results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from loralet.data.check import check_data
from loralet.errors import RunError, TrainingError
from loralet.events import Event, PackResumed, Stage
from loralet.interrupts import Interrupted
from loralet.runs.environment import SessionBackend
from loralet.runs.folder import HELD_OUT, PREDICTED, TARGETS, RunFolder
from loralet.runs.out_of_fold import save_out_of_fold
from loralet.runs.results import DataFacts, Results, SplitClasses
from loralet.runs.resume import Origin, origin_of
from loralet.runs.run import TRAINED, Run
from loralet.runs.selection import chosen_run, selection_of
from loralet.runs.sources import RunOptions
from loralet.studies.combine import combine, measure_ensembles
from loralet.studies.estimate import Packs, pack_up
from loralet.studies.folds import CrossValidated, cross_validate, remarks
from loralet.studies.hybrid import add_hybrid, held_out_probabilities, measure_hybrid
from loralet.studies.plan import Plan, without_repeats
from loralet.studies.saving import StudySaver
from loralet.studies.teaching import Lesson, prepare_lesson, teach
from loralet.training.corpus import Corpus, load_corpus, split_rows
from loralet.training.folds import fold_runs
from loralet.training.loop import UNSAVED, PackSaver
from loralet.training.packs import resolved
from loralet.training.row import Row
from loralet.training.session import Listen, Session, make_artifact, open_session, train_pack
from loralet.training.weights import class_weights


@dataclass(frozen=True)
class Prepared:
    """A plan with validated inputs.

    Args:
        plan: the plan, with resolved targets.
        corpus: the data.
        sessions: sessions by model.
        packs: the packs of runs.
        lesson: the training rows of a taught run; None for others.
    """

    plan: Plan
    corpus: Corpus
    sessions: dict[str, Session]
    packs: Packs
    lesson: Lesson | None = None

    @property
    def backends(self) -> tuple[SessionBackend, ...]:
        """The backends recorded in the run folder."""
        return tuple(backend for session in self.sessions.values() for backend in session.backends)

    def origin(self, config: RunOptions, report: bool = False) -> Origin:
        """What a run with these inputs begins with.

        Args:
            config: the options.
            report: whether a report was requested.
        """
        return origin_of(
            self.plan.kind,
            config,
            self.corpus.dataset,
            self.corpus.class_weights,
            {model: session.backbone.fingerprint for model, session in self.sessions.items()},
            tuple(tuple(run.id for run in runs) for runs in self.packs.packs),
            min(session.memory for session in self.sessions.values()),
            self.backends,
            report,
            self.lesson.inputs if self.lesson else (),
        )

    def as_begun(self, origin: Origin) -> Prepared:
        """A copy with the packs and the memory limit that a run began with; both depend on the free memory.

        Raises:
            RunError: the packs have other runs, because another version of loralet wrote them.
        """
        by_id = {run.id: run for runs in self.packs.packs for run in runs}
        if sorted(id for runs in origin.packs for id in runs) != sorted(by_id):
            raise RunError(f"the checkpoint was written by loralet {origin.loralet}, which names the runs differently")
        packs = tuple(tuple(by_id[id] for id in runs) for runs in origin.packs)
        sessions = {model: replace(session, memory=origin.memory) for model, session in self.sessions.items()}
        return replace(self, sessions=sessions, packs=Packs(packs, origin.memory))


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
    check = check_data(corpus.dataset)
    plan = plan.settled(len(corpus.train))
    for note in (*corpus.dataset.notes, *check.lines, *(remarks(corpus) if plan.kind == "train" else ()), *plan.notes):
        listen(Stage(note))
    if plan.reading.strict:
        check.require_clean()
    sessions = {
        model: open_session(
            model, corpus, plan.training, plan.reading, plan.compute, listen, plan.methods(model), plan.memory
        )
        for model in dict.fromkeys(run.model for run in plan.runs)
    }
    lesson = prepare_lesson(plan.teaching, corpus, plan.compute, listen) if plan.teaching else None
    if plan.teaching and lesson:
        sessions = {model: teach(session, corpus, plan.teaching, lesson) for model, session in sessions.items()}
    plan = plan.suited({model: session.backbone.table.width for model, session in sessions.items()})
    settled = [resolved(run, sessions[run.model].backbone.table) for run in plan.runs]
    plan = replace(plan, runs=without_repeats(settled))
    runs = [member for run in plan.runs for member in (run, *fold_runs(run, corpus.folds))]
    return Prepared(plan, corpus, sessions, pack_up(runs, sessions), lesson)


def carry_out(prepared: Prepared, folder: RunFolder, listen: Listen, saver: StudySaver | None = None) -> Results:
    """Execute a plan.

    Args:
        prepared: the plan and its inputs.
        folder: the run folder.
        listen: called with every event.
        saver: restores what an interrupted process has saved, and saves the progress; None: only the results are saved.

    Returns:
        The results, as written.

    Raises:
        TrainingError: every run diverged before its first check.
        Interrupted: a signal has arrived; the progress is saved.
    """

    def tell(event: Event) -> None:
        if not isinstance(event, PackResumed):
            folder.record(event)
        listen(event)

    plan, corpus, sessions = prepared.plan, prepared.corpus, prepared.sessions
    validated = _cross_validated(prepared, folder, tell, saver) if corpus.folds else None
    rows = validated.rows if validated else _trained(prepared, folder, tell, saver)
    if not any(row.tensors for row in rows if row.run in plan.runs):
        raise TrainingError("every run diverged before its first check; lower the learning rate")
    rows = _in_order(rows, plan)
    rows += combine(rows, sessions, corpus, plan, folder, tell) if plan.combine else []
    if plan.training.hybrid != "off":
        found = validated.predictions if validated else None
        rows += add_hybrid(rows, sessions, corpus, plan, found, folder, tell)
    if not corpus.folds:
        _save_held_out(rows, held_out_probabilities(rows, sessions, plan, corpus), corpus, folder)
    reads = _read_test(rows, sessions, corpus, plan, folder, tell)
    results = _results(rows, prepared, reads)
    folder.save_results(results)
    return results


def _trained(prepared: Prepared, folder: RunFolder, tell: Listen, saver: StudySaver | None) -> list[Row]:
    """Fit the baselines and train the runs, selected on the validation split, and save the trained runs."""
    packs = prepared.packs.packs
    baselines = _baselines(prepared.corpus, tell) if prepared.plan.baselines else []
    if saver is None:
        return baselines + [row for runs in packs for row in _pack(prepared, folder, tell, runs)]
    records = [saver.pack(i, runs) for i, runs in enumerate(packs, 1)]
    found = [record.rows() for record in records]
    _save_unfinished(prepared, folder, baselines, found)
    for i, (runs, record, rows) in enumerate(zip(packs, records, found, strict=True)):
        record.begin()
        if rows is not None:
            _save(record.damaged(rows), prepared, folder)
            continue
        try:
            found[i] = _pack(prepared, folder, tell, runs, record)
        except Interrupted:
            record.save()
            raise
        record.finish(found[i] or [])
        _save_unfinished(prepared, folder, baselines, found)
    return baselines + [row for own in found for row in own or ()]


def _save_unfinished(
    prepared: Prepared, folder: RunFolder, baselines: Sequence[Row], found: Sequence[Sequence[Row] | None]
) -> None:
    """Write the results of the baselines and of the finished packs."""
    rows = [*baselines, *(row for own in found for row in own or ())]
    folder.save_results(_results(_in_order(rows, prepared.plan), prepared, 0, finished=False))


def _pack(
    prepared: Prepared, folder: RunFolder, tell: Listen, runs: Sequence[Run], saver: PackSaver = UNSAVED
) -> list[Row]:
    """Train a pack and save its adapters; returns its rows, with those of random heads."""
    plan, session = prepared.plan, prepared.sessions[runs[0].model]
    heads = [_random_head(session, run) for run in runs if run.role == "linear-probe"] if plan.baselines else []
    trained = train_pack(session, runs, tell, plan.exits(len(session.rows.train)), saver)
    _save(trained, prepared, folder)
    return heads + trained


def _cross_validated(prepared: Prepared, folder: RunFolder, tell: Listen, saver: StudySaver | None) -> CrossValidated:
    """Train the run on all rows and those of the folds, and save the run and the out-of-fold predictions."""
    session, packs = prepared.sessions[prepared.plan.runs[0].model], prepared.packs.packs
    kinds = prepared.corpus.dataset.task.baselines() if prepared.plan.baselines else ()
    records = [saver.pack(i, runs) for i, runs in enumerate(packs, 1)] if saver else ()
    if saver:
        _save_unfinished(prepared, folder, [], [])
    found = cross_validate(session, prepared.corpus, packs, kinds, tell, records)
    _save(found.rows, prepared, folder)
    save_out_of_fold(folder.folder, found.predictions)
    return found


def _save(rows: Sequence[Row], prepared: Prepared, folder: RunFolder) -> None:
    """Write the adapter folders of trained rows."""
    plan = prepared.plan
    for row in rows:
        if row.tensors and row.run.role in TRAINED:
            session = prepared.sessions[row.run.model]
            folder.save(make_artifact(row, session, prepared.corpus, plan.source, plan.reading), session.backbone)


def _results(rows: Sequence[Row], prepared: Prepared, reads: int, finished: bool = True) -> Results:
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
        text_columns=dataset.text_columns,
        label_column=dataset.label_column,
        label_type=dataset.task.label_type,
        test_fingerprint=dataset.test_fingerprint,
    )
    runs = tuple(row.result() for row in rows)
    selection = selection_of(plan.training.select_by, dataset.task)
    results = Results(plan.kind, data, runs, reads, dataset.task.name, selection, finished=finished)
    if not finished:
        known = {run.id for run in runs}
        results = replace(results, pending=tuple(run.id for run in plan.runs if run.id not in known))
        if not any(run.trained for run in runs):
            return results
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
        row.held_out = predicted
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


def _save_held_out(
    rows: Sequence[Row], probabilities: Mapping[str, np.ndarray], corpus: Corpus, folder: RunFolder
) -> None:
    """Write the predictions of the validation rows.

    They tell runs apart where there is no test split; the probabilities of the classifier find likely wrong labels.
    """
    arrays = {
        PREDICTED + row.run.id: row.held_out
        for row in rows
        if row.held_out is not None and row.run.id not in probabilities
    }
    folder.save_predictions({TARGETS: corpus.validation.targets, **arrays, **probabilities}, HELD_OUT)


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
