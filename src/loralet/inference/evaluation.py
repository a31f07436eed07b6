"""Logits of many rows."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from loralet.backends.base import Backend, Logits
from loralet.data.batches import gather
from loralet.data.order import BATCH_TOKENS, sorted_batches
from loralet.data.tokens import Tokens


def logits_of(backend: Backend, forward: Logits, tokens: Tokens, adapters: int) -> Float[np.ndarray, "k m c"]:
    """Logits of every row for every adapter, in the order of the rows, on the CPU.

    Args:
        backend: the backend that ``forward`` belongs to.
        forward: a pack's forward pass (:meth:`loralet.backends.base.Program.logits`).
        tokens: the rows.
        adapters: k; the more adapters, the fewer rows per batch.
    """
    rows = list(sorted_batches(tokens.lengths, max(1, BATCH_TOKENS // adapters)))
    logits = np.concatenate([part.numpy() for part in backend.map(forward, (gather(tokens, own) for own in rows))], 1)
    out = np.empty_like(logits)
    out[:, np.concatenate(rows)] = logits
    return out
