"""Near copies: texts that share most of their words and word pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SIMILAR = 0.8
"""Cosine similarity of two near copies."""
FREQUENT = 1000
"""Words and pairs in more rows than this are not compared, which bounds the time."""
BLOCK = 1024
"""Rows that are compared with all others at once."""


def near_copies(texts: Sequence[str], groups: np.ndarray, least: float = SIMILAR) -> list[tuple[int, int, float]]:
    """Near copies of earlier texts, copies not counted.

    Texts are compared by the cosine of their TF-IDF vectors of words and word pairs, as scikit-learn's
    ``TfidfVectorizer`` computes them.

    Args:
        texts: the texts.
        groups: group of the copies that each row belongs to (:func:`loralet.data.splits.copies`); one row of each group
            is compared.
        least: smallest similarity, above 0.

    Returns:
        Row, the most similar earlier row, and their similarity; in the order of the rows.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    rows = np.unique(groups, return_index=True)[1]
    rows.sort()
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", sublinear_tf=True, max_df=FREQUENT)
    try:
        features = vectorizer.fit_transform([texts[int(row)] for row in rows])
    except ValueError:  # no word is in few enough rows
        return []
    found: list[tuple[int, int, float]] = []
    for start in range(0, len(rows), BLOCK):
        end = min(start + BLOCK, len(rows))
        products = (features[start:end] @ features[:end].T).tocsr()
        for i in range(start, end):
            own = slice(products.indptr[i - start], products.indptr[i - start + 1])
            others, values = products.indices[own], products.data[own]
            earlier = np.flatnonzero((others < i) & (values >= least))
            if len(earlier):
                best = earlier[values[earlier].argmax()]
                found.append((int(rows[i]), int(rows[others[best]]), float(values[best])))
    return found
