"""What ``loralet predict`` prints for each text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class PredictionOptions:
    """Labels and probabilities of a prediction."""

    min_confidence: float = 0.0
    """Give no label to texts whose largest probability is lower (0 to 1)."""
    abstain_label: str = ""
    """Label of texts below --min-confidence; no label if empty."""
    top_k: int | None = None
    """Print only the probabilities of the K most probable labels, the largest first; all if not set."""
    labels_only: bool = False
    """Print only the predicted label of each text."""

    def problems(self) -> Iterator[str]:
        if not 0 <= self.min_confidence <= 1:
            yield f"min_confidence is {self.min_confidence}: it must be at least 0 and at most 1"
        if self.abstain_label and not self.min_confidence:
            yield f"abstain_label is {self.abstain_label!r}, but no text is below --min-confidence 0: set it"
        if self.top_k is not None and self.top_k < 1:
            yield f"top_k is {self.top_k}: it must be at least 1"
        if self.labels_only and self.top_k is not None:
            yield f"labels_only prints no probabilities, and top_k is {self.top_k}: give one of them"
