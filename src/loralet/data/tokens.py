"""Tokenisation. The token ids are one flat array with an offset per row, cached on disk and memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from loralet.atomic import new_folder
from loralet.data.by_word import encode_by_word, frame_of
from loralet.data.sources import hash_texts
from loralet.errors import ConfigError

CHUNK = 8192
"""Rows per call of a tokenizer that encodes whole texts: enough to use all cores, few enough to limit memory."""


@dataclass(frozen=True)
class Tokens:
    """Token ids of many rows.

    Args:
        ids: token ids of all rows, concatenated, int32.
        starts: row i is ``ids[starts[i]:starts[i + 1]]``; int64, ``rows + 1`` values.
        types: token types, in the layout of ``ids``; None if all are 0 (single texts).
    """

    ids: np.ndarray
    starts: np.ndarray
    types: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens of each row."""
        return np.diff(self.starts)

    @cached_property
    def longest(self) -> int:
        """Number of tokens of the longest row."""
        return int(self.lengths.max(initial=0))


def tokenise(
    texts: pa.ChunkedArray,
    tokenizer: Tokenizer,
    max_length: int,
    cache: Path | None = None,
    seconds: pa.ChunkedArray | None = None,
) -> Tokens:
    """Token ids of every text, or of every pair of texts.

    Args:
        texts: one string per row.
        tokenizer: its settings for truncation and padding are not used.
        max_length: largest number of tokens per row, special tokens included; of a pair, the longer text is cut first.
        cache: the cache folder; entries depend on the content of texts and tokenizer. None: no cache.
        seconds: the second text of each row; None for single texts.
    """
    if cache is None:
        return _tokenise(texts, tokenizer, max_length, seconds)
    digest = hash_texts(texts)
    if seconds is not None:
        digest.update(hash_texts(seconds).digest())
    digest.update(f"{tokenizer.to_str()}{max_length}".encode())
    folder = cache / "tokens" / digest.hexdigest()
    if not folder.exists():
        tokens = _tokenise(texts, tokenizer, max_length, seconds)
        with new_folder(folder) as temporary:
            np.save(temporary / "ids.npy", tokens.ids)
            np.save(temporary / "starts.npy", tokens.starts)
            if tokens.types is not None:
                np.save(temporary / "types.npy", tokens.types)
    types = folder / "types.npy"
    return Tokens(
        np.load(folder / "ids.npy", mmap_mode="r"),
        np.load(folder / "starts.npy"),
        np.load(types, mmap_mode="r") if types.exists() else None,
    )


def _tokenise(texts: pa.ChunkedArray, tokenizer: Tokenizer, max_length: int, seconds: pa.ChunkedArray | None) -> Tokens:
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    if seconds is not None:
        return _encode_pairs(texts, seconds, plain, max_length)
    frame = frame_of(plain)
    parts = list(
        encode_by_word(texts, plain, frame, max_length) if frame else _encode_by_text(texts, plain, max_length)
    )
    lengths = np.concatenate([np.zeros(1, np.int64), *(lengths for _, lengths in parts)])
    return Tokens(np.concatenate([np.zeros(0, np.int32), *(ids for ids, _ in parts)]), np.cumsum(lengths))


def _encode_by_text(
    texts: pa.ChunkedArray, tokenizer: Tokenizer, max_length: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield concatenated token ids and the number of tokens per row, for some rows at a time. Works with any tokenizer.

    Turns on truncation in ``tokenizer``.
    """
    tokenizer.enable_truncation(max_length)
    for start in range(0, len(texts), CHUNK):
        rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts.slice(start, CHUNK).to_pylist())]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        yield np.fromiter((token for row in rows for token in row), np.int32, int(lengths.sum())), lengths


def _encode_pairs(texts: pa.ChunkedArray, seconds: pa.ChunkedArray, tokenizer: Tokenizer, max_length: int) -> Tokens:
    """Encode pairs of texts with the tokenizer's template for pairs and its token types."""
    special = tokenizer.num_special_tokens_to_add(is_pair=True)
    if max_length <= special:
        raise ConfigError(f"max_length is {max_length}: a pair of texts needs at least {special + 1} tokens")
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    ids, types, lengths = [np.zeros(0, np.int32)], [np.zeros(0, np.int8)], [np.zeros(1, np.int64)]
    for start in range(0, len(texts), CHUNK):
        pairs = list(zip(*(column.slice(start, CHUNK).to_pylist() for column in (texts, seconds)), strict=True))
        for encoding in tokenizer.encode_batch_fast(pairs):
            ids.append(np.array(encoding.ids, np.int32))
            types.append(np.array(encoding.type_ids, np.int8))
        lengths.append(np.fromiter(map(len, ids[-len(pairs) :]), np.int64, len(pairs)))
    flat = np.concatenate(types)
    return Tokens(np.concatenate(ids), np.cumsum(np.concatenate(lengths)), flat if flat.any() else None)
