"""What every contender works on, and what it measures."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from loralet.config import DataOptions
from loralet.runs.environment import peak_memory
from loralet.training.corpus import Corpus, load_corpus

BATCH = 32
"""Rows of a training step."""
LENGTH = 128
"""Tokens kept of a text."""
EVERY = 50
"""Steps between two checks, for contenders that check."""
SAMPLE = 512
"""Rows of the validation sample that the checks read."""
FOLDER = "BENCH_FOLDER"
"""Environment variable: a folder for files that a contender has to write."""

Measured = dict[str, float]
"""``rows_per_second``, ``seconds`` and ``peak_bytes``; ``accuracy`` on validation for some."""


@dataclass(frozen=True)
class Work:
    """What a contender is asked to do.

    Args:
        data: folder with train and test files.
        model: backbone.
        steps: optimiser steps of a training.
        rows: texts that the transformers pipeline classifies.
    """

    data: str
    model: str
    steps: int
    rows: int = 1000

    def corpus(self) -> Corpus:
        """The data, split."""
        return load_corpus(self.data, DataOptions(), SAMPLE)

    @property
    def folder(self) -> Path:
        """Where to write files."""
        return Path(os.environ.get(FOLDER) or tempfile.gettempdir())


def measured(rows: float, seconds: float) -> Measured:
    """Rows per second, and the largest resident memory of this process."""
    return {"rows_per_second": rows / seconds, "seconds": seconds, "peak_bytes": peak_memory()}
