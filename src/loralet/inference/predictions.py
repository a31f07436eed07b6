"""Predictions of texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from loralet.tasks.base import Task

CHUNK = 20_000
"""Texts tokenised and scored at once, which bounds the memory for large files."""


@dataclass(frozen=True)
class Prediction:
    """One text's prediction; ``probabilities`` are in the order of the classifier's labels."""

    text: str
    label: str
    probabilities: tuple[float, ...]


def predictions(task: Task, texts: Sequence[str], probabilities: np.ndarray) -> Iterator[Prediction]:
    """Predictions from probabilities ``[m c]``."""
    for text, p in zip(texts, probabilities.tolist(), strict=True):
        yield Prediction(text, task.decode(p), tuple(p))
