"""loralet in the speed benchmarks: training, evaluation, texts to labels, one text, time to an accuracy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flops import flops
from instructions import has_bf16
from work import BATCH, EVERY, LENGTH, TEXT, Measured, Work, latency, measured, timed

from loralet.adapters.pack import Pack
from loralet.adapters.spec import AdapterSpec
from loralet.artifacts.folder import load_artifact
from loralet.artifacts.verify import pack_of
from loralet.backends.native.build import FORCED
from loralet.config import ComputeOptions, DataOptions, TrainConfig, TrainingOptions
from loralet.data.tokens import tokenise
from loralet.events import Checked, Stepped
from loralet.hub.backbone import load_backbone
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
QUERY_VALUE, VALUE, ALL_LINEAR = ("query", "value"), ("value",), ("all-linear",)
"""Linear layers with adapters."""
OF_FORCED = "auto" if has_bf16(os.environ.get(FORCED)) else "fp32"
"""``auto``; fp32 if an instruction set without bf16 arithmetic is forced, as auto is on a CPU with that set."""
AUTO = ComputeOptions(precision=OF_FORCED)
FP32 = ComputeOptions(precision="fp32")
TORCH = ComputeOptions(backend="torch", precision=OF_FORCED)


@dataclass(frozen=True)
class Opened:
    """A pack before its first step, with its data, session and runs."""

    corpus: Corpus
    session: Session
    runs: Sequence[Run]
    state: TrainingState

    @property
    def precision(self) -> Measured:
        """Whether the encoder is computed in bf16."""
        return {"bf16": float(self.session.on(self.state.pack).info.dtype == "bf16")}


def grid_run(
    model: str, rank: int = 16, alpha: float = 64.0, dropout: float = 0.0, targets: tuple[str, ...] = QUERY_VALUE
) -> Run:
    """A run like those of the ``rank-alpha`` preset, which are on query and value."""
    return adapter_run(model, AdapterSpec(rank=rank, alpha=alpha, dropout=dropout, targets=targets), 1e-3, 0)


def open_pack(work: Work, runs: Sequence[Run], training: TrainingOptions, compute: ComputeOptions = AUTO) -> Opened:
    """Load the data and the model, tokenise, choose a backend, and create the pack."""
    corpus = work.corpus()
    session = open_session(work.model, corpus, training, DataOptions(max_length=LENGTH), compute, lambda event: None)
    settled = [resolved(run, session.backbone.table) for run in runs]
    return Opened(corpus, session, settled, session.start(settled))


def train_pack(
    work: Work,
    cells: Sequence[tuple[int, float]] = ONE,
    compute: ComputeOptions = AUTO,
    checks: bool = False,
    dropout: float = 0.0,
    targets: tuple[str, ...] = QUERY_VALUE,
) -> Measured:
    """Train a pack of adapters; see :func:`train_runs`."""
    return train_runs(
        work, [grid_run(work.model, rank, alpha, dropout, targets) for rank, alpha in cells], compute, checks
    )


def train_full(work: Work, compute: ComputeOptions = AUTO) -> Measured:
    """Train all parameters of the encoder; see :func:`train_runs`."""
    return train_runs(work, [Run("full", work.model, "full", lr=3e-4)], compute)


def train_runs(work: Work, runs: Sequence[Run], compute: ComputeOptions, checks: bool = False) -> Measured:
    """Train runs of one pack. Rows are counted once per run. Exact work without checks ends with the last step.

    The operations of adapters are counted, not those of full fine-tuning.
    """
    training = TrainingOptions(steps=work.steps, eval_every=work.every if checks else NEVER, batch_size=work.batch)
    opened = open_pack(work, runs, training, compute)
    rows, pack = opened.session.rows, opened.state.pack
    if work.exact:
        _take_one_step(opened, training)
    started, seen = time.perf_counter(), 0
    for event in train(opened.state, rows.train, rows.sample, training, 0):
        seen += event.rows * len(event.runs) if isinstance(event, Stepped) else 0
        if work.exact and not checks and isinstance(event, Stepped) and event.step == work.steps:
            break
    found = measured(seen, time.perf_counter() - started)
    if work.exact and not pack.shape.full:
        total = flops(pack, rows.train.tokens.lengths, backward=True)
        rounds = -(-work.steps // work.every) if checks else 0
        total += rounds * flops(pack, rows.sample.tokens.lengths, backward=False)
        found["flops_per_row"] = total / seen
    return found | opened.precision


def _take_one_step(opened: Opened, training: TrainingOptions) -> None:
    """Take the first step of the same pack, and drop it."""
    state, rows = opened.session.start(opened.runs), opened.session.rows
    for event in train(state, rows.train, rows.sample, training, 0):
        if isinstance(event, Stepped):
            return


def evaluate(work: Work, compute: ComputeOptions = AUTO) -> Measured:
    """Compute the logits of all validation rows, tokenised in advance."""
    opened = open_pack(work, [grid_run(work.model)], TrainingOptions(), compute)
    state, tokens = opened.state, opened.session.rows.validation.tokens
    forward = state.program.logits(state.parameters)
    logits_of(state.backend, forward, tokens, 1)
    found = timed(lambda: logits_of(state.backend, forward, tokens, 1), len(tokens), work)
    return found | forward_flops(state.pack, tokens.lengths) | opened.precision


def predict(work: Work, compute: ComputeOptions = AUTO) -> Measured:
    """Texts to probabilities including tokenising, like the transformers pipeline."""
    opened = open_pack(work, [grid_run(work.model)], TrainingOptions(), compute)
    state, task, texts = opened.state, opened.session.task, opened.corpus.validation.texts
    tokenizer = opened.session.backbone.tokenizer
    forward = state.program.logits(state.parameters)
    logits_of(state.backend, forward, tokenise(texts.slice(0, 64), tokenizer, LENGTH), 1)

    def run() -> None:
        task.probabilities(logits_of(state.backend, forward, tokenise(texts, tokenizer, LENGTH), 1)).tolist()

    lengths = opened.session.rows.validation.tokens.lengths
    return timed(run, len(texts), work) | forward_flops(state.pack, lengths) | opened.precision


def forward_flops(pack: Pack, lengths: np.ndarray) -> Measured:
    """Operations per row of a forward pass over texts of these lengths."""
    return {"flops_per_row": flops(pack, lengths, backward=False) / len(lengths)}


def kept_predictor(adapter: Path) -> Callable[[str], object]:
    """The function that classifies one text with a loaded adapter folder."""
    from loralet import TextClassifier

    classifier = TextClassifier.load(adapter)
    return lambda text: classifier.predict([text])[0]


def one_text(work: Work) -> Measured:
    """Classify one text at a time with a kept predictor."""
    adapter = Path(work.prepared) / "adapter"
    found = latency(kept_predictor(adapter))
    backbone = load_backbone(work.model)
    lengths = np.array([len(backbone.tokenizer.encode(TEXT).ids)])
    return found | forward_flops(pack_of([load_artifact(adapter)], backbone.table)[0], lengths)


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
