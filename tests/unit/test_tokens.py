"""Token ids: equal to those of the tokenizers library; cached by content, memory-mapped, written atomically."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from loralet.cache import cache_folder
from loralet.data import tokens as module
from loralet.data.tokens import Tokens, tokenise
from loralet.errors import ConfigError

TEXTS = ["the cat sat on a mat.", "", "dogs ran!", "zebra", "the the the the the the the", "Sat, sat; sat"]


def column(texts: list[str], *breaks: int) -> pa.ChunkedArray:
    """The texts in chunks that end at ``breaks``."""
    ends = [0, *breaks, len(texts)]
    return pa.chunked_array([pa.array(texts[a:b], pa.string()) for a, b in pairwise(ends)])


def rows(tokens: Tokens) -> list[list[int]]:
    return [tokens.ids[a:b].tolist() for a, b in pairwise(tokens.starts)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Length limits of the calls to the tokenizer."""
    found: list[int] = []
    real = module._tokenise

    def counting(
        texts: pa.ChunkedArray, tokenizer: Tokenizer, max_length: int, seconds: pa.ChunkedArray | None
    ) -> Tokens:
        found.append(max_length)
        return real(texts, tokenizer, max_length, seconds)

    monkeypatch.setattr(module, "_tokenise", counting)
    return found


def test_ids_match_the_tokenizer(tokenizer: Tokenizer) -> None:
    made = tokenise(column(TEXTS, 2, 3), tokenizer, 128)
    assert rows(made) == [tokenizer.encode(text).ids for text in TEXTS]
    assert made.lengths.tolist() == [len(tokenizer.encode(text).ids) for text in TEXTS]
    assert len(made) == len(TEXTS)
    assert (made.ids.dtype, made.starts.dtype) == (np.int32, np.int64)
    assert len({tuple(row) for row in rows(made)}) == len(TEXTS)


def test_more_rows_than_one_tokenizer_call(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tokenise(column(TEXTS), tokenizer, 128)
    monkeypatch.setattr(module, "CHUNK", 4)
    parts = tokenise(column(TEXTS, 1), tokenizer, 128)
    assert rows(parts) == rows(whole)
    assert rows(parts) != rows(tokenise(column(TEXTS[::-1]), tokenizer, 128))


def test_truncation_keeps_the_last_special_token(tokenizer: Tokenizer) -> None:
    made = rows(tokenise(column(TEXTS), tokenizer, 5))
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    for row, text in zip(made, TEXTS, strict=True):
        whole = tokenizer.encode(text).ids
        assert row == whole if len(whole) <= 5 else row == [*whole[:4], last]
        assert (row[0], row[-1]) == (first, last)
    assert max(map(len, made)) == 5
    assert max(len(tokenizer.encode(text).ids) for text in TEXTS) > 5


def test_truncation_and_padding_of_the_tokenizer_are_ignored_and_restored(
    tokenizer: Tokenizer,
) -> None:
    plain = rows(tokenise(column(TEXTS), tokenizer, 6))
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=50)
    assert rows(tokenise(column(TEXTS), tokenizer, 6)) == plain
    assert len(tokenizer.encode(TEXTS[0]).ids) == 50
    assert tokenizer.truncation["max_length"] == 3


def test_a_cache_hit_does_not_call_the_tokenizer(tokenizer: Tokenizer, tmp_path: Path, calls: list[int]) -> None:
    made = tokenise(column(TEXTS), tokenizer, 128, tmp_path)
    assert calls == [128]
    again = tokenise(column(TEXTS, 1, 4), tokenizer, 128, tmp_path)
    assert calls == [128]
    assert rows(again) == rows(made) == rows(tokenise(column(TEXTS), tokenizer, 128))
    assert len(calls) == 2


def test_different_inputs_miss_the_cache(tokenizer: Tokenizer, tmp_path: Path, calls: list[int]) -> None:
    other = Tokenizer.from_str(tokenizer.to_str().replace('"cat"', '"cow"'))
    assert other.token_to_id("cow") == tokenizer.token_to_id("cat")
    variants = [
        (column(TEXTS), tokenizer, 128),
        (column([*TEXTS[:-1], TEXTS[-1] + "!"]), tokenizer, 128),
        (
            column([*TEXTS[:2], TEXTS[2] + TEXTS[3], "", *TEXTS[4:]]),
            tokenizer,
            128,
        ),  # the same characters, other rows
        (column(TEXTS[:-1]), tokenizer, 128),
        (column(TEXTS), tokenizer, 5),
        (column(TEXTS), other, 128),
    ]
    made = [rows(tokenise(*variant, tmp_path)) for variant in variants]
    assert len(calls) == len(variants)
    assert len({str(each) for each in made}) == len(variants)
    assert [rows(tokenise(*variant, tmp_path)) for variant in variants] == made
    assert len(calls) == len(variants)


def test_cached_ids_are_memory_mapped_and_read_only(tokenizer: Tokenizer, tmp_path: Path) -> None:
    made = tokenise(column(TEXTS), tokenizer, 128, tmp_path)
    assert isinstance(made.ids, np.memmap)
    assert not isinstance(tokenise(column(TEXTS), tokenizer, 128).ids, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        made.ids[0] = 1


def test_an_interrupted_write_leaves_nothing(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[int]
) -> None:
    real, saved = np.lib.format.write_array, []

    def failing(file: BinaryIO, array: np.ndarray, **options: Any) -> None:
        real(file, array, **options)
        saved.append(len(array))
        if len(saved) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array", failing)
        with pytest.raises(KeyboardInterrupt):
            tokenise(column(TEXTS), tokenizer, 128, tmp_path)
    assert len(saved) == 2
    assert list((tmp_path / "tokens").iterdir()) == []
    made = tokenise(column(TEXTS), tokenizer, 128, tmp_path)
    assert calls == [128, 128]
    assert rows(made) == [tokenizer.encode(text).ids for text in TEXTS]
    assert len(list((tmp_path / "tokens").iterdir())) == 1


def test_pairs_match_the_tokenizer_and_truncate_the_longer_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    seconds = ["a cat", "the dog ran up the mat on a cat", "", "sat", "on", "the dog"]
    for _ in range(2):  # the second call uses the cache
        made = tokenise(column(TEXTS), tokenizer, 9, tmp_path, column(seconds))
        tokenizer.enable_truncation(9, strategy="longest_first")
        expected = tokenizer.encode_batch(list(zip(TEXTS, seconds, strict=True)))
        tokenizer.no_truncation()
        assert rows(made) == [encoding.ids for encoding in expected]
        assert made.types is not None
        assert made.types.tolist() == [kind for encoding in expected for kind in encoding.type_ids]
        assert max(map(len, rows(made))) == 9
    single = tokenise(column(TEXTS), tokenizer, 9, tmp_path)
    assert single.types is None
    assert rows(single) != rows(made)
    other = tokenise(column(TEXTS), tokenizer, 9, tmp_path, column(seconds[::-1]))
    assert rows(other) != rows(made)


def test_a_length_without_room_for_a_pair_is_rejected(tokenizer: Tokenizer) -> None:
    seconds = column(["a cat"] * len(TEXTS))
    assert max(tokenise(column(TEXTS), tokenizer, 4, None, seconds).lengths) == 4
    with pytest.raises(ConfigError, match="max_length is 3: a pair of texts needs at least 4 tokens"):
        tokenise(column(TEXTS), tokenizer, 3, None, seconds)


@pytest.mark.parametrize("texts", [pa.chunked_array([], pa.string()), column([]), column(TEXTS).slice(0, 0)])
def test_no_texts_give_no_tokens(tokenizer: Tokenizer, tmp_path: Path, texts: pa.ChunkedArray) -> None:
    for _ in range(2):
        for made in (tokenise(texts, tokenizer, 128), tokenise(texts, tokenizer, 128, tmp_path)):
            assert len(made) == 0
            assert (made.ids.shape, made.starts.tolist(), made.lengths.tolist()) == ((0,), [0], [])
    assert len(tokenise(column([""]), tokenizer, 128, tmp_path)) == 1


def test_cache_folder_is_set_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORALET_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "theirs"))
    assert cache_folder() == tmp_path / "ours"
    monkeypatch.delenv("LORALET_CACHE")
    assert cache_folder() == tmp_path / "theirs" / "loralet"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "loralet"
