"""Generated checkpoints and tokenizers: they are loaded and encode texts, or they are refused with a message."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bounds import bounded_memory, fuzzed, outcome
from changes import changed_bytes, changed_file, changed_json, json_bytes, one_changed
from checkpoints import bert_config, prajjwal, to_safetensors
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from tokenizers import Tokenizer

from loralet.data.tokens import TextTokenizer
from loralet.hub.backbone import backbone_of
from loralet.hub.checkpoint import Checkpoint, read_checkpoint

SMALL = bert_config(layers=1, width=8, heads=2, rows=180, positions=16)
TEXTS = ["", "the team wins the game", "東京 \u200b x", "w" * 120, "[CLS] [SEP]"]
FAMILIES = ("bert", "distilbert", "roberta", "xlm-roberta", "electra", "mpnet", "modernbert", "gpt2")


def small(folder: Path) -> dict[str, bytes]:
    """The files of a small checkpoint."""
    to_safetensors(prajjwal(folder, config=SMALL))
    settings = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, bytes]]:
    """Checkpoints of several file sets: with a vocabulary, with tokenizer.json, pickled, and in shards."""
    base = tmp_path_factory.mktemp("models")
    plain = small(base / "plain")
    from loralet.hub.tokenizer import load_tokenizer
    from loralet.models.families import FAMILIES as KNOWN

    tokenizer = load_tokenizer(base / "plain", SMALL["vocab_size"], KNOWN["bert"].tokens)
    ready = {name: content for name, content in plain.items() if name != "vocab.txt"}
    ready["tokenizer.json"] = tokenizer.to_str().encode()
    tensors = {name: torch.from_numpy(array) for name, array in _arrays(base / "plain").items()}
    prajjwal(base / "pickled", config=SMALL)
    pickled = {path.name: path.read_bytes() for path in (base / "pickled").iterdir()}
    halves = [dict(list(tensors.items())[i::2]) for i in range(2)]
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    places = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    shards = {name: content for name, content in plain.items() if name != "model.safetensors"}
    shards |= {name: save(half) for name, half in zip(names, halves, strict=True)}
    shards["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": places}).encode()
    return [plain, plain, ready, ready, pickled, shards]


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    from loralet.hub.tensors import read_tensors

    return read_tensors(folder / "model.safetensors")


def changed_tensors(content: bytes) -> st.SearchStrategy[bytes]:
    """A safetensors file with another header, of the right length, or with other bytes."""
    size = int.from_bytes(content[:8], "little")
    header, rest = json.loads(content[8 : 8 + size]), content[8 + size :]
    kinds = st.sampled_from(["F16", "BF16", "F64", "I8", "I64", "BOOL", "F8_E4M3", "U64", "C64", "X"])
    shapes = st.lists(st.sampled_from([0, 1, 2, 8, 2**31, 2**62, -1]), max_size=3)
    fitting = kinds | shapes | st.lists(st.integers(0, len(rest) + 9), min_size=2, max_size=2) | st.integers(-1, 2**64)

    def joined(made: Any) -> bytes:
        words = json_bytes(made)
        return len(words).to_bytes(8, "little") + words + rest

    headers = changed_json(header, fitting=fitting).map(joined)
    return headers | headers | changed_bytes(content) | changed_values(content, size)


def changed_values(content: bytes, size: int) -> st.SearchStrategy[bytes]:
    """Numbers that are infinite, not numbers, very large or very small."""
    odd = st.sampled_from([b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f", b"\xff\xff\x7f\x7f", b"\x01\x00\x00\x00"])
    places = st.integers(0, max(0, (len(content) - size - 12) // 4))
    return st.tuples(places, odd).map(
        lambda pair: content[: 8 + size + 4 * pair[0]] + pair[1] + content[12 + size + 4 * pair[0] :]
    )


def change(name: str, content: bytes) -> st.SearchStrategy[bytes]:
    """The changes of a file of a checkpoint, by its name."""
    if name == "config.json":
        kinds = st.sampled_from(FAMILIES).map(lambda kind: json_bytes(json.loads(content) | {"model_type": kind}))
        return changed_file(content) | changed_file(content) | kinds
    if name.endswith(".json"):
        return changed_file(content)
    return changed_tensors(content) if name.endswith(".safetensors") else changed_bytes(content)


def written(folder: Path, files: dict[str, bytes]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def encoded(read: Checkpoint) -> None:
    """Encode texts with a checkpoint's tokenizer, and compute the table's shapes."""
    backbone = backbone_of(read)
    assert backbone.parameters > 0
    longest = max(3, min(read.table.longest, 16))
    tokens = TextTokenizer(read.tokenizer, longest).encode(TEXTS)
    assert len(tokens) == len(TEXTS)
    assert tokens.longest <= longest


def test_any_checkpoint_is_loaded_or_refused(tmp_path: Path, kinds: list[dict[str, bytes]]) -> None:
    every = st.one_of([one_changed(files, change) for files in kinds])
    loaded = outcome(read_checkpoint, str(written(tmp_path / "model", kinds[0])))
    assert loaded is not None
    encoded(loaded)

    @fuzzed(50)
    @given(every)
    def case(files: dict[str, bytes]) -> None:
        read = outcome(read_checkpoint, str(written(tmp_path / "model", files)))
        if read is not None:
            outcome(encoded, read)

    with bounded_memory():
        case()


def test_any_tokenizer_is_loaded_or_refused(tmp_path: Path, kinds: list[dict[str, bytes]]) -> None:
    """Changes of tokenizer.json without its vocabulary, which most changes of the whole file would hit."""
    files = kinds[2]
    described = json.loads(files["tokenizer.json"])
    vocabulary = described["model"].pop("vocab")

    @fuzzed(40)
    @given(changed_json(described))
    def case(made: Any) -> None:
        if isinstance(made, dict) and isinstance(made.get("model"), dict):
            made["model"].setdefault("vocab", vocabulary)
        read = outcome(read_checkpoint, str(written(tmp_path / "model", files | {"tokenizer.json": json_bytes(made)})))
        if read is not None:
            assert isinstance(read.tokenizer, Tokenizer)
            outcome(encoded, read)

    with bounded_memory():
        case()
