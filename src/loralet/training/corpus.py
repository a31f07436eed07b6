"""A data set cut into the parts that training looks at, and those parts as token ids of a backbone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from loralet.cache import cache_folder
from loralet.config import DataOptions
from loralet.data.files import Columns
from loralet.data.sources import Dataset, Split, load_dataset
from loralet.data.splits import carve, sample
from loralet.data.tokens import Tokens, tokenise
from loralet.errors import DataError
from loralet.hub.backbone import Backbone
from loralet.training.loop import Rows


@dataclass(frozen=True)
class Corpus:
    """The splits of a study. ``sample`` is the fixed part of ``validation`` for the frequent checks."""

    dataset: Dataset
    train: Split
    validation: Split
    sample: Split


@dataclass(frozen=True)
class CorpusRows:
    """The splits that training looks at, tokenised."""

    train: Rows
    validation: Rows
    sample: Rows


def columns_of(options: DataOptions) -> Columns:
    return Columns(options.text_column, options.label_column, options.columns)


def load_corpus(source: str, options: DataOptions, sample_size: int) -> Corpus:
    """Load a data set and settle its validation split: its own, or one carved from the training rows.

    Raises:
        DataError: see :func:`loralet.data.sources.load_dataset`; also too few rows to keep some for validation.
        HubError: a hub id that is neither reachable nor cached.
    """
    return settle(
        load_dataset(source, columns_of(options), options.label_names, options.drop_overlap), options, sample_size
    )


def settle(dataset: Dataset, options: DataOptions, sample_size: int) -> Corpus:
    """Settle the validation split of a data set: its own, or one carved from the training rows, every class in the same proportion.

    Raises:
        DataError: no class has two rows, so that none could be kept for validation.
    """
    train, validation = dataset.train, dataset.validation
    try:
        if validation is None:
            kept, drawn = carve(train.labels, options.validation_fraction, options.split_seed)
            train, validation = dataset.train.take(kept), dataset.train.take(drawn)
        return Corpus(
            dataset, train, validation, validation.take(sample(validation.labels, sample_size, options.split_seed))
        )
    except ValueError as error:
        raise DataError(f"{train.source}: {error}; give more rows, or a validation file of your own") from error


def corpus_rows(corpus: Corpus, backbone: Backbone, max_length: int) -> CorpusRows:
    """The corpus as token ids of a backbone, from the cache where they have been made before."""
    return CorpusRows(
        *(split_rows(split, backbone, max_length) for split in (corpus.train, corpus.validation, corpus.sample))
    )


def split_rows(split: Split, backbone: Backbone, max_length: int, cache: Path | None = None) -> Rows:
    """One split as token ids of a backbone; ``max_length`` is cut to what the backbone's position table holds."""
    length = min(max_length, backbone.shape.longest)
    tokens: Tokens = tokenise(split.texts, backbone.tokenizer, length, cache or cache_folder())
    return Rows(tokens, torch.from_numpy(split.labels))
