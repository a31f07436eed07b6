"""Token ids of texts whose words can be tokenised one by one: each distinct word once.

A WordPiece tokenizer as BERT has it splits at spaces first, and nothing that it does to a word depends on the words beside it. News of 120,000 rows
hold millions of words, but few distinct ones: Arrow finds those, the tokenizers library encodes them, and the ids are put together from the two.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

BYTES = 16 * 2**20
"""Text taken at once: enough for words to repeat, little enough to keep memory flat."""
WORDS = 1024
"""Words handed over as one sequence: enough to hide the price of a call, few enough for all cores to have some."""


@dataclass(frozen=True)
class Frame:
    """The special tokens that stand before and after every text."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def frame_of(tokenizer: Tokenizer) -> Frame | None:
    """The special tokens around a text, or None where words cannot be tokenised one by one.

    They can where the normalizer and the splitting are BERT's, the model is WordPiece, no added token has a space in it, and a text stands between
    special tokens.
    """
    parts = json.loads(tokenizer.to_str())
    kinds = [(parts[part] or {}).get("type") for part in ("normalizer", "pre_tokenizer", "model")]
    if kinds != ["BertNormalizer", "BertPreTokenizer", "WordPiece"] or any(
        " " in token["content"] for token in parts["added_tokens"]
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
    """Ids of the texts, one after another (int32), and the ids of each (int64): a pair for some rows at a time.

    Args:
        texts: one string a row.
        tokenizer: without truncation or padding of its own.
        frame: what ``frame_of`` found.
        max_length: ids kept of a row, special tokens included.
    """
    rows = max(1, int(BYTES * len(texts) / max(1, texts.nbytes)))
    for start in range(0, len(texts), rows):
        part = pa.concat_arrays(texts.slice(start, rows).chunks)
        yield _framed(*_ids_and_ends(part, tokenizer), frame, max_length)


def _ids_and_ends(texts: pa.StringArray, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """All texts' ids without special tokens, and the places where they begin and end (one more than the texts)."""
    split = pc.split_pattern(texts, " ")
    words = split.flatten().dictionary_encode()
    pieces = _pieces(words.dictionary, tokenizer).take(words.indices)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(pieces.value_lengths().to_numpy(), dtype=np.int64)])
    return pieces.flatten().to_numpy(), ends[split.offsets.to_numpy()]


def _pieces(words: pa.StringArray, tokenizer: Tokenizer) -> pa.LargeListArray:
    """The ids of each word."""
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
    """The ids with every text cut to its length and the special tokens around it, and the lengths."""
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
