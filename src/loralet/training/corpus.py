"""The splits of a data set for training, and their token ids for a backbone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from loralet.cache import cache_folder
from loralet.config import DataOptions
from loralet.data.sources import Dataset, Split
from loralet.data.splits import carve, sample
from loralet.data.tokens import Tokens, tokenise
from loralet.errors import DataError
from loralet.hub.backbone import Backbone
from loralet.runs.sources import dataset_of


@dataclass(frozen=True)
class Corpus:
    """The splits of a study. ``sample`` is a fixed subset of ``validation`` for the checks during training."""

    dataset: Dataset
    train: Split
    validation: Split
    sample: Split


@dataclass(frozen=True)
class Rows:
    """Tokenised rows with their targets, on the CPU."""

    tokens: Tokens
    targets: Tensor

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class CorpusRows:
    """The tokenised splits for training."""

    train: Rows
    validation: Rows
    sample: Rows


def load_corpus(source: str, options: DataOptions, sample_size: int) -> Corpus:
    """Load a data set and determine its validation split (:func:`settle`).

    Raises:
        DataError: see :func:`loralet.data.sources.load_dataset`; also too few rows for a validation split.
        HubError: a hub data set is neither reachable nor cached.
    """
    return settle(dataset_of(source, options), options, sample_size)


def settle(dataset: Dataset, options: DataOptions, sample_size: int) -> Corpus:
    """Determine the validation split of a data set.

    It is the given validation split, or a stratified part of the training rows.

    Raises:
        DataError: no class has two rows, so no row can be held out for validation.
    """
    train, validation, strata = dataset.train, dataset.validation, dataset.task.strata
    try:
        if validation is None:
            kept, drawn = carve(strata(train.targets), options.validation_fraction, options.split_seed)
            train, validation = dataset.train.take(kept), dataset.train.take(drawn)
        rows = sample(strata(validation.targets), sample_size, options.split_seed)
        return Corpus(dataset, train, validation, validation.take(rows))
    except ValueError as error:
        raise DataError(f"{train.source}: {error}; give more rows, or a validation file") from error


def corpus_rows(corpus: Corpus, backbone: Backbone, max_length: int) -> CorpusRows:
    """Tokenise the corpus for a backbone; cached token ids are reused."""
    return CorpusRows(
        *(split_rows(split, backbone, max_length) for split in (corpus.train, corpus.validation, corpus.sample))
    )


def split_rows(split: Split, backbone: Backbone, max_length: int, cache: Path | None = None) -> Rows:
    """Tokenise a split for a backbone; ``max_length`` is limited to the maximum length of the backbone."""
    length = min(max_length, backbone.table.longest)
    tokens = tokenise(split.texts, backbone.tokenizer, length, cache or cache_folder(), split.seconds)
    return Rows(tokens, torch.from_numpy(split.targets))
