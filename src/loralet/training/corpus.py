"""The splits of a data set for training, and their token ids for a backbone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from loralet.cache import cache_folder
from loralet.config import DataOptions
from loralet.data.sources import Dataset, Split
from loralet.data.splits import carve, copies, sample
from loralet.data.tokens import Tokens, tokenise
from loralet.errors import DataError
from loralet.hub.backbone import Backbone
from loralet.runs.results import TextLengths
from loralet.runs.sources import dataset_of

UNLIMITED = 1 << 30
"""More tokens than any text has."""
UNKNOWN = ("[UNK]", "<unk>")
"""The token for unknown words, by tokenizer."""
FOREIGN = 0.1
"""Share of unknown tokens above which a model does not know the language of the texts. For English it is below 0.01."""
COVERED, SHORTEST = 0.99, 128
"""Share of the training texts that the default length does not truncate, and the smallest default length."""


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

    It is the given validation split, or a stratified part of the training rows. Copies of a text are kept together.

    Raises:
        DataError: no class has two different texts, so no row can be held out for validation.
    """
    train, validation, strata = dataset.train, dataset.validation, dataset.task.strata
    try:
        if validation is None:
            groups = copies(train.texts, train.seconds)
            kept, drawn = carve(strata(train.targets), options.validation_fraction, options.split_seed, groups)
            train, validation = dataset.train.take(kept), dataset.train.take(drawn)
        rows = sample(strata(validation.targets), sample_size, options.split_seed)
        return Corpus(dataset, train, validation, validation.take(rows))
    except ValueError as error:
        raise DataError(f"{train.source}: {error}; give more rows, or a validation file") from error


def corpus_rows(corpus: Corpus, backbone: Backbone, max_length: int | None) -> tuple[CorpusRows, TextLengths]:
    """Tokenise the corpus for a backbone; cached token ids are reused.

    Args:
        corpus: the data.
        backbone: the encoder.
        max_length: number of tokens to which texts are truncated; None: :func:`choose_length`. It is limited to the
            maximum length of the backbone.
    """
    whole = split_rows(corpus.train, backbone, UNLIMITED)
    lengths, limit = whole.tokens.lengths, backbone.table.longest
    length = choose_length(lengths, limit) if max_length is None else min(max_length, limit)
    truncated = int((lengths > length).sum())
    train = split_rows(corpus.train, backbone, length) if truncated else whole
    others = (split_rows(split, backbone, length) for split in (corpus.validation, corpus.sample))
    return CorpusRows(train, *others), TextLengths(backbone.name, length, whole.tokens.longest, truncated)


def text_notes(rows: CorpusRows, lengths: TextLengths, backbone: Backbone, strict: bool) -> Iterator[str]:
    """What to say about texts that are truncated, or in a language that the backbone does not know.

    Raises:
        DataError: many tokens are unknown to the backbone, and ``strict`` is set.
    """
    share = unknown_share(rows.train, backbone)
    if share > FOREIGN:
        told = f"{share:.0%} of the tokens in the training texts are unknown to {backbone.name}"
        told += "; choose a model of their language"
        if strict:
            raise DataError(f"{told} (--strict)")
        yield told
    if lengths.truncated:
        longest = lengths.max_length == backbone.table.longest
        remedy = "the longest that this model reads" if longest else "--max-length sets the length"
        yield (
            f"{lengths.truncated:,} of {len(rows.train):,} training texts "
            f"({100 * lengths.truncated / len(rows.train):.3g} %) are truncated to {lengths.max_length} "
            f"tokens ({remedy}; the longest text has {lengths.longest:,})"
        )


def unknown_share(rows: Rows, backbone: Backbone) -> float:
    """Share of the texts' tokens that stand for unknown words, without the special tokens around each text."""
    unknown = [backbone.tokenizer.token_to_id(token) for token in UNKNOWN]
    count = int(np.isin(rows.tokens.ids, [token for token in unknown if token is not None]).sum())
    special = len(backbone.tokenizer.encode("").ids)
    return count / max(1, len(rows.tokens.ids) - special * len(rows))


def choose_length(lengths: Int[np.ndarray, "m"], limit: int) -> int:
    """The default number of tokens to which texts are truncated.

    Texts are not padded, so a higher number costs time only for longer texts. A few very long texts would dominate it.

    Args:
        lengths: number of tokens of each training text.
        limit: maximum length of the backbone.
    """
    covering = int(np.quantile(lengths, COVERED, method="higher"))
    return min(max(covering, SHORTEST), limit)


def split_rows(split: Split, backbone: Backbone, max_length: int) -> Rows:
    """Tokenise a split for a backbone, truncated to ``max_length`` tokens."""
    tokens = tokenise(split.texts, backbone.tokenizer, max_length, cache_folder(), split.seconds)
    return Rows(tokens, torch.from_numpy(split.targets))
