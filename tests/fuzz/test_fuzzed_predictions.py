"""Predictions of any Unicode text: the token ids of transformers, finite probabilities, and output that can be read."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from bounds import bounded_memory, fuzzed, outcome
from hypothesis import given
from hypothesis import strategies as st

from loralet.config import ComputeOptions, ModelOptions
from loralet.data.columns import text_column
from loralet.data.tokens import TextTokenizer
from loralet.hub.bundled import bundled
from loralet.inference.ensemble import Ensemble, load_ensemble
from loralet.report.predictions import WRITERS, Form

LENGTH = 32
PARTS = (
    *("the", "stocks", "unaffable", "[MASK]", "[SEP]", "[CLS]", "[PAD]", "[UNK]", "##s", "<s>", "\u200b", "\u00ad"),
    *("e\u0301", "İ", "ß", "ﬁ", "Ǆ", "\u0345", "東京", "한국어", "ไทย", "العربية", "👩‍👩‍👧", "\U0010ffff", "\ufffd"),
    *(
        "\x00",
        "\x1b[31m",
        "\x85",
        "\u2028",
        "\u3000",
        "\t",
        "\r\n",
        "\ufeff",
        "\u202e",
        "'",
        "n't",
        "--",
        "...",
        "w" * 101,
    ),
)

unicode_texts = st.text(max_size=60)
joined = st.lists(st.sampled_from(PARTS) | st.text(max_size=5), max_size=12).map("".join)
spaced = st.lists(st.sampled_from(PARTS) | st.text(max_size=5), max_size=12).map(" ".join)
texts = unicode_texts | joined | spaced


def valid(text: str) -> bool:
    """Whether a text has no lone surrogate."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


@pytest.fixture(scope="module")
def theirs() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(bundled("tiny-en")))


def test_token_ids_of_any_text_are_those_of_transformers(theirs: Any) -> None:
    from tokenizers import Tokenizer

    ours = TextTokenizer(Tokenizer.from_file(f"{bundled('tiny-en')}/tokenizer.json"), LENGTH)

    @fuzzed(50)
    @given(st.lists(texts.filter(valid), min_size=1, max_size=3))
    def case(given_texts: list[str]) -> None:
        wanted = theirs(given_texts, truncation=True, max_length=LENGTH)["input_ids"]
        column = pa.chunked_array([pa.array(given_texts, pa.string())])
        for tokens in (ours.encode(given_texts), ours.encode_column(column)):
            assert [ids.tolist() for ids in np.split(tokens.ids, tokens.starts[1:-1])] == wanted

    with bounded_memory():
        case()


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    """A classifier whose tokenizer knows letters and a few words."""
    from models import make_pair
    from test_adapters import RUNS, trained

    from loralet.artifacts.folder import save_artifact

    place = tmp_path_factory.mktemp("classifier")
    pair = make_pair(place / "base")
    _, _, artifact = trained(pair, RUNS["query-value"], "pooler")
    save_artifact(place / "adapter", artifact, pair.ours)
    return load_ensemble([place / "adapter"], ModelOptions(), ComputeOptions("torch", "fp32"))


def test_any_text_has_a_prediction_that_can_be_read_back(ensemble: Ensemble) -> None:
    def predicted(given_texts: list[str]) -> list[Any]:
        return list(ensemble.predict(text_column(given_texts, keep_empty=True).to_pylist()))

    @fuzzed(40)
    @given(st.lists(texts, min_size=1, max_size=3), st.sampled_from([None, 1, 9]))
    def case(given_texts: list[str], top: int | None) -> None:
        found = outcome(predicted, given_texts)
        if found is None:
            assert not all(map(valid, given_texts))
            return
        for text, one in zip(given_texts, found, strict=True):
            assert one.text == text
            assert (one.label is None) == (not text.strip())
            assert one.probabilities is None or np.isfinite(one.probabilities).all()
        form = Form(ensemble.labels, top=top)
        written = {name: io.StringIO(newline="") for name in WRITERS}
        for name, out in written.items():
            WRITERS[name](found, form, out)
        assert [json.loads(line)["text"] for line in written["jsonl"].getvalue().split("\n")[:-1]] == given_texts
        rows = list(csv.reader(io.StringIO(written["csv"].getvalue(), newline=""), strict=True))
        assert [row[0] for row in rows[1:]] == given_texts
        assert not set(written["table"].getvalue()) & set(map(chr, (*range(9), *range(11, 32), 0x9B)))

    with bounded_memory():
        case()


def test_any_lines_are_texts_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard input, read as lines: as many texts as lines."""
    import sys

    from loralet.data.files import Columns
    from loralet.data.texts import read_texts

    @fuzzed(30)
    @given(st.binary(max_size=80) | texts.map(lambda text: text.encode(errors="surrogatepass")))
    def case(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        found = outcome(read_texts, "-", "lines", Columns())
        if found is not None and not content.startswith((b"\xff\xfe", b"\xfe\xff")) and b"\0" not in content:
            assert len(found.texts) == content.removesuffix(b"\n").count(b"\n") + 1

    with bounded_memory():
        case()
