"""Tokenise each distinct word once, for tokenizers that treat words independently.

BERT's WordPiece tokenizer splits at spaces first, and the ids of a word do not depend on its neighbours. 120,000 rows
of news have millions of words but few distinct ones. Arrow finds the distinct words, the tokenizers library encodes
them, and the ids of the texts are assembled from the results.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

if TYPE_CHECKING:
    import pyarrow as pa

BYTES = 16 * 2**20
"""Bytes of text processed at once: enough for words to repeat, few enough to limit memory."""
WORDS = 1024
"""Words passed as one sequence: enough to amortise the call, few enough to use all cores."""


@dataclass(frozen=True)
class Frame:
    """The special tokens before and after every text."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def frame_of(tokenizer: Tokenizer) -> Frame | None:
    """The special tokens around a text, or None if words cannot be tokenised independently.

    They can if the normalizer and the pre-tokenizer are BERT's, the model is WordPiece, no added token contains a
    space, and special tokens are added only before and after the text.
    """
    kinds = [type(part).__name__ for part in (tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.model)]
    if kinds != ["BertNormalizer", "BertPreTokenizer", "WordPiece"] or any(
        " " in token.content for token in tokenizer.get_added_tokens_decoder().values()
    ):
        return None
    framed, bare = tokenizer.encode("a"), tokenizer.encode("a", add_special_tokens=False)
    text = [place for place, special in enumerate(framed.special_tokens_mask) if not special]
    if len(text) != len(bare.ids) or not text or text[-1] - text[0] != len(text) - 1:
        return None
    return Frame(tuple(framed.ids[: text[0]]), tuple(framed.ids[text[-1] + 1 :]))


def encode_by_word(
    texts: pa.ChunkedArray, tokenizer: Tokenizer, frame: Frame, max_length: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield concatenated token ids (int32) and the number of tokens per row (int64), for some rows at a time.

    Args:
        texts: one string per row.
        tokenizer: without truncation and padding.
        frame: the result of ``frame_of``.
        max_length: largest number of tokens per row, special tokens included.
    """
    import pyarrow as pa

    rows = max(1, int(BYTES * len(texts) / max(1, texts.nbytes)))
    for start in range(0, len(texts), rows):
        part = pa.concat_arrays(texts.slice(start, rows).chunks)
        yield _framed(*_ids_and_ends(part, tokenizer), frame, max_length)


def _ids_and_ends(texts: pa.StringArray, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of all texts without special tokens, and the offset of each text (one more than texts)."""
    import pyarrow.compute as pc

    split = pc.split_pattern(texts, " ")
    words = split.flatten().dictionary_encode()
    pieces = _pieces(words.dictionary, tokenizer).take(words.indices)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(pieces.value_lengths().to_numpy(), dtype=np.int64)])
    return pieces.flatten().to_numpy(), ends[split.offsets.to_numpy()]


def _pieces(words: pa.StringArray, tokenizer: Tokenizer) -> pa.LargeListArray:
    """The token ids of each word."""
    import pyarrow as pa

    ids, owners = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    sequences = [words.slice(start, WORDS).to_pylist() for start in range(0, len(words), WORDS)]
    for i, encoding in enumerate(tokenizer.encode_batch(sequences, is_pretokenized=True, add_special_tokens=False)):
        ids.append(np.array(encoding.ids, np.int32))
        owners.append(np.array(encoding.word_ids, np.int64) + i * WORDS)
    counts = np.bincount(np.concatenate(owners), minlength=len(words))
    return pa.LargeListArray.from_arrays(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]), np.concatenate(ids)
    )


def _framed(ids: np.ndarray, ends: np.ndarray, frame: Frame, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Truncate every text and add the special tokens; returns the ids and the lengths."""
    first, last = len(frame.before), len(frame.after)
    whole = np.diff(ends)
    kept = np.minimum(whole, max_length - first - last)
    ids = ids[np.arange(len(ids)) < np.repeat(ends[:-1] + kept, whole)]
    lengths = kept + first + last
    stops = np.cumsum(lengths)
    framed, inside = np.empty(int(lengths.sum()), np.int32), np.ones(int(lengths.sum()), bool)
    special = [(stops - lengths + i, token) for i, token in enumerate(frame.before)] + [
        (stops - last + i, token) for i, token in enumerate(frame.after)
    ]
    for places, token in special:
        framed[places], inside[places] = token, False
    framed[inside] = ids
    return framed, lengths
