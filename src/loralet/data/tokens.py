"""Texts become token ids once: one flat array and the place where each row begins, kept in a cache and memory-mapped."""

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

CHUNK = 8192
"""Rows handed at once to a tokenizer that takes whole texts: enough to keep all cores busy, few enough to keep memory flat."""


@dataclass(frozen=True)
class Tokens:
    """Token ids of many rows.

    Args:
        ids: all rows' ids, one after another, int32.
        starts: row i is ``ids[starts[i]:starts[i + 1]]``, int64, one longer than the rows.
        types: token types, like ``ids``; None where all are 0, as of single texts.
    """

    ids: np.ndarray
    starts: np.ndarray
    types: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return np.diff(self.starts)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest row."""
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
        texts: one string a row.
        tokenizer: without truncation or padding of its own.
        max_length: ids kept of a row, special tokens included; of a pair the longer text is cut first.
        cache: where results are kept, by the content of texts and tokenizer; None: nowhere.
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
    """Ids of the texts, one after another, and the ids of each, for some rows at a time; any tokenizer.

    The tokenizer truncates from then on.
    """
    tokenizer.enable_truncation(max_length)
    for start in range(0, len(texts), CHUNK):
        rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts.slice(start, CHUNK).to_pylist())]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        yield np.fromiter((token for row in rows for token in row), np.int32, int(lengths.sum())), lengths


def _encode_pairs(texts: pa.ChunkedArray, seconds: pa.ChunkedArray, tokenizer: Tokenizer, max_length: int) -> Tokens:
    """Pairs of texts, in the tokenizer's template for pairs, with the token types that it gives."""
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
