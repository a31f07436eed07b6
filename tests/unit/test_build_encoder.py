"""The script that rebuilds tiny-en: which texts it reads, and what its card says about them."""

from __future__ import annotations

import lzma
from pathlib import Path
from random import Random

import build_encoder
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertModel
from trim_vocabulary import token_counts, trim

from loralet.distil.save import save_student
from loralet.hub.backbone import load_backbone
from loralet.hub.bundled import MODEL, bundled

COLUMNS = ("id", "from", "licence")
SOURCES = (("books", "a library", "CC0"), ("snips", "a benchmark", "CC0"), ("wiki", "an encyclopedia", "CC BY-SA"))


@pytest.fixture
def general(tmp_path: Path) -> Path:
    """A folder of general texts: 600 of books, 300 of a source that is not read, 300 of wiki, in turn."""
    names = ["books", "snips", "books", "wiki"] * 300
    texts = [f"{name} sentence number {i}" for i, name in enumerate(names)]
    for file, lines in (("texts", texts), ("source_ids", names)):
        with lzma.open(tmp_path / f"{file}.txt.xz", "wt", encoding="utf-8") as out:
            out.writelines(f"{line}\n" for line in lines)
    (tmp_path / "sources.tsv").write_text(
        "".join("\t".join(row) + "\n" for row in (COLUMNS, *SOURCES)), encoding="utf-8"
    )
    return tmp_path


def test_texts_of_excluded_sources_are_not_read(general: Path) -> None:
    found = build_encoder.read_general(general)
    assert {source: len(texts) for source, texts in found.items()} == {"books": 600, "wiki": 300}
    assert found["wiki"][0] == "wiki sentence number 3"


def test_long_texts_are_consecutive_texts_of_one_source() -> None:
    texts = [f"first second third {i}" for i in range(1000)]
    found = list(build_encoder.joined(texts, Random(0)))
    lengths = [len(text.split()) for text in found]
    assert min(lengths) >= 60
    assert max(lengths) <= 400
    assert len(set(lengths)) > 3, "the lengths vary"
    assert " ".join(texts).startswith(" ".join(found)), "nothing is left out or repeated between them"


def test_a_text_that_is_longer_than_the_longest_length_is_cut() -> None:
    (found,) = build_encoder.joined(["word " * 900], Random(0))
    assert len(found.split()) == 400


def test_the_written_texts_are_single_and_long_texts_in_a_reproducible_order(general: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    build_encoder.write_general(general, first)
    build_encoder.write_general(general, second)
    lines = first.read_text(encoding="utf-8").splitlines()
    long = [line for line in lines if len(line.split()) > 4]
    assert len(lines) - len(long) == 900
    assert long
    assert not any("snips" in line for line in lines)
    assert all(len({"books", "wiki"} & set(line.split())) == 1 for line in long)
    assert lines == second.read_text(encoding="utf-8").splitlines()
    assert set(lines[-len(long) :]) != set(long), "the long texts lie among the others"


def test_the_card_lists_the_sources_that_were_read_with_their_licences(general: Path) -> None:
    found = build_encoder.sources(general)
    assert "| books | a library | CC0 |" in found
    assert "| wiki | an encyclopedia | CC BY-SA |" in found
    assert "snips" not in found
    assert "these 2 sources. 1 others were not read" in found


def test_the_sections_of_the_first_stage_are_one_level_lower(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# first\n\n## Loss\n\nfirst loss\n", encoding="utf-8")
    found = build_encoder.first_stage(tmp_path)
    assert found == "\n## First stage\n\n### Loss\n\nfirst loss\n"


def test_an_encoder_without_rare_tokens_reads_other_texts_alike(tmp_path: Path) -> None:
    encoder = load_backbone(MODEL)
    text = "the bank of the river"
    (tmp_path / "texts.txt").write_text(f"{text}\n{text} and the sea\n", encoding="utf-8")
    counts = token_counts(encoder.tokenizer, [str(tmp_path / "texts.txt")], 512)
    assert counts[encoder.tokenizer.token_to_id("the")] == 5
    trimmed = trim(encoder, counts, 2)
    save_student(tmp_path, trimmed.weights, trimmed.table, trimmed.tokenizer, half=False, pooled=True)
    read = AutoTokenizer.from_pretrained(tmp_path)
    tokens = ["[CLS]", *text.split(), "[SEP]"]
    assert read.convert_ids_to_tokens(read(text).input_ids) == tokens
    assert read.tokenize("the sea!") == ["the", "s", "##e", "##a", "!"], "sea occurs once"
    assert read.tokenize("Bänke über 水") == ["bank", "##e", "u", "##b", "##e", "##r", "[UNK]"]
    kept = [token for token in read.get_vocab() if token.isalpha() and len(token) > 1]
    assert sorted(kept) == ["bank", "of", "river", "the"]
    whole = AutoTokenizer.from_pretrained(bundled(MODEL))
    states = [
        BertModel.from_pretrained(folder, dtype=torch.float32)(torch.tensor([tokenizer(text).input_ids]))
        for folder, tokenizer in ((bundled(MODEL), whole), (tmp_path, read))
    ]
    assert torch.equal(states[0].last_hidden_state, states[1].last_hidden_state)
    assert trimmed.parameters == sum(tensor.numel() for tensor in load_file(tmp_path / "model.safetensors").values())
