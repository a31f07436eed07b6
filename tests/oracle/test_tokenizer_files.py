"""Tokenizer files of one checkpoint that disagree are read as transformers reads them, or refused by name."""

from __future__ import annotations

import json
import logging
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from stand_ins import STAND_INS, by_transformers
from transformers import AutoTokenizer

from loralet.errors import CheckpointError
from loralet.hub.tokenizer import load_tokenizer
from loralet.models.families import FAMILIES

TEXTS = ["The STOCK market: Café 中国東京 naïve", "new.team wins2004 CAFÉ", "", "e\u0301clair ZÜRICH"]
KEYS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
ROWS = 1000
"""More word embeddings than any vocabulary here has tokens."""


def saved(folder: Path, kind: str) -> Path:
    """A checkpoint with tokenizer.json, without weights."""
    by_transformers(folder, kind)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    return folder


def change(path: Path, removed: tuple[str, ...] = (), **values: Any) -> None:
    config = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({key: value for key, value in config.items() if key not in removed} | values))


def ours(folder: Path, kind: str) -> list[list[int]]:
    tokenizer = load_tokenizer(folder, ROWS, FAMILIES[kind].tokens)
    return [tokenizer.encode(text).ids for text in TEXTS]


def theirs(folder: Path) -> list[list[int]]:
    ids: list[list[int]] = AutoTokenizer.from_pretrained(folder)(TEXTS)["input_ids"]
    return ids


@pytest.mark.parametrize("kind", ["bert", "distilbert", "electra", "mpnet"])
def test_settings_that_disagree_with_tokenizer_json(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = saved(tmp_path / kind, kind)
    whole, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    described, own = json.loads(whole.read_text()), json.loads(settings.read_text())
    classes = (None, own["tokenizer_class"], own["tokenizer_class"] + "Fast", "PreTrainedTokenizerFast")
    seen, told = set(), 0
    for lowercase, accents, characters in product((True, False), (None, False), (True, False)):
        normalizer = {"lowercase": lowercase, "strip_accents": accents, "handle_chinese_chars": characters}
        whole.write_text(json.dumps(described | {"normalizer": described["normalizer"] | normalizer}))
        for name, given in product(
            classes, ({}, {KEYS[0]: True}, {KEYS[0]: False}, {KEYS[1]: False}, {KEYS[1]: True}, {KEYS[2]: False})
        ):
            kept = {key: value for key, value in own.items() if key not in (*KEYS, "tokenizer_class")}
            settings.write_text(json.dumps(kept | given | ({} if name is None else {"tokenizer_class": name})))
            caplog.clear()
            found = ours(folder, kind)
            assert found == theirs(folder), (normalizer, name, given)
            seen.add(str(found))
            told += "the tokenizer's files disagree" in caplog.text
    assert len(seen) >= 6
    assert told > 20


def test_each_disagreement_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = saved(tmp_path / "bert", "bert")
    change(folder / "tokenizer_config.json", do_lower_case=False, tokenize_chinese_chars=False)
    with caplog.at_level(logging.WARNING):
        ours(folder, "bert")
    assert "do_lower_case is false, but lowercase of tokenizer.json is true" in caplog.text
    assert "tokenize_chinese_chars is false, but handle_chinese_chars of tokenizer.json is true" in caplog.text
    caplog.clear()
    change(folder / "tokenizer_config.json", do_lower_case=True, tokenize_chinese_chars=True)
    ours(folder, "bert")
    assert not caplog.text
    change(folder / "tokenizer_config.json", do_lower_case="no")
    with pytest.raises(CheckpointError, match=r"tokenizer_config.json: do_lower_case is 'no'; true, false or null"):
        ours(folder, "bert")


def test_without_tokenizer_config(tmp_path: Path) -> None:
    folder = saved(tmp_path / "bert", "bert")
    before = ours(folder, "bert")
    (folder / "tokenizer_config.json").unlink()
    assert ours(folder, "bert") == theirs(folder) == before


@pytest.mark.parametrize("spaced", [True, False, None])
@pytest.mark.parametrize("whole", [True, False])
def test_robertas_prefix_space(tmp_path: Path, spaced: bool | None, whole: bool) -> None:
    folder = saved(tmp_path / "roberta", "roberta")
    change(
        folder / "tokenizer_config.json",
        ("add_prefix_space",),
        **({} if spaced is None else {"add_prefix_space": spaced}),
    )
    if not whole:
        (folder / "tokenizer.json").unlink()
        assert STAND_INS["roberta"].tokenizer(folder)
    else:
        described = json.loads((folder / "tokenizer.json").read_text())
        described["pre_tokenizer"]["add_prefix_space"] = not spaced
        (folder / "tokenizer.json").write_text(json.dumps(described))
    found = ours(folder, "roberta")
    assert found == theirs(folder)
    change(folder / "tokenizer_config.json", add_prefix_space=not spaced)
    assert ours(folder, "roberta") != found


ADDED = [
    {"content": "naïve", "special": False, "normalized": True},
    {"content": "[NEW]", "special": True, "normalized": False},
    {"content": "ZÜRICH", "special": False, "normalized": False},
]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("place", ["added_tokens.json", "added_tokens_decoder"])
def test_added_tokens(tmp_path: Path, place: str, whole: bool) -> None:
    folder = saved(tmp_path / "bert", "bert")
    settings = folder / "tokenizer_config.json"
    change(settings, ("added_tokens_decoder",))
    count = load_tokenizer(folder, ROWS, FAMILIES["bert"].tokens).get_vocab_size()
    if not whole:
        (folder / "tokenizer.json").unlink()
        STAND_INS["bert"].tokenizer(folder)
    plain = ours(folder, "bert")
    rest = {"lstrip": False, "rstrip": False, "single_word": False}
    if place == "added_tokens.json":
        added = {str(token["content"]): count + i for i, token in enumerate(ADDED)}
        (folder / place).write_text(json.dumps(added))
    else:
        change(settings, added_tokens_decoder={str(count + i): token | rest for i, token in enumerate(ADDED)})
    found = ours(folder, "bert")
    assert found == theirs(folder)
    assert found != plain
    assert max(max(row) for row in found) >= count


def test_an_added_token_with_the_id_of_another_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "bert", "bert")
    (folder / "tokenizer.json").unlink()
    change(folder / "tokenizer_config.json", ("added_tokens_decoder",))
    size = STAND_INS["bert"].tokenizer(folder)
    (folder / "added_tokens.json").write_text(json.dumps({"[NEW]": size + 5}))
    with pytest.raises(CheckpointError, match=rf"added_tokens.json: the token '\[NEW\]' has the id {size + 5}"):
        ours(folder, "bert")
    (folder / "added_tokens.json").write_text(json.dumps({"[NEW]": size}))
    with pytest.raises(CheckpointError, match=rf"has {size + 1} tokens, but there are {size} word embeddings"):
        load_tokenizer(folder, size, FAMILIES["bert"].tokens)
