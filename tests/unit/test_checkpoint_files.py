"""Forms of weight files that are read, and damaged files and absurd sizes that are refused without much memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import prajjwal, to_safetensors
from safetensors.torch import load_file, save_file
from stand_ins import by_transformers
from torch import Tensor

from loralet.errors import CheckpointError
from loralet.hub.backbone import load_backbone
from loralet.hub.checkpoint import read_checkpoint

Tensors = dict[str, Tensor]
WORDS = "bert.embeddings.word_embeddings.weight"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 17756393\n"
MEMORY = 3 << 30
"""Address space of a process that reads a checkpoint of absurd sizes, in bytes; imports take most of it."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint with safetensors."""
    return to_safetensors(prajjwal(tmp_path / "model"))


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_backbone(str(folder))
    return str(caught.value)


def change(folder: Path, **keys: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def save_pickled(folder: Path, content: object) -> None:
    """Replace the weights of a checkpoint by a pickled object."""
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")


def save_shards(folder: Path, form: str, count: int = 3) -> None:
    """Replace the weights of a checkpoint by shards."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem, suffix = ("model", "safetensors") if form == "safetensors" else ("pytorch_model", "bin")
    places: dict[str, str] = {}
    for i in range(count):
        name = f"{stem}-{i + 1:05}-of-{count:05}.{suffix}"
        shard = {key: tensors[key] for key in sorted(tensors)[i::count]}
        if form == "safetensors":
            save_file(shard, folder / name)
        else:
            torch.save(shard, folder / name)
        places |= dict.fromkeys(shard, name)
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_shards_are_read(folder: Path, form: str) -> None:
    before = load_backbone(str(folder)).fingerprint
    save_shards(folder, form)
    assert load_backbone(str(folder)).fingerprint == before


def test_shards_by_transformers_are_read(tmp_path: Path) -> None:
    import transformers

    folder = by_transformers(tmp_path / "model", "bert")
    before = load_backbone(str(folder)).fingerprint
    model = transformers.AutoModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    assert (folder / "model.safetensors.index.json").exists()
    assert load_backbone(str(folder)).fingerprint == before


SHARD = "model-00002-of-00003.safetensors"


def index_of(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def placed(index: dict[str, Any], place: object) -> dict[str, Any]:
    return index | {"weight_map": index["weight_map"] | {WORDS: place}}


SHARD_DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing shard": (lambda f: (f / SHARD).unlink(), f"{SHARD} is missing from the folder"),
    "truncated shard": (lambda f: (f / SHARD).write_bytes((f / SHARD).read_bytes()[:500]), "cannot be read as weights"),
    "another shard": (lambda f: (f / SHARD).write_bytes((f / SHARD.replace("2-", "1-")).read_bytes()), "says it is he"),
    "parent": (lambda f: index_of(f, lambda i: placed(i, "../secret.safetensors")), "is not the name of a weight file"),
    "absolute": (lambda f: index_of(f, lambda i: placed(i, "/etc/passwd")), "is not the name of a weight file"),
    "hidden": (lambda f: index_of(f, lambda i: placed(i, ".x.safetensors")), "is not the name of a weight file"),
    "number": (lambda f: index_of(f, lambda i: placed(i, 7)), "is not the name of a weight file"),
    "no map": (lambda f: index_of(f, lambda i: {"metadata": {}}), "weight_map"),
    "map of another type": (lambda f: index_of(f, lambda i: {"weight_map": [1]}), "weight_map"),
    "a list": (lambda f: index_of(f, lambda i: [i]), "weight_map"),
    "no JSON": (lambda f: (f / "model.safetensors.index.json").write_text("{"), "not valid JSON"),
}


@pytest.mark.parametrize("name", SHARD_DAMAGES)
def test_damaged_shards_are_refused(folder: Path, name: str) -> None:
    save_shards(folder, "safetensors")
    load_backbone(str(folder))
    damage, words = SHARD_DAMAGES[name]
    damage(folder)
    assert words in refusal(folder)


WRAPPED: dict[str, Callable[[Tensors], object]] = {
    "DataParallel": lambda tensors: {f"module.{name}": value for name, value in tensors.items()},
    "compile": lambda tensors: {f"_orig_mod.{name}": value for name, value in tensors.items()},
    "both": lambda tensors: {f"module._orig_mod.{name}": value for name, value in tensors.items()},
    "trainer": lambda tensors: {"state_dict": tensors, "epoch": 3},
    "trainer of both": lambda tensors: {
        "state_dict": {f"module.{n}": value for n, value in tensors.items()},
        "lr": 1.0,
    },
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_state_dicts_are_read(folder: Path, name: str) -> None:
    before = load_backbone(str(folder)).fingerprint
    save_pickled(folder, WRAPPED[name](load_file(folder / "model.safetensors")))
    assert load_backbone(str(folder)).fingerprint == before


PICKLED: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "whole numbers as keys": (lambda t: dict(enumerate(t.values())), "is missing"),
    "sparse": (lambda t: t | {WORDS: t[WORDS].to_sparse()}, "dense tensors"),
    "meta": (lambda t: t | {WORDS: t[WORDS].to("meta")}, "a tensor without values"),
    "quantised": (lambda t: t | {WORDS: torch.quantize_per_tensor(t[WORDS], 0.1, 0, torch.qint8)}, "dense tensors"),
    "complex": (lambda t: t | {WORDS: t[WORDS].to(torch.complex64)}, "dense tensors"),
    "int8": (lambda t: t | {WORDS: t[WORDS].to(torch.int8)}, "has the type int8"),
    "repeated": (lambda t: t | {WORDS: torch.zeros(1).expand(10**10, 32)}, "more values than the file has bytes"),
    "a number": (lambda t: 7, "contains a int"),
    "nested": (lambda t: {"model": t}, "is missing"),
}


@pytest.mark.parametrize("name", PICKLED)
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_other_contents_of_a_pickled_file_are_refused(folder: Path, name: str) -> None:
    content, words = PICKLED[name]
    save_pickled(folder, content(load_file(folder / "model.safetensors")))
    assert words in refusal(folder)


def test_a_refused_pickle_does_not_advise_to_execute_it(folder: Path) -> None:
    save_pickled(folder, {"payload": Path("/")})
    message = refusal(folder)
    assert "which is never executed" in message
    assert "weights_only" not in message


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e39])
@pytest.mark.parametrize("name", [WORDS, "bert.encoder.layer.1.output.LayerNorm.bias", "bert.pooler.dense.weight"])
def test_values_that_are_not_finite_are_refused(folder: Path, name: str, value: float) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = tensors[name].double()
    tensors[name].view(-1)[5] = value
    save_file(tensors, folder / "model.safetensors")
    assert f"{name.removeprefix('bert.')} has 1 of {tensors[name].numel()} values that are not finite" in refusal(
        folder
    )


def test_a_value_of_a_tensor_that_is_not_used_may_be_anything(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors") | {"cls.bias": torch.tensor([torch.nan])}
    save_file(tensors, folder / "model.safetensors")
    load_backbone(str(folder))


ABSURD: dict[str, dict[str, object]] = {
    "layers": {"num_hidden_layers": 1_000_000_000},
    "vocabulary": {"vocab_size": 2_000_000_000},
    "width": {"hidden_size": 2_000_000_000, "num_attention_heads": 2},
    "feed-forward": {"intermediate_size": 1_999_999_999},
    "positions": {"max_position_embeddings": 1_000_000_000},
    "types": {"type_vocab_size": 1_000_000_000},
    "beyond 32 bits": {"num_hidden_layers": 2**40},
    "digits": {"num_hidden_layers": 10**4000},
}
READ = """
import json, resource, sys
from loralet.errors import CheckpointError
from loralet.hub.checkpoint import read_checkpoint
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
try:
    read_checkpoint(sys.argv[2])
except CheckpointError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_sizes_are_refused_without_their_memory(folder: Path, name: str) -> None:
    read_checkpoint(str(folder))
    change(folder, **ABSURD[name])
    done = subprocess.run(
        [sys.executable, "-c", READ, str(MEMORY), str(folder)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert str(folder) in done.stdout
    assert len(done.stdout) < 4000


@pytest.mark.parametrize(
    "kinds", [["full_attention"] * 5, ["sliding_attention"] * 100_000, [1, {}], ["full_attention"]]
)
def test_absurd_layer_types_are_refused(tmp_path: Path, kinds: list[object]) -> None:
    folder = by_transformers(tmp_path / "model", "modernbert")
    load_backbone(str(folder))
    change(folder, layer_types=kinds, num_hidden_layers=max(len(kinds), 1_000))
    message = refusal(folder)
    assert "layer_types" in message
    assert len(message) < 1000


@pytest.mark.parametrize("name", ["config.json", "vocab.txt", "model.safetensors"])
def test_a_git_lfs_pointer_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(LFS)
    message = refusal(folder)
    assert str(folder / name) in message
    assert "it is a Git LFS pointer" in message


def test_a_deep_config_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 200_000)
    assert "nested too deeply" in refusal(folder)


def with_tokenizer(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    described = json.loads(load_backbone(str(folder)).tokenizer.to_str())
    (folder / "tokenizer.json").write_text(json.dumps(change(described)))


TOKENIZERS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a number": (lambda _: 7, "cannot be read"),
    "no model": (lambda t: {k: v for k, v in t.items() if k != "model"}, "cannot be read"),
    "ids of the template": (
        lambda t: t | {"post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 999_999], "cls": ["[CLS]", 2]}},
        "adds the token id 999999",
    ),
    "ids beyond the embeddings": (
        lambda t: t | {"model": t["model"] | {"vocab": t["model"]["vocab"] | {"zzz": 4_000_000_000}}},
        "word embeddings",
    ),
    "negative ids": (lambda t: t | {"model": t["model"] | {"vocab": {"[UNK]": -1}}}, "cannot be read"),
    "no template": (lambda t: t | {"post_processor": None}, "no special token"),
    "bad pattern": (
        lambda t: t | {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated",
                                         "invert": False}},
        "cannot be read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENIZERS)
def test_damaged_tokenizers_are_refused(folder: Path, name: str) -> None:
    change, words = TOKENIZERS[name]
    with_tokenizer(folder, lambda described: described)
    load_backbone(str(folder))
    with_tokenizer(folder, change)
    assert words in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, bytes(1000), LFS])
def test_a_tokenizer_file_of_other_content_is_refused(folder: Path, content: bytes) -> None:
    (folder / "tokenizer.json").write_bytes(content)
    message = refusal(folder)
    assert str(folder / "tokenizer.json") in message
    assert ("it is a Git LFS pointer" in message) == (content == LFS)
