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


def with_words(
    artifact: Artifact, logits: Float[np.ndarray, "m c"], texts: Sequence[str] | pa.ChunkedArray
) -> Float[np.ndarray, "m c"]:
    """The logits of a run on texts, from the logits of its encoder; unchanged for a run that is not a hybrid.

    Args:
        artifact: the run.
        logits: logits of its encoder, in the order of its labels.
        texts: the texts, whole: the linear model also reads what the encoder truncates.
    """
    if artifact.words is None:
        return logits
    return mixed(logits, artifact.words.logits(texts), artifact.encoder_weight)
