"""Logits of many rows, and what they are worth."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from loralet.adapters.pack import Logits
from loralet.backends.shards import shard_count, together
from loralet.data.batches import collate, sorted_batches
from loralet.data.tokens import Tokens
from loralet.models.head import cross_entropy

BATCH_TOKENS = 8192
"""Tokens of one evaluation batch, all adapters together: large enough for full speed, small enough to stay near the processor's cache."""


@torch.no_grad()
def logits_of(
    forward: Logits, tokens: Tokens, adapters: int, device: torch.device | None = None
) -> Float[Tensor, "k m c"]:
    """Logits of every row for every adapter, in the order of the rows, on the processor.

    Args:
        forward: a pack's forward pass (:meth:`loralet.adapters.pack.Pack.logits`).
        tokens: the rows.
        adapters: k, which sets how many rows go together.
        device: where the pack's weights are.
    """
    batches = list(sorted_batches(tokens.lengths, max(1, BATCH_TOKENS // adapters)))
    count = shard_count(device or torch.device("cpu"))

    def evaluate(shard: list[np.ndarray]) -> list[Tensor]:
        return [forward(*(x.to(device) for x in collate(tokens, rows))).cpu() for rows in shard]

    shards = [batches[i::count] for i in range(count) if batches[i::count]]
    pieces = together([partial(evaluate, shard) for shard in shards])
    logits = torch.cat([piece for shard in pieces for piece in shard], dim=1)
    order = [rows for shard in shards for rows in shard]
    out = torch.empty_like(logits)
    out[:, torch.from_numpy(np.concatenate(order))] = logits
    return out


def accuracy_and_loss(logits: Float[Tensor, "k b c"], labels: Int[Tensor, "b"]) -> tuple[list[float], list[float]]:
    """Share of rows whose largest logit is the label, and mean cross-entropy in nats, for each adapter."""
    accuracy = (logits.argmax(-1) == labels).float().mean(-1)
    loss = cross_entropy(logits, labels)
    return accuracy.tolist(), loss.tolist()


@dataclass(frozen=True)
class Scores:
    """What a set of predictions is worth. ``loss`` is null where there are no probabilities (an SVM)."""

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    loss: float | None

    def to_json(self) -> dict[str, float | None]:
        return asdict(self)


def score(predicted: np.ndarray, labels: np.ndarray, classes: int, loss: float | None) -> Scores:
    """Scores of predicted class numbers, with Wilson's 95 % interval for the accuracy (Wilson 1927; scipy's binomtest).

    Macro figures are plain means over the classes; a class never predicted, or absent, counts as 0.
    """
    from scipy.stats import binomtest
    from sklearn.metrics import precision_recall_fscore_support

    right = int((predicted == labels).sum())
    interval = binomtest(right, len(labels)).proportion_ci(0.95, method="wilson")
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=range(classes), average="macro", zero_division=0.0
    )
    return Scores(
        right / len(labels), float(interval.low), float(interval.high), float(precision), float(recall), float(f1), loss
    )


def score_logits(logits: Float[Tensor, "m c"], labels: np.ndarray) -> Scores:
    """Scores of one adapter's logits."""
    loss = float(cross_entropy(logits[None], torch.from_numpy(labels))[0])
    return score(logits.argmax(-1).numpy(), labels, logits.shape[1], loss if np.isfinite(loss) else None)
