"""A linear model on words: TF-IDF of words and word pairs, and multinomial logistic regression.

scikit-learn fits it. Prediction needs only numpy, because the import of scikit-learn takes longer than a prediction.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    import pyarrow as pa
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

TOKEN = r"(?u)\w+|[^\w\s]"
"""A word or a single symbol. Unlike scikit-learn's default it keeps one-letter words, so every text has tokens."""
PATTERN = re.compile(TOKEN)
FEATURES: dict[str, Any] = {"ngram_range": (1, 2), "token_pattern": TOKEN}
"""Options of scikit-learn's vectorizers."""
INVERSE_PENALTY = 10.0
"""``C`` of scikit-learn. This and the number of features are chosen on validation rows of ten sets (dev/LOG.md)."""
MOST_FEATURES = 100_000
"""Largest number of words and word pairs; the most frequent are kept."""
MOST_COEFFICIENTS = 2_000_000
"""Largest number of coefficients over all classes, which limits the file to a few megabytes."""
MOST_ITERATIONS = 1000
VOCABULARY_ROWS = 100_000
"""With more rows, words and pairs are counted in an evenly spaced part of them: their number grows with the rows."""
CHUNK = 10_000
"""Texts whose features are held in memory at once."""
BLOCK = 1 << 22
"""Products of a value and a coefficient that are held in memory at once."""


@dataclass(frozen=True)
class Counted:
    """The features of texts as a sparse matrix in coordinates, sorted by row.

    Args:
        rows, columns: row and feature of each value.
        values: TF-IDF, each row of Euclidean length 1.
    """

    rows: Int[np.ndarray, "n"]
    columns: Int[np.ndarray, "n"]
    values: Float[np.ndarray, "n"]


@dataclass(frozen=True, eq=False)
class WordModel:
    """A fitted linear model. Its features are the tokens, then the pairs of successive tokens.

    Args:
        tokens: lower-case words and symbols, without duplicates.
        pairs: the two tokens of each pair, int32 ``[p 2]``, sorted, without duplicates.
        idf: inverse document frequency of each feature, float32 ``[t+p]``; 0 for a token that is only part of pairs.
        coefficients: float32 ``[t+p c]``.
        intercepts: float32 ``[c]``.
    """

    tokens: tuple[str, ...]
    pairs: Int[np.ndarray, "p 2"]
    idf: Float[np.ndarray, "v"]
    coefficients: Float[np.ndarray, "v c"]
    intercepts: Float[np.ndarray, "c"]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WordModel):
            return NotImplemented
        return self.tokens == other.tokens and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("pairs", "idf", "coefficients", "intercepts")
        )

    __hash__ = None  # type: ignore[assignment]  # arrays are not hashable

    @property
    def parameters(self) -> int:
        """Number of coefficients and intercepts."""
        return self.coefficients.size + self.intercepts.size

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {token: number for number, token in enumerate(self.tokens)}

    @cached_property
    def _keys(self) -> Int[np.ndarray, "p"]:
        """Each pair as one number, ascending."""
        keys: np.ndarray = self.pairs[:, 0].astype(np.int64) * len(self.tokens) + self.pairs[:, 1]
        return keys

    def count(self, texts: Sequence[str]) -> Counted:
        """TF-IDF of texts with sublinear term frequency, as scikit-learn's TfidfVectorizer computes it.

        A value is ``(1 + log count) * idf``, divided by the Euclidean length of its row.
        """
        find, number = PATTERN.findall, self._numbers.get
        found = [[number(token, -1) for token in find(text.lower())] for text in texts]
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        tokens = np.fromiter(chain.from_iterable(found), np.int64, int(lengths.sum()))
        rows = np.repeat(np.arange(len(found)), lengths)
        known = tokens >= 0
        adjacent = known[:-1] & known[1:] & (rows[:-1] == rows[1:])
        keys = tokens[:-1][adjacent] * len(self.tokens) + tokens[1:][adjacent]
        place = np.searchsorted(self._keys, keys)
        kept = np.zeros(len(keys), bool)
        kept[place < len(self._keys)] = self._keys[place[place < len(self._keys)]] == keys[place < len(self._keys)]
        cells = np.concatenate(
            [
                rows[known] * len(self.idf) + tokens[known],
                rows[:-1][adjacent][kept] * len(self.idf) + len(self.tokens) + place[kept],
            ]
        )
        cells, counts = np.unique(cells, return_counts=True)
        rows, columns = np.divmod(cells, len(self.idf))
        values = (1 + np.log(counts)) * self.idf[columns]
        norms = np.sqrt(np.bincount(rows, values**2, len(found)))
        values /= np.where(norms, norms, 1.0)[rows]
        return Counted(rows, columns, values.astype(np.float32))

    def logits(self, texts: Sequence[str] | pa.ChunkedArray) -> Float[np.ndarray, "m c"]:
        """Logits of texts, float32. A text without known words has the intercepts."""
        out = np.tile(self.intercepts, (len(texts), 1))
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            listed: Sequence[str] = chunk.to_pylist() if hasattr(chunk, "to_pylist") else chunk
            self._add_products(out[start : start + CHUNK], self.count(listed))
        return out

    def _add_products(self, out: Float[np.ndarray, "m c"], counted: Counted) -> None:
        """Add the products of features and coefficients to each row, in blocks of whole rows."""
        ends = np.searchsorted(counted.rows, np.arange(len(out) + 1))
        first = 0
        while first < len(out):
            limit = ends[first] + BLOCK // len(self.intercepts)
            last = max(first + 1, int(np.searchsorted(ends, limit, "right")) - 1)
            own = slice(ends[first], ends[last])
            filled = np.flatnonzero(np.diff(ends[first : last + 1]))
            if len(filled):
                products = counted.values[own, None] * self.coefficients[counted.columns[own]]
                out[first + filled] += np.add.reduceat(products, ends[first + filled] - ends[first])
            first = last


@dataclass(frozen=True)
class FittedWords:
    """A linear model, and the seconds that its fit took."""

    model: WordModel
    seconds: float


def fit_words(
    texts: Sequence[str],
    targets: Int[np.ndarray, "m"],
    classes: int,
    weights: Float[np.ndarray, "m"] | None = None,
    inverse_penalty: float = INVERSE_PENALTY,
    most_features: int = MOST_FEATURES,
) -> FittedWords:
    """Fit the linear model with scikit-learn.

    The coefficients are rounded to fp16, in which they are saved.

    Args:
        texts: the training texts; at least one is not blank.
        targets: their class numbers.
        classes: number of classes. A class without a row has coefficients of 0 and the intercept that gives it, on the
            average of the training rows, about the probability of one row.
        weights: weight of each row in the loss, with a mean of 1; None: all 1. Rows of weight 0 are not read.
        inverse_penalty: ``C`` of scikit-learn.
        most_features: largest number of words and pairs.
    """
    from scipy.special import logsumexp
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

    started = time.perf_counter()
    if weights is not None:
        kept = np.flatnonzero(weights)
        texts, targets, weights = [texts[int(i)] for i in kept], targets[kept], weights[kept]
    limits: dict[str, Any] = {"max_features": max(1, min(most_features, MOST_COEFFICIENTS // classes))}
    if len(texts) > VOCABULARY_ROWS:
        sample = texts[:: -(-len(texts) // VOCABULARY_ROWS)]
        limits = {"vocabulary": CountVectorizer(**FEATURES, **limits).fit(sample).vocabulary_}
    vectorizer = TfidfVectorizer(sublinear_tf=True, **FEATURES, **limits)
    features = vectorizer.fit_transform(texts)
    present, coefficients, biases = _regression(features, targets, weights, inverse_penalty)
    logits = features @ coefficients.T + biases
    every = np.zeros((len(vectorizer.vocabulary_), classes))
    intercepts = np.full(classes, logsumexp(logits, axis=1).mean() - np.log(len(texts)))
    every[:, present], intercepts[present] = coefficients.T, biases
    return FittedWords(_model(vectorizer, every, intercepts), time.perf_counter() - started)


def _regression(
    features: csr_matrix, targets: Int[np.ndarray, "m"], weights: Float[np.ndarray, "m"] | None, inverse_penalty: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes with rows ``[p]``, their coefficients ``[p v]`` and intercepts ``[p]``, all 0 for a single class."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    present = np.unique(targets)
    if len(present) == 1:
        return present, np.zeros((1, features.shape[1])), np.zeros(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the weight in a hybrid allows for an early end
        # On sparse features, SAG comes closer to the optimum than the default solver, in a fiftieth of its time.
        machine = LogisticRegression(C=inverse_penalty, solver="sag", max_iter=MOST_ITERATIONS, random_state=0)
        machine.fit(features, targets, weights)
    coefficients, biases = machine.coef_, machine.intercept_
    if len(present) == 2:  # one logit, whose sigmoid is the probability of the second class
        return present, np.concatenate([-coefficients, coefficients]) / 2, np.concatenate([-biases, biases]) / 2
    return present, coefficients, biases


def _model(vectorizer: TfidfVectorizer, coefficients: np.ndarray, intercepts: np.ndarray) -> WordModel:
    """The model with tokens and pairs instead of scikit-learn's terms."""
    terms = vectorizer.get_feature_names_out()
    parts = [term.split(" ") for term in terms]  # no token contains a space
    single = {part[0]: i for i, part in enumerate(parts) if len(part) == 1}
    tokens = tuple(sorted({token for part in parts for token in part}))
    numbers = {token: i for i, token in enumerate(tokens)}
    double = sorted((numbers[part[0]], numbers[part[1]], i) for i, part in enumerate(parts) if len(part) == 2)
    pairs = np.array([pair[:2] for pair in double], np.int32).reshape(-1, 2)
    order = np.array([single.get(token, -1) for token in tokens] + [i for _, _, i in double])
    idf = np.where(order >= 0, vectorizer.idf_[order], 0.0).astype(np.float32)
    kept = np.where(order[:, None] >= 0, coefficients[order], 0.0)
    rounded = kept.astype(np.float16).astype(np.float32)
    return WordModel(tokens, pairs, idf, rounded, intercepts.astype(np.float32))
