"""loralet in the speed benchmark: training, evaluation, texts to labels, time to an accuracy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from work import BATCH, EVERY, LENGTH, Measured, Work, measured

from loralet.adapters.spec import AdapterSpec
from loralet.config import ComputeOptions, DataOptions, TrainConfig, TrainingOptions
from loralet.data.tokens import tokenise
from loralet.events import Checked, Stepped
from loralet.inference.evaluation import logits_of
from loralet.runs.run import Run
from loralet.training.corpus import Corpus
from loralet.training.loop import TrainingState, train
from loralet.training.packs import adapter_run, resolved
from loralet.training.session import Session, open_session

NEVER = 10**9
"""Steps between two checks if only the last check is to run."""
ONE = ((16, 64.0),)
GRID = tuple((rank, alpha) for rank in (4, 16, 32) for alpha in (64.0, 256.0, 512.0))
"""Rank and alpha of each run of a pack."""
AUTO = ComputeOptions()
FP32 = ComputeOptions(precision="fp32")
TORCH = ComputeOptions(backend="torch")


@dataclass(frozen=True)
class Opened:
    """A pack before its first step, with its data and session."""

    corpus: Corpus
    session: Session
    state: TrainingState


def grid_run(model: str, rank: int = 16, alpha: float = 64.0, dropout: float = 0.0) -> Run:
    """A run on query and value, like the runs of the ``rank-alpha`` preset."""
    return adapter_run(model, AdapterSpec(rank=rank, alpha=alpha, dropout=dropout, targets=("query", "value")), 1e-3, 0)


def open_pack(work: Work, runs: Sequence[Run], training: TrainingOptions, compute: ComputeOptions = AUTO) -> Opened:
    """Load the data and the model, tokenise, choose a backend, and create the pack."""
    corpus = work.corpus()
    session = open_session(work.model, corpus, training, DataOptions(max_length=LENGTH), compute, lambda event: None)
    return Opened(corpus, session, session.start([resolved(run, session.backbone.table) for run in runs]))


def train_pack(
    work: Work,
    cells: Sequence[tuple[int, float]] = ONE,
    compute: ComputeOptions = AUTO,
    eval_every: int = NEVER,
    dropout: float = 0.0,
) -> Measured:
    """Train a pack. Rows are counted once per run."""
    runs = [grid_run(work.model, rank, alpha, dropout) for rank, alpha in cells]
    training = TrainingOptions(steps=work.steps, eval_every=eval_every)
    opened = open_pack(work, runs, training, compute)
    rows = opened.session.rows
    started, seen = time.perf_counter(), 0
    for event in train(opened.state, rows.train, rows.sample, training, 0):
        seen += event.rows * len(event.runs) if isinstance(event, Stepped) else 0
    return measured(seen, time.perf_counter() - started)


def evaluate(work: Work, compute: ComputeOptions = AUTO) -> Measured:
    """Compute the logits of all validation rows, tokenised in advance."""
    opened = open_pack(work, [grid_run(work.model)], TrainingOptions(), compute)
    state, tokens = opened.state, opened.session.rows.validation.tokens
    forward = state.program.logits(state.parameters)
    logits_of(state.backend, forward, tokens, 1)
    started = time.perf_counter()
    logits_of(state.backend, forward, tokens, 1)
    return measured(len(tokens), time.perf_counter() - started)


def predict(work: Work, compute: ComputeOptions = AUTO) -> Measured:
    """Texts to probabilities including tokenising, like the transformers pipeline."""
    opened = open_pack(work, [grid_run(work.model)], TrainingOptions(), compute)
    state, task, texts = opened.state, opened.session.task, opened.corpus.validation.texts
    tokenizer = opened.session.backbone.tokenizer
    forward = state.program.logits(state.parameters)
    logits_of(state.backend, forward, tokenise(texts.slice(0, 64), tokenizer, LENGTH), 1)
    started = time.perf_counter()
    task.probabilities(logits_of(state.backend, forward, tokenise(texts, tokenizer, LENGTH), 1)).tolist()
    return measured(len(texts), time.perf_counter() - started)


def train_to(work: Work, accuracy: float) -> Measured:
    """``loralet train`` with default options, stopped at the first check that reaches the accuracy.

    The checks use a sample of the validation rows; the returned accuracy is that on all validation rows. The seconds
    cover tokenising, training and checks.
    """
    default = TrainConfig()
    run = adapter_run(work.model, default.adapter, default.lr, 0)
    training = TrainingOptions(epochs=3, batch_size=BATCH, eval_every=EVERY)
    opened = open_pack(work, [run], training)
    state, session = opened.state, opened.session
    started, seen = time.perf_counter(), 0
    tokenise(opened.corpus.train.texts, session.backbone.tokenizer, LENGTH)
    for event in train(state, session.rows.train, session.rows.sample, training, 0):
        seen += event.rows if isinstance(event, Stepped) else 0
        if isinstance(event, Checked) and event.score >= accuracy:
            break
    seconds = time.perf_counter() - started
    validation = session.rows.validation
    logits = logits_of(state.backend, state.program.logits(state.parameters), validation.tokens, 1)[0]
    return measured(seen, seconds) | {"accuracy": session.task.score(logits, validation.targets.numpy())["accuracy"]}
