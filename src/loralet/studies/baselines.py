"""What a LoRA must beat: the majority class, and a linear model on words (scikit-learn's)."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import LinearSVC

from loralet.data.sources import Split

TOKEN = r"(?u)\w+|[^\w\s]"
"""A word or a single sign: unlike scikit-learn's default it keeps words of one letter, so that no text is without tokens."""


@dataclass(frozen=True)
class Majority:
    """Always the most frequent training class."""

    label: int

    @classmethod
    def fit(cls, train: Split) -> Majority:
        return cls(int(np.bincount(train.labels).argmax()))

    def predict(self, split: Split) -> np.ndarray:
        return np.full(len(split), self.label)


@dataclass(frozen=True)
class LinearWords:
    """TF-IDF of words and word pairs, sublinear counts, and a linear support vector machine."""

    pipeline: Pipeline
    seconds: float

    @classmethod
    def fit(cls, train: Split, seed: int) -> LinearWords:
        started = time.perf_counter()
        pipeline = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN), LinearSVC(random_state=seed)
        )
        pipeline.fit(train.texts.to_pylist(), train.labels)
        return cls(pipeline, time.perf_counter() - started)

    @property
    def parameters(self) -> int:
        machine = self.pipeline[-1]
        return int(machine.coef_.size + machine.intercept_.size)

    def predict(self, split: Split) -> np.ndarray:
        return np.asarray(self.pipeline.predict(split.texts.to_pylist()))
