"""Input and measurements shared by all contenders."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow.compute as pc

from loralet.config import DataOptions
from loralet.data.sources import Split
from loralet.runs.environment import peak_memory
from loralet.training.corpus import Corpus, load_corpus

BATCH = 32
"""Rows per training step."""
LENGTH = 128
"""Maximum number of tokens of a text."""
EVERY = 50
"""Steps between two checks, for contenders that check."""
SAMPLE = 512
"""Rows of the validation sample used by the checks."""
FOLDER = "BENCH_FOLDER"
"""Environment variable with the folder for files written by a contender."""
TEXT = "stocks fell on friday as oil prices rose and investors waited for new figures from the central bank"
"""A text of 20 tokens of BERT's uncased vocabulary, with the special tokens."""
SECONDS = 1.0
"""Least time of repeated passes."""
CALLS = 10
"""Least number of calls of a latency."""

Measured = dict[str, float]
"""``rows_per_second``, ``seconds`` and ``peak_bytes``; for some contenders also validation ``accuracy``,
``flops_per_row``, ``latency_ms``, or ``bf16``: 1 if the encoder is computed in bf16, else 0."""


@dataclass(frozen=True)
class Work:
    """Input of a contender.

    Args:
        data: folder with train and test files.
        model: backbone.
        steps: optimiser steps per training.
        rows: number of validation rows and of texts to classify; 0: all, or 1,000 for the transformers pipeline.
        batch: rows per training step.
        every: steps between two checks, for contenders that check.
        sample: rows of the validation sample used by the checks.
        exact: train for exactly one epoch, on rows spread over all lengths, after a step that is not counted; repeat
            evaluation and prediction for at least :data:`SECONDS`. Then contenders with different numbers of rows are
            comparable.
        prepared: folder with the adapter and graphs of the backbone (:mod:`prepared`).
    """

    data: str
    model: str
    steps: int
    rows: int = 0
    batch: int = BATCH
    every: int = EVERY
    sample: int = SAMPLE
    exact: bool = False
    prepared: str = ""

    def corpus(self) -> Corpus:
        """The data, split."""
        corpus = load_corpus(self.data, DataOptions(), self.sample)
        if not self.exact:
            return corpus
        validation = spread(corpus.validation, self.rows or len(corpus.validation))
        sample = spread(corpus.validation, self.sample)
        return replace(
            corpus, train=spread(corpus.train, self.steps * self.batch), validation=validation, sample=sample
        )

    @property
    def folder(self) -> Path:
        """Folder for files."""
        return Path(os.environ.get(FOLDER) or tempfile.gettempdir())


def spread(split: Split, rows: int) -> Split:
    """Rows of a split, evenly spread over the lengths of the texts, in random order; repeated if there are too few."""
    lengths = pc.utf8_length(split.texts).to_numpy()
    places = ((np.arange(rows) + 0.5) * len(lengths) / rows).astype(np.int64)
    chosen = np.argsort(lengths, kind="stable")[places]
    return split.take(np.random.default_rng(0).permutation(chosen))


def measured(rows: float, seconds: float) -> Measured:
    """Rows per second, seconds, and peak resident memory of this process."""
    return {"rows_per_second": rows / seconds, "seconds": seconds, "peak_bytes": peak_memory()}


def timed(run: Callable[[], object], rows: int, work: Work) -> Measured:
    """Time one pass over the rows; for exact work, as many passes as take :data:`SECONDS`."""
    passes, started = 0, time.perf_counter()
    while True:
        run()
        passes, seconds = passes + 1, time.perf_counter() - started
        if not work.exact or seconds >= SECONDS:
            return measured(rows * passes, seconds)


def latency(answer: Callable[[str], object]) -> Measured:
    """Time single calls on :data:`TEXT`. The speed is that of the median."""
    for _ in range(3):
        answer(TEXT)
    times: list[float] = []
    while len(times) < CALLS or sum(times) < SECONDS:
        started = time.perf_counter()
        answer(TEXT)
        times.append(time.perf_counter() - started)
    middle = median(times)
    return measured(1, middle) | {"seconds": sum(times), "latency_ms": 1000 * middle}
