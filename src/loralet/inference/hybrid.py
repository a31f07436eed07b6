"""Prediction of a hybrid: a trained run together with a linear model on words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from loralet.artifacts.artifact import Artifact
from loralet.tasks.mixing import mixed

if TYPE_CHECKING:
    import pyarrow as pa


def final_logits(
    artifact: Artifact, logits: Float[np.ndarray, "m c"], texts: Sequence[str] | pa.ChunkedArray
) -> Float[np.ndarray, "m c"]:
    """The calibrated logits of a run on texts, from those of its encoder.

    Args:
        artifact: the run; with a linear model on words if it is a hybrid.
        logits: logits of its encoder, in the order of its labels, not yet divided by the temperature.
        texts: the texts, whole: the linear model also reads what the encoder truncates.
    """
    own = logits / artifact.temperature
    return own if artifact.words is None else mixed(own, artifact.words.logits(texts), artifact.mixing)
