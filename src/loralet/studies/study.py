"""A plan is carried out: packs are trained, finalists chosen on validation, the test split read once, results written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from loralet import __version__
from loralet.errors import TrainingError
from loralet.events import Event, Stage
from loralet.inference.evaluation import score, score_logits
from loralet.runs.folder import PREDICTED, SCHEMA, RunFolder
from loralet.runs.results import Row, base_run
from loralet.studies.baselines import LinearWords, Majority
from loralet.studies.combine import combine, measure_ensembles
from loralet.studies.estimate import Packs, pack_up
from loralet.studies.plan import Plan
from loralet.training.corpus import Corpus, load_corpus, split_rows
from loralet.training.packs import Run
from loralet.training.session import Bench, Listen, make_artifact, make_bench, metrics_of, train_pack


@dataclass(frozen=True)
class Prepared:
    """A plan's inputs, read and found good: the corpus, a bench for each model, and which runs share a pack."""

    corpus: Corpus
    benches: dict[str, Bench]
    packs: Packs


def prepare(plan: Plan, listen: Listen) -> Prepared:
    """Read all that a plan needs; nothing is written but the token cache.

    Raises:
        DataError, CheckpointError, HubError: the inputs cannot be used.
    """
    listen(Stage(f"reading {plan.source}"))
    corpus = load_corpus(plan.source, plan.reading, plan.training.validation_sample)
    for note in corpus.dataset.notes:
        listen(Stage(note))
    models = dict.fromkeys(run.model for run in plan.runs)
    benches = {model: make_bench(model, plan.training, plan.reading, corpus, listen) for model in models}
    return Prepared(corpus, benches, pack_up(plan.runs, benches, plan.memory))


def carry_out(plan: Plan, prepared: Prepared, folder: RunFolder, listen: Listen) -> dict[str, Any]:
    """Do all of a plan.

    Args:
        plan: runs and options.
        prepared: its inputs.
        folder: where everything is written as it comes to be.
        listen: hears every event.

    Returns:
        results.json as written (docs/results.md has its schema).

    Raises:
        TrainingError: every run diverged before its first check.
    """

    def tell(event: Event) -> None:
        folder.record(event)
        listen(event)

    corpus, benches = prepared.corpus, prepared.benches
    rows = _majority_and_words(corpus, tell) if plan.baselines else []
    for runs in prepared.packs.packs:
        bench = benches[runs[0].model]
        if plan.baselines:
            rows += [_random_head(bench, run) for run in runs if run.role == "linear-probe"]
        trained = train_pack(bench, runs, tell, plan.exits(len(bench.rows.train)))
        for row in trained:
            if row.tensors:
                folder.save(make_artifact(row, bench, corpus, plan), bench.backbone)
        rows += trained
    if not any(row.tensors for row in rows if row.run in plan.runs):
        raise TrainingError("every run diverged before its first check; lower the learning rate")
    rows = _in_order(rows, plan)
    rows += combine(rows, benches, corpus, plan, folder, tell) if plan.combine else []
    reads = _read_test(rows, benches, corpus, plan, folder, tell)
    results = {
        "schema": SCHEMA,
        "kind": plan.kind,
        "loralet": __version__,
        "data": {
            "source": plan.source,
            "train_rows": len(corpus.train),
            "validation_rows": len(corpus.validation),
            "test_rows": len(corpus.dataset.test) if corpus.dataset.test else 0,
            "labels": list(corpus.dataset.labels),
            "fingerprint": corpus.dataset.fingerprint,
        },
        "runs": [row.to_json() for row in rows],
        "test_reads": reads,
    }
    folder.save_results(results)
    return results


def _in_order(rows: Sequence[Row], plan: Plan) -> list[Row]:
    """Rows in the order of the plan, whichever pack came first; a random head stands before its linear probe, other base rows before all."""
    places = {run.id: i for i, run in enumerate(plan.runs)}
    probes = {(run.model, run.seed): i for i, run in enumerate(plan.runs) if run.role == "linear-probe"}
    return sorted(rows, key=lambda row: places.get(row.run.id, probes.get((row.run.model, row.run.seed), 0) - 0.5))


def _majority_and_words(corpus: Corpus, tell: Listen) -> list[Row]:
    tell(Stage("fitting TF-IDF + linear SVM"))
    majority, words = Majority.fit(corpus.train), LinearWords.fit(corpus.train, seed=0)
    size = words.parameters
    rows = [
        Row(base_run("majority", "majority"), predict=majority.predict),
        Row(base_run("tfidf-svm", "tfidf-svm"), size, size, seconds=words.seconds, predict=words.predict),
    ]
    for row in rows:
        assert row.predict
        row.validation = score(
            row.predict(corpus.validation), corpus.validation.labels, len(corpus.dataset.labels), None
        )
    return rows


def _random_head(bench: Bench, like: Run) -> Row:
    """The backbone of a linear probe under a classifier that was never trained: chance, which people call base accuracy."""
    prefix = like.id[: -len(f"probe-s{like.seed}")]
    run = base_run("random-head", f"{prefix}random-s{like.seed}", like.model, like.seed)
    pack = bench.pack([run])
    row = Row(run, 0, bench.backbone.parameters + pack.trainable(0), tensors=pack.extract(pack.start(), 0))
    logits = bench.logits([run], [row.tensors], bench.rows.validation)[0]
    row.validation = score_logits(logits, bench.rows.validation.labels.numpy())
    return row


def _read_test(
    rows: Sequence[Row], benches: dict[str, Bench], corpus: Corpus, plan: Plan, folder: RunFolder, tell: Listen
) -> int:
    """The final evaluation: the one place that reads the test split. Returns how often it has been read."""
    if corpus.dataset.test is None:
        return 0
    tell(Stage(f"reading the test split: {len(corpus.dataset.test):,} rows, once"))
    test = corpus.dataset.test.read()
    predictions = {"labels": torch.from_numpy(test.labels)}
    for row in rows:
        if row.predict:
            classes = row.predict(test)
            row.test = score(classes, test.labels, len(corpus.dataset.labels), None)
            predictions[PREDICTED + row.run.id] = torch.from_numpy(classes)
    for model, bench in benches.items():
        own = [row for row in rows if row.run.model == model and row.tensors]
        tokens = split_rows(test, bench.backbone, plan.reading.max_length)
        for row, logits in zip(
            own, bench.logits([row.run for row in own], [row.tensors for row in own], tokens), strict=True
        ):
            row.test = score_logits(logits, test.labels)
            folder.add_metrics(row.run.id, "test", metrics_of(row.test, len(test)))
            predictions[row.run.id] = logits.softmax(-1)
    measure_ensembles(rows, predictions)
    folder.save_predictions(predictions)
    return corpus.dataset.test.reads
