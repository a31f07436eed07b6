"""Remove rare tokens from the vocabulary of an encoder with a WordPiece tokenizer.

Words of removed tokens are split into shorter tokens. Most parameters of a small encoder are word embeddings.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from tokenizers import Tokenizer

from loralet.data.tokens import tokenise
from loralet.distil.texts import read_texts
from loralet.hub.backbone import Backbone
from loralet.hub.tokenizer_config import special_tokens


def token_counts(tokenizer: Tokenizer, files: Sequence[str], longest: int) -> np.ndarray:
    """Frequency of each token in the texts of the files, read as by ``loralet distill``, cut at ``longest`` tokens."""
    tokens = tokenise(read_texts(files, "").texts, tokenizer, longest)
    return np.bincount(tokens.ids, minlength=tokenizer.get_vocab_size())


def kept_tokens(tokenizer: Tokenizer, counts: np.ndarray, least: int) -> np.ndarray:
    """Ids, in their order, of the tokens that occur at least ``least`` times, of special tokens, and of single ASCII
    letters, digits and punctuation marks, so that every word of these characters can still be written."""
    vocabulary = tokenizer.get_vocab()
    prefix = json.loads(tokenizer.to_str())["model"]["continuing_subword_prefix"]
    characters = [*string.ascii_letters, *string.digits, *string.punctuation]
    always = {*special_tokens(tokenizer).values(), *characters, *(prefix + character for character in characters)}
    return np.array(
        sorted(number for token, number in vocabulary.items() if counts[number] >= least or token in always)
    )


def trimmed_tokenizer(tokenizer: Tokenizer, kept: np.ndarray) -> Tokenizer:
    """The tokenizer with the tokens ``kept``, numbered from 0 in this order."""
    numbers = {int(old): new for new, old in enumerate(kept)}
    described = json.loads(tokenizer.to_str())
    vocabulary = described["model"]["vocab"]
    described["model"]["vocab"] = {token: numbers[old] for token, old in vocabulary.items() if old in numbers}
    for token in described["added_tokens"]:
        token["id"] = numbers[token["id"]]
    for token in described["post_processor"]["special_tokens"].values():
        token["ids"] = [numbers[old] for old in token["ids"]]
    return Tokenizer.from_str(json.dumps(described))


def trim(encoder: Backbone, counts: np.ndarray, least: int) -> Backbone:
    """An encoder without its rare tokens.

    Args:
        encoder: the encoder.
        counts: frequency of each token.
        least: see :func:`kept_tokens`.
    """
    kept = kept_tokens(encoder.tokenizer, counts, least)
    return replace(
        encoder,
        table=replace(encoder.table, vocabulary=len(kept)),
        weights=encoder.weights | {"embeddings.word": encoder.weights["embeddings.word"][torch.from_numpy(kept)]},
        tokenizer=trimmed_tokenizer(encoder.tokenizer, kept),
    )
