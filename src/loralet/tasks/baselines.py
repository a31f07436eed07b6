"""Baselines: the majority class, and a linear model on TF-IDF features (scikit-learn)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import LinearSVC

from loralet.tasks.words import TOKEN

SEED = 0


@dataclass(frozen=True)
class Majority:
    """Always the most frequent training class; see :class:`loralet.tasks.base.Baseline`."""

    label: int

    role = "majority"
    description = "the majority class"
    parameters = 0
    seconds: float | None = None

    @classmethod
    def fit(cls, texts: Sequence[str], targets: np.ndarray) -> Majority:
        """Find the most frequent target; the texts are not used."""
        return cls(int(np.bincount(targets).argmax()))

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        return np.full(len(texts), self.label)


@dataclass(frozen=True)
class LinearWords:
    """TF-IDF of words and word pairs with sublinear term frequency, and a linear SVM."""

    pipeline: Pipeline
    seconds: float | None

    role = "tfidf-svm"
    description = "TF-IDF + linear SVM"

    @classmethod
    def fit(cls, texts: Sequence[str], targets: np.ndarray) -> LinearWords:
        """Fit to texts and class numbers."""
        started = time.perf_counter()
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN)
        pipeline = make_pipeline(vectorizer, LinearSVC(random_state=SEED)).fit(texts, targets)
        return cls(pipeline, time.perf_counter() - started)

    @property
    def parameters(self) -> int:
        machine = self.pipeline[-1]
        return int(machine.coef_.size + machine.intercept_.size)

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        return np.asarray(self.pipeline.predict(texts))
