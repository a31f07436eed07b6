"""What people use instead: logistic regression on the frozen embeddings of a larger encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from sklearn.linear_model import LogisticRegression

from loralet.backends.choice import choose_backend
from loralet.cache import cache_folder
from loralet.data.tokens import tokenise
from loralet.distil.teacher import sentence_embeddings
from loralet.hub.backbone import Backbone

LENGTH = 256
"""Maximum length in tokens, as all-MiniLM-L6-v2 declares it."""
INVERSE_PENALTIES = (1.0, 10.0, 100.0)


def embeddings(backbone: Backbone, texts: Sequence[str]) -> np.ndarray:
    """Mean over the tokens of the last layer, scaled to length 1, ``[m d]``, in fp32, as sentence-transformers does."""
    column = pa.chunked_array([pa.array(texts, pa.string())])
    tokens = tokenise(column, backbone.tokenizer, min(LENGTH, backbone.table.longest), cache_folder())
    chosen = choose_backend(backbone.table, "fp32", "auto")
    found = np.concatenate([part for _, part in sentence_embeddings(backbone, tokens, chosen)])
    scaled: np.ndarray = found / np.linalg.norm(found, axis=1, keepdims=True)
    return scaled


def fit(
    train: np.ndarray, targets: np.ndarray, validation: np.ndarray, validation_targets: np.ndarray
) -> LogisticRegression:
    """Logistic regression with the inverse penalty of the best validation accuracy."""
    fitted = [LogisticRegression(C=c, max_iter=2000).fit(train, targets) for c in INVERSE_PENALTIES]
    return max(fitted, key=lambda model: float(model.score(validation, validation_targets)))
