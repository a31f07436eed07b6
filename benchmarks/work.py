"""Input and measurements shared by all contenders."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from loralet.config import DataOptions
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

Measured = dict[str, float]
"""``rows_per_second``, ``seconds`` and ``peak_bytes``; for some contenders also validation ``accuracy``."""


@dataclass(frozen=True)
class Work:
    """Input of a contender.

    Args:
        data: folder with train and test files.
        model: backbone.
        steps: optimiser steps per training.
        rows: number of texts classified by the transformers pipeline.
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
        """Folder for files."""
        return Path(os.environ.get(FOLDER) or tempfile.gettempdir())


def measured(rows: float, seconds: float) -> Measured:
    """Rows per second, seconds, and peak resident memory of this process."""
    return {"rows_per_second": rows / seconds, "seconds": seconds, "peak_bytes": peak_memory()}
