"""Tokenisation. The token ids are one flat array with an offset per row, cached on disk and memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from loralet.data.arrays import read_arrays, write_arrays
from loralet.data.by_word import encode_by_word, frame_of
from loralet.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK = 8192
"""Rows per call of a tokenizer that encodes whole texts: enough to use all cores, few enough to limit memory."""
FEW = 64
"""Up to this many texts are encoded one by one, without Arrow."""


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
        cache: the cache folder; entries depend on the content of texts and tokenizer. A damaged entry is made again,
            and a folder that cannot be written is not used. None: no cache.
        seconds: the second text of each row; None for single texts.
    """
    if cache is None:
        return _tokenise(texts, tokenizer, max_length, seconds)
    from loralet.data.sources import hash_texts

    digest = hash_texts(texts)
    if seconds is not None:
        digest.update(hash_texts(seconds).digest())
    digest.update(f"{tokenizer.to_str()}{max_length}".encode())
    path = cache / "tokens" / f"{digest.hexdigest()}.arrays"
    found = _stored(path, len(texts))
    if found is None:
        made = _tokenise(texts, tokenizer, max_length, seconds)
        write_arrays(path, [made.ids, made.starts, *([] if made.types is None else [made.types])])
        found = _stored(path, len(texts)) or made
    return found


def _stored(path: Path, rows: int) -> Tokens | None:
    """Token ids from the cache; None if there are none, or damaged ones."""
    arrays = read_arrays(path)
    if arrays is None or len(arrays) not in (2, 3) or len(arrays[1]) != rows + 1 or arrays[1][-1] != len(arrays[0]):
        return None
    return Tokens(arrays[0], np.array(arrays[1]), *arrays[2:])


class TextTokenizer:
    """A tokenizer prepared for single texts of a maximum length. Threads may use it at the same time.

    Args:
        tokenizer: its settings for truncation and padding are not used.
        max_length: largest number of tokens per row, special tokens included.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        self.max_length = max_length
        self.tokenizer = tokenizer if not (tokenizer.truncation or tokenizer.padding) else _plain(tokenizer)
        self.frame = frame_of(self.tokenizer)

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Token ids of every text."""
        if len(texts) > FEW:
            import pyarrow as pa

            return self.encode_column(pa.chunked_array([pa.array(texts, pa.string())]))
        if self.frame is None:
            return _tokens_of([encoding.ids for encoding in self._truncating.encode_batch_fast(list(texts))])
        before, after = self.frame.before, self.frame.after
        kept = max(0, self.max_length - len(before) - len(after))
        rows = [self.tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        return _tokens_of([[*before, *ids[:kept], *after] for ids in rows])

    def encode_column(self, texts: pa.ChunkedArray) -> Tokens:
        """Token ids of every text of an Arrow column."""
        if self.frame is not None:
            parts = list(encode_by_word(texts, self.tokenizer, self.frame, self.max_length))
        else:
            parts = list(_encode_by_text(texts, self._truncating))
        lengths = np.concatenate([np.zeros(1, np.int64), *(lengths for _, lengths in parts)])
        return Tokens(np.concatenate([np.zeros(0, np.int32), *(ids for ids, _ in parts)]), np.cumsum(lengths))

    @cached_property
    def _truncating(self) -> Tokenizer:
        own = _plain(self.tokenizer)
        own.enable_truncation(self.max_length)
        return own


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    """A copy without truncation and padding."""
    copied = Tokenizer.from_str(tokenizer.to_str())
    copied.no_padding()
    copied.no_truncation()
    return copied


def _tokens_of(rows: Sequence[Sequence[int]]) -> Tokens:
    starts = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return Tokens(np.fromiter(chain.from_iterable(rows), np.int32, int(starts[-1])), starts)


def _tokenise(texts: pa.ChunkedArray, tokenizer: Tokenizer, max_length: int, seconds: pa.ChunkedArray | None) -> Tokens:
    if seconds is not None:
        return _encode_pairs(texts, seconds, _plain(tokenizer), max_length)
    return TextTokenizer(tokenizer, max_length).encode_column(texts)


def _encode_by_text(texts: pa.ChunkedArray, tokenizer: Tokenizer) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield concatenated token ids and the number of tokens per row, for some rows at a time. Works with any tokenizer.

    The tokenizer truncates.
    """
    for start in range(0, len(texts), CHUNK):
        rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts.slice(start, CHUNK).to_pylist())]
        tokens = _tokens_of(rows)
        yield tokens.ids, tokens.lengths


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
