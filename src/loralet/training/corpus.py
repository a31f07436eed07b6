"""The splits of a data set for training, and their token ids for a backbone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from loralet.cache import cache_folder
from loralet.config import DataOptions
from loralet.data.order import flat_rows
from loralet.data.sources import Dataset, Split
from loralet.data.splits import sample, train_and_validation
from loralet.data.tokens import Tokens, tokenise
from loralet.errors import DataError
from loralet.hub.backbone import Backbone
from loralet.runs.results import TextLengths
from loralet.runs.sources import dataset_of
from loralet.training.folds import fold_of_rows, number_of_folds
from loralet.training.weights import RowWeights, row_weights

UNLIMITED = 1 << 30
"""More tokens than any text has."""
UNKNOWN = ("[UNK]", "<unk>")
"""The token for unknown words, by tokenizer."""
FOREIGN = 0.1
"""Share of unknown tokens above which a model does not know the language of the texts; assumed. English tweets have
none with tiny-en."""
COVERED, SHORTEST = 0.99, 128
"""Share of the training texts that the default length does not truncate, and the smallest default length."""


@dataclass(frozen=True)
class Corpus:
    """The splits of a study.

    Args:
        dataset: the data.
        train: the training rows.
        validation: the rows for selection. With folds, these are the training rows: each is evaluated by the run that
            holds out its fold.
        sample: a fixed subset of ``validation`` for the checks during training.
        class_weights: weight of each label in the loss, in the order of the labels; None: all 1.
    """

    dataset: Dataset
    train: Split
    validation: Split
    sample: Split
    class_weights: tuple[float, ...] | None = None

    @property
    def folds(self) -> int:
        """Number of folds; 0 with a validation split."""
        return 0 if self.train.folds is None else int(self.train.folds.max()) + 1

    @property
    def validation_rows(self) -> int:
        """Rows of the validation split; 0 with folds."""
        return 0 if self.folds else len(self.validation)


@dataclass(frozen=True)
class Rows:
    """Tokenised rows with their targets, and their weights in the loss, on the CPU."""

    tokens: Tokens
    targets: Tensor
    weights: RowWeights = field(default_factory=RowWeights)

    def __len__(self) -> int:
        return len(self.tokens)

    def take(self, rows: np.ndarray) -> Rows:
        """Some rows, without weights."""
        flat = flat_rows(self.tokens, rows)
        types = None if flat.types is None else flat.types.astype(np.int8)
        return Rows(Tokens(flat.ids.astype(np.int32), flat.offsets, types), self.targets[torch.from_numpy(rows)])


@dataclass(frozen=True)
class CorpusRows:
    """The tokenised splits for training."""

    train: Rows
    validation: Rows
    sample: Rows


def load_corpus(source: str, options: DataOptions, sample_size: int, folds: int | None = 0) -> Corpus:
    """Load a data set and determine its validation split or its folds (:func:`settle`).

    Args:
        source: the data set.
        options: data options.
        sample_size: rows of the validation sample.
        folds: number of folds; 0: a validation split; None: see :func:`loralet.training.folds.number_of_folds`.

    Raises:
        DataError: see :func:`loralet.data.sources.load_dataset`; also too few rows for a validation split, or folds
            that are not possible.
        HubError: a hub data set is neither reachable nor cached.
    """
    dataset = dataset_of(source, options)
    return settle(dataset, options, sample_size, number_of_folds(dataset, folds, options.validation_fraction))


def settle(dataset: Dataset, options: DataOptions, sample_size: int, folds: int = 0) -> Corpus:
    """Determine the validation split of a data set, or its folds.

    The validation split is the given one, or a stratified part of the training rows. Copies of a text are held out
    together, unless no class has two different texts.

    Raises:
        DataError: no class has two rows, so no row can be held out for validation.
    """
    train, strata = dataset.train, dataset.task.strata
    try:
        if folds:
            held_out = fold_of_rows(train.texts, strata(train.targets), folds, options.split_seed)
            train = validation = replace(train, folds=held_out)
        else:
            train, validation = train_and_validation(dataset, options.validation_fraction, options.split_seed)
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
    task, split = corpus.dataset.task, corpus.train
    weights = row_weights(split.targets, task, corpus.class_weights, split.weights, split.folds)
    rows = CorpusRows(replace(train, weights=weights), *others)
    return rows, TextLengths(backbone.name, length, whole.tokens.longest, truncated)


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
    folds = None if split.folds is None else torch.from_numpy(split.folds)
    return Rows(tokens, torch.from_numpy(split.targets), RowWeights(folds=folds))
