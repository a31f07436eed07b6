"""Predictions of texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from loralet.tasks.base import Task

CHUNK = 20_000
"""Texts tokenised and scored at once, which bounds the memory for large files."""


@dataclass(frozen=True)
class Prediction:
    """One text's prediction.

    Args:
        text: the text.
        label: the predicted label; None if the text is empty, or if its confidence is too low.
        probabilities: in the order of the classifier's labels; None if the text is empty.
    """

    text: str
    label: str | None
    probabilities: tuple[float, ...] | None

    @property
    def confidence(self) -> float | None:
        """The largest probability."""
        return None if self.probabilities is None else max(self.probabilities)


def predictions(task: Task, texts: Sequence[str], probabilities: np.ndarray) -> Iterator[Prediction]:
    """Predictions from probabilities ``[m c]``."""
    for text, p in zip(texts, probabilities.tolist(), strict=True):
        yield Prediction(text, task.decode(p), tuple(p))


def abstaining(found: Iterable[Prediction], least: float, label: str | None) -> Iterator[Prediction]:
    """Predictions without a label, or with another one, where the confidence is below ``least``."""
    for prediction in found:
        low = prediction.confidence is not None and prediction.confidence < least
        yield replace(prediction, label=label) if low else prediction
