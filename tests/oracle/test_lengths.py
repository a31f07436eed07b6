"""The default text length follows the data, and truncated texts are counted, as the tokenizer of transformers does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import command
from hypothesis import given
from hypothesis import strategies as st
from models import make_pair
from transformers import AutoTokenizer

from loralet.config import DataOptions
from loralet.hub.backbone import load_backbone
from loralet.runs.results import TextLengths, read_results
from loralet.training.corpus import choose_length, corpus_rows, load_corpus

LIMIT = 40
"""Positions of the model."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and data whose texts have 1 to 60 words of one token each."""
    folder = tmp_path_factory.mktemp("lengths")
    make_pair(folder / "model")
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(list("abcdefgh"), generator.integers(1, 61))) for _ in range(200)]
    lines = [f"{text},{'xy'[i % 2]}" for i, text in enumerate(texts)]
    (folder / "train.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return folder


@given(st.lists(st.integers(3, 600), min_size=1, max_size=300), st.integers(3, 512))
def test_the_default_length_is_the_smallest_that_covers_the_texts(lengths: list[int], limit: int) -> None:
    chosen = choose_length(np.array(lengths), limit)
    assert chosen <= limit
    assert chosen == limit or chosen >= 128
    longer = np.mean(np.array(lengths) > chosen)
    assert longer <= 0.01 or chosen == limit
    if 128 < chosen < limit:
        assert np.mean(np.array(lengths) > chosen - 1) > 0.01, "a smaller length would do"


@pytest.mark.parametrize(("given_length", "length"), [(None, LIMIT), (20, 20), (39, 39), (512, LIMIT)])
def test_truncated_texts_are_those_that_transformers_truncates(
    place: Path, given_length: int | None, length: int
) -> None:
    corpus = load_corpus(str(place / "train.csv"), DataOptions(), 32)
    backbone = load_backbone(str(place / "model"))
    rows, found = corpus_rows(corpus, backbone, given_length)
    theirs = AutoTokenizer.from_pretrained(place / "model")
    texts = corpus.train.texts.to_pylist()
    whole = [len(ids) for ids in theirs(texts)["input_ids"]]
    assert found == TextLengths(backbone.name, length, max(whole), sum(n > length for n in whole))
    assert 0 < found.truncated < len(whole)
    for part, split in ((rows.train, corpus.train), (rows.validation, corpus.validation), (rows.sample, corpus.sample)):
        expected = theirs(split.texts.to_pylist(), truncation=True, max_length=length)["input_ids"]
        assert part.tokens.ids.tolist() == [token for ids in expected for token in ids]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "truncated to 40 tokens (the longest that this model reads; the longest text has 62)"),
        (("--max-length", "20"), "truncated to 20 tokens (--max-length sets the length; the longest text has 62)"),
        (("--max-length", "30", "--steps", "3"), "truncated to 30 tokens"),
    ],
)
def test_training_says_and_records_how_many_texts_are_truncated(
    place: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    flags = ("--model", "model", "--steps", "2", "--folds", "0", "--out", str(tmp_path / "run"), *options)
    done = command(place, "train", "train.csv", *flags)
    assert done.returncode == 0, done.stderr
    (lengths,) = read_results(tmp_path / "run").data.lengths
    wanted = f"{lengths.truncated} of 180 training texts ({100 * lengths.truncated / 180:.3g} %) are {said}"
    assert wanted in " ".join((done.stdout + done.stderr).split())
