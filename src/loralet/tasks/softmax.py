"""The softmax over classes, in numpy."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def log_softmax(logits: Float[np.ndarray, "*axes c"]) -> Float[np.ndarray, "*axes c"]:
    """Logarithms of the softmax over the last axis, in the type of the logits."""
    with np.errstate(invalid="ignore"):  # logits of a run that diverged
        shifted = logits - logits.max(-1, keepdims=True)
        found: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return found


def softmax(logits: Float[np.ndarray, "*axes c"]) -> Float[np.ndarray, "*axes c"]:
    """The softmax over the last axis, in the type of the logits."""
    found: np.ndarray = np.exp(log_softmax(logits))
    return found
