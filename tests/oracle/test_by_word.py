"""Texts tokenised word by word, compared with the tokenizers library on whole texts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors

from loralet.data import by_word
from loralet.data.by_word import encode_by_word, frame_of
from loralet.hub.bundled import bundled

TINY_EN = bundled("tiny-en")
AWKWARD = [
    "", " ", "   ", "Stocks fell  on Friday .", " leading and trailing ", "two\nlines\tand a tab",
    "AT&T's 3.5-inch (n't) U.S. e-mail: a@b.co/x?y=1",
    "naïve CAFÉ İstanbul ΣΊΣΥΦΟΣ ß", "e\u0301 a \u0301b", "東京 market 市場 up",
    "[MASK] [SEP][CLS] x[MASK]y [mask] [UNK]",
    "zero\u200bwidth soft\u00adhyphen no\u00a0break", "nul\x00 unit\x1fsep \x85 \u2028 line", "🙂🙃 ok",
    "w" * 101 + " " + "v" * 99,
    "pneumonoultramicroscopicsilicovolcanoconiosis", "a" * 300,
]  # fmt: skip


def tiny_en(**normalizer: bool | None) -> Tokenizer:
    tokenizer = Tokenizer.from_file(f"{TINY_EN}/tokenizer.json")
    if normalizer:
        tokenizer.normalizer = normalizers.BertNormalizer(**normalizer)  # type: ignore[arg-type]
    return tokenizer


def with_more_tokens() -> Tokenizer:
    """Added tokens of all kinds that depend on adjacent characters."""
    tokenizer = tiny_en()
    added = [
        AddedToken("zap", single_word=True),
        AddedToken("Qu", lstrip=True, rstrip=True),
        AddedToken("##", normalized=True),
    ]
    tokenizer.add_tokens(added)
    tokenizer.add_special_tokens([AddedToken("<news>", lstrip=True, rstrip=True)])
    return tokenizer


def framed(before: str, after: str) -> Tokenizer:
    tokenizer = tiny_en()
    known = {token: tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]", "[MASK]")}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{before} $A {after}".strip(), special_tokens=list(known.items())
    )
    return tokenizer


TOKENIZERS = {
    "as it comes": tiny_en(),
    "cased": tiny_en(lowercase=False, strip_accents=False),
    "no accents stripped, Chinese whole": tiny_en(lowercase=True, strip_accents=False, handle_chinese_chars=False),
    "text not cleaned": tiny_en(clean_text=False),
    "more added tokens": with_more_tokens(),
    "two special tokens before, none after": framed("[CLS] [MASK]", ""),
    "one before, two after": framed("[CLS]", "[SEP] [SEP]"),
}


def by_words(texts: list[str], tokenizer: Tokenizer, max_length: int) -> list[list[int]]:
    frame = frame_of(tokenizer)
    assert frame is not None
    parts = list(encode_by_word(pa.chunked_array([pa.array(texts, pa.string())]), tokenizer, frame, max_length))
    ids, lengths = (np.concatenate(each) for each in zip(*parts, strict=True))
    assert (ids.dtype, lengths.dtype) == (np.int32, np.int64)
    return [ids[a:b].tolist() for a, b in pairwise([0, *np.cumsum(lengths)])]


def whole(texts: list[str], tokenizer: Tokenizer, max_length: int) -> list[list[int]]:
    bounded = Tokenizer.from_str(tokenizer.to_str())
    bounded.enable_truncation(max_length)
    return [bounded.encode(text).ids for text in texts]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("max_length", [3, 6, 128])
def test_unusual_texts_give_the_ids_of_the_library(name: str, max_length: int) -> None:
    assert by_words(AWKWARD, TOKENIZERS[name], max_length) == whole(AWKWARD, TOKENIZERS[name], max_length)


LETTERS = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from(" \t\n\x00\x1c\x85\u00a0\u0301\u0345Σσİ東[MASK]zapQu#<news>"),
)


@given(
    texts=st.lists(st.text(LETTERS, max_size=40), min_size=1, max_size=6),
    name=st.sampled_from(sorted(TOKENIZERS)),
    max_length=st.integers(3, 20),
)
def test_random_texts_give_the_ids_of_the_library(texts: list[str], name: str, max_length: int) -> None:
    assert by_words(texts, TOKENIZERS[name], max_length) == whole(texts, TOKENIZERS[name], max_length)


def test_parts_of_any_size_give_the_same_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = TOKENIZERS["as it comes"]
    wanted = whole(AWKWARD, tokenizer, 128)
    for size in (1, 60, 400):
        monkeypatch.setattr(by_word, "BYTES", size)
        monkeypatch.setattr(by_word, "WORDS", size % 7 + 1)
        assert by_words(AWKWARD, tokenizer, 128) == wanted


def other_normalizer() -> Tokenizer:
    tokenizer = tiny_en()
    tokenizer.normalizer = normalizers.Replace("a b", "c")
    return tokenizer


def splits_elsewhere() -> Tokenizer:
    tokenizer = tiny_en()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("; ", "isolated")
    return tokenizer


def two_words_in_one_token() -> Tokenizer:
    tokenizer = tiny_en()
    tokenizer.add_tokens([AddedToken("new york")])
    return tokenizer


@pytest.mark.parametrize(
    "tokenizer", [other_normalizer(), splits_elsewhere(), two_words_in_one_token(), framed("[CLS]", "[SEP] $A")]
)
def test_tokenizers_that_depend_on_adjacent_words_are_not_used_by_word(tokenizer: Tokenizer) -> None:
    assert frame_of(tokenizer) is None
