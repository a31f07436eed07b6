"""A plan is carried out: packs are trained, finalists chosen on validation, the test split read once, results written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from loralet import __version__
from loralet.config import TrainingOptions
from loralet.engine.corpus import Corpus, CorpusRows, corpus_rows, load_corpus, split_rows
from loralet.engine.device import choose_device, choose_dtype, place
from loralet.engine.evaluate import logits_of, score, score_logits
from loralet.engine.packs import Run, build_pack, group
from loralet.engine.runs import SCHEMA, RunFolder, peak_memory
from loralet.engine.train import Rows, TrainingState, train
from loralet.errors import CheckpointError, TrainingError
from loralet.events import Event, Stage
from loralet.nn.encoder import Weights
from loralet.nn.pack import Pack
from loralet.store.adapters import Artifact
from loralet.store.backbone import Backbone, load_backbone
from loralet.studies.baselines import LinearWords, Majority
from loralet.studies.plan import Plan
from loralet.studies.rows import Row, base_run

Listen = Callable[[Event], None]


@dataclass(frozen=True)
class Bench:
    """A backbone made ready for work: its weights in place, the corpus in its tokens."""

    backbone: Backbone
    weights: Weights
    rows: CorpusRows
    classes: int
    training: TrainingOptions

    def pack(self, runs: Sequence[Run]) -> Pack:
        return build_pack(runs, self.weights, self.backbone.shape, self.classes, self.training.head, self.training.head_dropout)

    def logits(self, runs: Sequence[Run], tensors: Sequence[dict[str, Tensor]], rows: Rows) -> Tensor:
        """Logits ``[k m c]`` of runs that have these tensors: full fine-tunings one by one, all others side by side."""
        pieces: dict[int, Tensor] = {}
        together = [i for i, run in enumerate(runs) if run.role != "full"]
        for members in [together] * bool(together) + [[i] for i, run in enumerate(runs) if run.role == "full"]:
            pack = self.pack([runs[i] for i in members])
            parameters = pack.fill([tensors[i] for i in members])
            logits = logits_of(pack.logits(parameters), rows.tokens, len(members), parameters.device)
            pieces |= dict(zip(members, logits, strict=True))
        return torch.stack([pieces[i] for i in range(len(runs))])


@dataclass(frozen=True)
class Prepared:
    """A plan's inputs, read and found good: the corpus, and a bench for each model."""

    corpus: Corpus
    benches: dict[str, Bench]


def prepare(plan: Plan, listen: Listen) -> Prepared:
    """Read all that a plan needs; nothing is written but the token cache.

    Raises:
        DataError, CheckpointError, HubError: the inputs cannot be used.
    """
    listen(Stage(f"reading {plan.source}"))
    corpus = load_corpus(plan.source, plan.reading, plan.training.validation_sample)
    for note in corpus.dataset.notes:
        listen(Stage(note))
    return Prepared(corpus, {model: _bench(model, plan, corpus, listen) for model in dict.fromkeys(run.model for run in plan.runs)})


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
    for note in corpus.dataset.notes:
        folder.record(Stage(note))
    rows = _majority_and_words(corpus, tell) if plan.baselines else []
    for runs in group(plan.runs):
        bench = benches[runs[0].model]
        if plan.baselines and runs[0].role != "full":
            rows.append(_random_head(bench, runs[0]))
        trained = _train_pack(bench, runs, tell)
        for row in trained:
            if row.tensors:
                folder.save(_artifact(row, bench, corpus, plan), bench.backbone)
        rows += trained
    if not any(row.tensors for row in rows if row.run in plan.runs):
        raise TrainingError("every run diverged before its first check; lower the learning rate")
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


def _bench(model: str, plan: Plan, corpus: Corpus, tell: Listen) -> Bench:
    tell(Stage(f"loading {model}"))
    backbone = load_backbone(model)
    if plan.training.head == "pooler" and not backbone.has_pooler:
        raise CheckpointError(f"{model} has no pooler; choose --head mean, or --head trained-pooler, which starts a new one")
    device = choose_device()
    weights = place(backbone.weights, device, choose_dtype(plan.training.precision, device))
    tell(Stage(f"tokenising {len(corpus.train) + len(corpus.validation):,} rows"))
    rows = corpus_rows(corpus, backbone, plan.reading.max_length)
    return Bench(backbone, weights, rows, len(corpus.dataset.labels), plan.training)


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
        row.validation = score(row.predict(corpus.validation), corpus.validation.labels, len(corpus.dataset.labels), None)
    return rows


def _random_head(bench: Bench, like: Run) -> Row:
    """The backbone under a classifier that was never trained: chance, which people call base accuracy."""
    prefix = like.id[: -len(f"probe-s{like.seed}")] if like.role == "linear-probe" else ""
    run = base_run("random-head", f"{prefix}random-s{like.seed}", like.model, like.seed)
    pack = bench.pack([run])
    row = Row(run, 0, bench.backbone.parameters + pack.trainable(0), tensors=pack.extract(pack.start(), 0))
    logits = bench.logits([run], [row.tensors], bench.rows.validation)[0]
    row.validation = score_logits(logits, bench.rows.validation.labels.numpy())
    return row


def _train_pack(bench: Bench, runs: Sequence[Run], tell: Listen) -> list[Row]:
    """Train a pack; of each run's best and last state, the one that the whole validation split prefers is kept."""
    pack = bench.pack(runs)
    trainable = {run.id: pack.trainable(i) for i, run in enumerate(runs)}
    state = TrainingState.start(pack, runs, bench.training.weight_decay)
    for event in train(state, bench.rows.train, bench.rows.sample, bench.training, runs[0].seed):
        tell(event)
    memory = peak_memory()
    tell(Stage(f"measuring {len(runs)} run{'s' if len(runs) > 1 else ''} on all {len(bench.rows.validation):,} validation rows"))
    rows: list[Row] = []
    for s in sorted(state.ended, key=lambda s: runs.index(s.run)):
        row = Row(s.run, trainable[s.run.id], 0, s.steps, s.converged_step, s.seconds, memory, s.status or "finished")
        own = sum(t.numel() for name, t in s.last.items() if name not in bench.backbone.weights)
        row.total = bench.backbone.parameters + own
        rows.append(row)
    candidates = [
        (row, tensors)
        for row, s in zip(rows, sorted(state.ended, key=lambda s: runs.index(s.run)), strict=True)
        for tensors in ((s.best, s.last) if s.status != "diverged" else (s.best,))
        if tensors
    ]
    if candidates:
        logits = bench.logits([row.run for row, _ in candidates], [tensors for _, tensors in candidates], bench.rows.validation)
        for (row, tensors), own_logits in zip(candidates, logits, strict=True):
            scores = score_logits(own_logits, bench.rows.validation.labels.numpy())
            if row.validation is None or scores.accuracy > row.validation.accuracy:
                row.validation, row.tensors = scores, tensors
    return rows


def _read_test(rows: Sequence[Row], benches: dict[str, Bench], corpus: Corpus, plan: Plan, folder: RunFolder, tell: Listen) -> int:
    """The final evaluation: the one place that reads the test split. Returns how often it has been read."""
    if corpus.dataset.test is None:
        return 0
    tell(Stage(f"reading the test split: {len(corpus.dataset.test):,} rows, once"))
    test = corpus.dataset.test.read()
    probabilities = {"labels": torch.from_numpy(test.labels)}
    for row in rows:
        if row.predict:
            row.test = score(row.predict(test), test.labels, len(corpus.dataset.labels), None)
    for model, bench in benches.items():
        own = [row for row in rows if row.run.model == model and row.tensors]
        tokens = split_rows(test, bench.backbone, plan.reading.max_length)
        for row, logits in zip(own, bench.logits([row.run for row in own], [row.tensors for row in own], tokens), strict=True):
            row.test = score_logits(logits, test.labels)
            probabilities[row.run.id] = logits.softmax(-1)
    folder.save_predictions(probabilities)
    return corpus.dataset.test.reads


def _artifact(row: Row, bench: Bench, corpus: Corpus, plan: Plan) -> Artifact:
    run, backbone = row.run, bench.backbone
    return Artifact(
        id=run.id,
        role=run.role,
        labels=corpus.dataset.labels,
        head=plan.training.head,
        max_length=min(plan.reading.max_length, backbone.shape.longest),
        rank=run.rank,
        alpha=run.alpha,
        dropout=run.dropout,
        targets=run.targets,
        scaling=run.scaling,
        backbone=backbone.name,
        backbone_fingerprint=backbone.fingerprint,
        architecture=backbone.architecture.model_type,
        data_fingerprint=corpus.dataset.fingerprint,
        tensors=row.tensors,
    )
