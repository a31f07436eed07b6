"""Every kind of damage to an adapter folder is refused with one line, and no prediction is printed.

Folders of older versions have no checksums: for them, all damage that changes types, names, shapes or ranges is
refused.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import command
from models import make_pair
from safetensors.torch import load_file, save_file
from test_adapters import RUNS, trained
from torch import Tensor

from loralet.artifacts.artifact import Measured, read_description
from loralet.artifacts.fields import LABEL_TYPES
from loralet.artifacts.folder import add_metrics, load_artifact, save_artifact
from loralet.errors import CheckError, RunError
from loralet.inference.adapters import read_adapter
from loralet.models.heads import POOLING_ACTIVATIONS
from loralet.models.pooling import POOLING_NAMES
from loralet.tasks.base import Scores
from loralet.tasks.mixing import Mixing
from loralet.tasks.words import WordModel

TEXT = "a w3 w60 z"
Described = dict[str, Any]
Tensors = dict[str, Tensor]
WEIGHTS = "adapter_model.safetensors"
CLASSIFIER = "base_model.model.classifier.weight"
BIAS = "base_model.model.classifier.bias"
A = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"
B = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_B.weight"
FOLDERS = {
    "lora": ("all-linear", "pooler"),
    "trained-pooler": ("query-value", "trained-pooler"),
    "mean": ("query-value", "mean"),
    "dora": ("dora", "pooler"),
    "probe": ("probe", "pooler"),
    "full": ("full", "pooler"),
    "hybrid": ("query-value", "pooler"),
}
COEFFICIENTS = np.linspace(-1, 1, 8, dtype=np.float16).reshape(2, 4)
WORDS = WordModel(
    ("a", "w3"), np.zeros((0, 2), np.int32), np.ones(2, np.float32), COEFFICIENTS.astype(np.float32),
    np.zeros(4, np.float32),
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter folder of each kind, on one base."""
    folder = tmp_path_factory.mktemp("adapters")
    pair = make_pair(folder / "base")
    for name, (run, head) in FOLDERS.items():
        _, _, artifact = trained(pair, RUNS[run], head)  # type: ignore[arg-type]
        if name == "hybrid":
            artifact = replace(artifact, words=WORDS, mixing=Mixing(0.5, 1.0))
        save_artifact(folder / name, artifact, pair.ours)
    return folder


@dataclass(frozen=True)
class Damage:
    """A change of an adapter folder.

    Args:
        words: what the message says about a folder without checksums; empty if only a checksum reveals the damage.
        change: makes the change.
        folder: the kind of folder.
    """

    words: str
    change: Callable[[Path], None]
    folder: str = "lora"


def field(words: str, folder: str = "lora", /, **values: object) -> Damage:
    """Other values of fields of loralet.json."""

    def change(folder: Path) -> None:
        edit(folder, lambda described: described | values)

    return Damage(words, change, folder)


def nested(words: str, key: str, folder: str = "lora", /, **values: object) -> Damage:
    """Other values of fields of an object in loralet.json."""

    def change(folder: Path) -> None:
        edit(folder, lambda described: described | {key: described[key] | values})

    return Damage(words, change, folder)


def tensor(words: str, change: Callable[[Tensors], Tensors], folder: str = "lora", file: str = WEIGHTS) -> Damage:
    """Other tensors."""

    def changed(folder: Path) -> None:
        tensors = change(load_file(folder / file))
        save_file({name: value.contiguous() for name, value in tensors.items()}, folder / file)

    return Damage(words, changed, folder)


def content(words: str, file: str, change: Callable[[bytes], bytes], folder: str = "lora") -> Damage:
    """Other bytes of a file."""

    def changed(folder: Path) -> None:
        (folder / file).write_bytes(change((folder / file).read_bytes()))

    return Damage(words, changed, folder)


def edit(folder: Path, change: Callable[[Described], Described]) -> None:
    path = folder / "loralet.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def without_checksums(described: Described) -> Described:
    return {key: value for key, value in described.items() if key != "sha256"}


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def gone(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def ending(tensors: Tensors, suffix: str, change: Callable[[Tensor], Tensor]) -> Tensors:
    return {name: change(value) if name.endswith(suffix) else value for name, value in tensors.items()}


DAMAGES: dict[str, Damage] = {
    # the description
    "no object": content("a JSON object is expected", "loralet.json", lambda _: b"[]"),
    "a number": content("a JSON object is expected", "loralet.json", lambda _: b"17"),
    "empty description": content("not valid JSON", "loralet.json", lambda _: b""),
    "truncated description": content("not valid JSON", "loralet.json", lambda data: data[: len(data) // 2]),
    "description of zeros": content("not valid JSON", "loralet.json", lambda data: bytes(len(data))),
    "description of bytes": content("not valid JSON", "loralet.json", lambda _: b"\xff\xfe{}"),
    "deep description": content("nested too deeply", "loralet.json", lambda _: b"[" * 100_000),
    "digits": content("not valid JSON", "loralet.json", lambda _: b'{"schema": ' + b"9" * 5000 + b"}"),
    "no description": Damage("no trained classifier", gone("loralet.json"), "full"),
    "labels in another order": field("", labels=["Sports", "World", "Business", "Sci/Tech"]),
    "fewer labels": field("classifier.weight has shape [4, 32], expected [3, 32]", labels=["World", "Sports", "x"]),
    "more labels": field("expected [5, 32]", labels=["World", "Sports", "Business", "Sci/Tech", "Other"]),
    "duplicate labels": field("labels has 'World' more than once", labels=["World", "World", "Business", "Sci/Tech"]),
    "one label": field("at least two are expected", labels=["World"]),
    "labels of numbers": field("labels is [1, 2, 3, 4]", labels=[1, 2, 3, 4]),
    "labels as an object": field("a list is expected", labels={"0": "World"}),
    "a list as role": field("role is ['lora']", role=["lora"]),
    "role of a probe": field("adapter.rank is 8: 0 is expected", role="linear-probe"),
    "role of an adapter": field("adapter.rank is 0", "probe", role="lora"),
    "head": field("head is 'max'", head="max"),
    "another head": field("pooler.weight is missing", head="trained-pooler"),
    "no trained pooler": field("pooler.bias is not expected", "trained-pooler", head="pooler"),
    "a list as backbone": field("backbone is ['base']: a string is expected", backbone=["base"]),
    "no backbone": field("backbone is empty", backbone=""),
    "length 0": field("max_length is 0: at least 3", max_length=0),
    "length of text": field("max_length is '16': a whole number", max_length="16"),
    "fractional length": field("max_length is 16.5: a whole number", max_length=16.5),
    "shorter length": field("", max_length=4),
    "architecture": field("architecture is 'gpt'", architecture="gpt"),
    "a list as architecture": field("architecture is ['bert']", architecture=["bert"]),
    "task": field("task is 'regression'", task="regression"),
    "label type": field("label_type is 'date'", label_type="date"),
    "another label type": field("", label_type="int"),
    "temperature 0": field("temperature is 0.0", temperature=0.0),
    "temperature NaN": field("temperature is nan", temperature=float("nan")),
    "another temperature": field("", temperature=0.5),
    "fingerprint": field("trained on another model", backbone_fingerprint="0" * 64),
    "an unknown key": field("colour is not known", colour="red"),
    "metrics as a list": field("metrics is not an object", metrics=[1]),
    "scores of text": field("metrics.test", metrics={"test": {"rows": 3, "accuracy": "high", "loss": 1.0}}),
    "no scores": field("metrics.test has no accuracy", metrics={"test": {"rows": 3, "loss": 1.0}}),
    "fractional rows": field("rows is not a whole number", metrics={"test": {"rows": 2.5, "accuracy": 1.0}}),
    "alpha 0": nested("adapter.alpha is 0.0", "adapter", alpha=0.0),
    "negative alpha": nested("adapter.alpha is -16.0", "adapter", alpha=-16.0),
    "another alpha": nested("", "adapter", alpha=17.0),
    "huge alpha": nested("exceeds fp32", "adapter", alpha=1e300),
    "alpha of text": nested("adapter.alpha is '16'", "adapter", alpha="16"),
    "another scaling": nested("", "adapter", scaling="rslora"),
    "smaller rank": nested("expected [7, 32]", "adapter", rank=7),
    "negative rank": nested("adapter.rank is -8", "adapter", rank=-8),
    "huge rank": nested("expected [1000000000, 32]", "adapter", rank=1_000_000_000),
    "rank of text": nested("adapter.rank is '8'", "adapter", rank="8"),
    "fewer targets": nested("A is not expected", "adapter", targets=["value"]),
    "unknown targets": nested("adapter.targets has quarry", "adapter", targets=["quarry"]),
    "another method": nested("query.magnitude is missing", "adapter", method="dora"),
    "activation": nested("pooling.activation is 'sine'", "pooling", activation="sine"),
    "a list as activation": nested("pooling.activation is ['tanh']", "pooling", activation=["tanh"]),
    "another activation": nested("", "pooling", "trained-pooler", activation="relu"),
    "epsilon": nested("pooling.epsilon is -1.0", "pooling", epsilon=-1.0),
    # the tensors
    "no B": tensor("layers.0.query.B is missing", lambda t: {n: x for n, x in t.items() if "lora_B" not in n}),
    "one A missing": tensor("layers.0.query.A is missing", lambda t: {n: x for n, x in t.items() if n != A}),
    "no classifier": tensor("classifier.weight missing", lambda t: {n: x for n, x in t.items() if n != CLASSIFIER}),
    "no bias": tensor("classifier.bias missing", lambda t: {n: x for n, x in t.items() if n != BIAS}),
    "a classifier row missing": tensor("expected [4, 32]", lambda t: t | {CLASSIFIER: t[CLASSIFIER][:3]}),
    "narrower classifier": tensor("expected [4, 32]", lambda t: t | {CLASSIFIER: t[CLASSIFIER][:, :31]}),
    "narrower A": tensor("expected [8, 32]", lambda t: t | {A: t[A][:, :16]}),
    "lower rank": tensor(
        "expected [8, 32]", lambda t: ending(ending(t, "A.weight", lambda x: x[:4]), "B.weight", lambda x: x[:, :4])
    ),
    "transposed B": tensor("expected [32, 8]", lambda t: t | {B: t[B].T}),
    "scalar": tensor("has shape [], expected [4]", lambda t: t | {BIAS: torch.tensor(1.0)}),
    "one number": tensor("has shape [1], expected [4]", lambda t: t | {BIAS: torch.ones(1)}),
    "empty": tensor("has shape [0, 32]", lambda t: t | {A: torch.zeros(0, 32)}),
    "no tensors": tensor("classifier.bias, classifier.weight missing", lambda _: {}),
    "int8": tensor("has the type int8", lambda t: t | {A: t[A].to(torch.int8)}),
    "bool": tensor("has the type bool", lambda t: t | {A: t[A] > 0}),
    "fp8": tensor("layers.0.query.A is missing", lambda t: t | {A: t[A].to(torch.float8_e4m3fn)}),
    "NaN": tensor("layers.0.query.B has 1 of 256 values that are not finite", lambda t: t | {B: with_nan(t[B])}),
    "infinity": tensor("values that are not finite", lambda t: t | {B: t[B] + torch.inf}),
    "an unknown tensor": tensor("cannot be read as an adapter folder", lambda t: t | {"stray": torch.zeros(2)}),
    "another layer": tensor(
        "layers.7.query.A is not expected", lambda t: t | {A.replace("layer.0", "layer.7"): t[A].clone()}
    ),
    "zeros in B": tensor("", lambda t: ending(t, "lora_B.weight", torch.zeros_like)),
    "layers exchanged": tensor("", lambda t: {swapped(n): x for n, x in t.items()}),
    "fp16": tensor("", lambda t: {n: x.half() for n, x in t.items()}),
    "one bit": content("", WEIGHTS, lambda data: flipped(data, len(data) - 7)),
    "a bit of the header": content("cannot be read", WEIGHTS, lambda data: flipped(data, 9)),
    "truncated weights": content("cannot be read", WEIGHTS, lambda data: data[:-100]),
    "empty weights": content("cannot be read", WEIGHTS, lambda _: b""),
    "weights of zeros": content("cannot be read", WEIGHTS, lambda data: bytes(len(data))),
    "an LFS pointer": content(
        "is a Git LFS pointer", WEIGHTS, lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    ),
    "no weights": Damage("is missing: predictions would be random", gone(WEIGHTS)),
    "a folder": Damage("adapter_model.safetensors", lambda folder: (gone(WEIGHTS)(folder), (folder / WEIGHTS).mkdir())),
    # other kinds of folders
    "head of another width": tensor(
        "expected [4, 32]", lambda t: ending(t, "r.weight", lambda x: x[:, :8]), "mean", "head.safetensors"
    ),
    "no head": Damage("head.safetensors is missing", gone("head.safetensors"), "mean"),
    "bit of a head": content("", "head.safetensors", lambda data: flipped(data, len(data) - 3), "probe"),
    "no linear model": Damage("words.safetensors is missing", gone("words.safetensors"), "hybrid"),
    "no tokens": Damage("words.json is missing", gone("words.json"), "hybrid"),
    "tokens of the linear model exchanged": content(
        "", "words.json", lambda data: data.replace(b'"a", "w3"', b'"w3", "a"'), "hybrid"
    ),
    "bit of the linear model": content("", "words.safetensors", lambda data: flipped(data, len(data) - 1), "hybrid"),
    "another weight of the encoder": nested("", "mixing", "hybrid", weight=0.9),
    "weight 2": nested("mixing.weight is 2.0", "mixing", "hybrid", weight=2.0),
    "temperature 0 of a hybrid": nested("mixing.temperature is 0.0", "mixing", "hybrid", temperature=0.0),
    "no magnitudes": tensor(
        "query.magnitude is missing", lambda t: {n: x for n, x in t.items() if "magnitude" not in n}, "dora"
    ),
    "bit of a pooler": content("", WEIGHTS, lambda data: flipped(data, len(data) // 2), "trained-pooler"),
    "bit of an encoder": content("", "model.safetensors", lambda data: flipped(data, len(data) - 3), "full"),
    "no encoder": Damage("no weights", gone("model.safetensors"), "full"),
    "heads of the encoder": content("", "config.json", lambda data: data.replace(b"heads\": 2", b"heads\": 4"), "full"),
    "tokens exchanged": content(
        "", "tokenizer.json", lambda data: data.replace(b'"a": 5', b'"a": X').replace(b'"b": 6', b'"b": 5').replace(
            b'"a": X', b'"a": 6'), "full",
    ),
}  # fmt: skip


def with_nan(values: Tensor) -> Tensor:
    changed = values.clone()
    changed[3, 1] = torch.nan
    return changed


def swapped(name: str) -> str:
    return name.replace("layer.0", "layer.x").replace("layer.1", "layer.0").replace("layer.x", "layer.1")


def refused(place: Path, folder: Path) -> str:
    """The message of a command that must refuse a folder."""
    done = command(place, "predict", str(folder), TEXT, "--format", "jsonl")
    assert (done.returncode, done.stdout) == (2, ""), done
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_refused(place: Path, tmp_path: Path, name: str) -> None:
    damage = DAMAGES[name]
    shutil.copytree(place / damage.folder, tmp_path / "adapter")
    assert command(tmp_path, "predict", "adapter", TEXT).returncode == 0
    damage.change(tmp_path / "adapter")
    refused(tmp_path, tmp_path / "adapter")


@pytest.mark.parametrize("name", [name for name, damage in DAMAGES.items() if damage.words])
def test_damage_is_refused_without_checksums(place: Path, tmp_path: Path, name: str) -> None:
    damage = DAMAGES[name]
    shutil.copytree(place / damage.folder, tmp_path / "adapter")
    edit(tmp_path / "adapter", without_checksums)
    assert command(tmp_path, "predict", "adapter", TEXT).returncode == 0
    damage.change(tmp_path / "adapter")
    assert damage.words in refused(tmp_path, tmp_path / "adapter")


@pytest.mark.parametrize("folder", FOLDERS)
def test_checksums_are_kept_when_scores_are_added(place: Path, tmp_path: Path, folder: str) -> None:
    shutil.copytree(place / folder, tmp_path / "adapter")
    before = json.loads((tmp_path / "adapter" / "loralet.json").read_text())["sha256"]
    assert set(before) == {"description", "tensors"} | {"full": {"checkpoint"}, "hybrid": {"words"}}.get(folder, set())
    scores = Scores({"accuracy": 0.5, "macro_f1": 0.5}, {}, 1.0)
    add_metrics(tmp_path / "adapter", "validation", 30, scores)
    described = json.loads((tmp_path / "adapter" / "loralet.json").read_text())
    assert described["sha256"] == before
    assert load_artifact(tmp_path / "adapter").metrics == {"validation": Measured(30, scores)}
    read_adapter(tmp_path / "adapter")
    edit(tmp_path / "adapter", lambda described: described | {"sha256": {"tensors": "0"}})
    with pytest.raises(RunError, match="incomplete checksums"):
        read_adapter(tmp_path / "adapter")


def test_the_place_of_the_backbone_is_not_part_of_the_checksum(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "lora", tmp_path / "adapter")
    shutil.copytree(place / "base", tmp_path / "moved")
    edit(tmp_path / "adapter", lambda described: described | {"backbone": str(tmp_path / "moved")})
    read_adapter(tmp_path / "adapter")


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    pair = make_pair(tmp_path / "base")
    _, _, artifact = trained(pair, RUNS["query-value"], "pooler")
    artifact.tensors["classifier.bias"][1] = torch.nan
    with pytest.raises(CheckError, match=r"classifier.bias has 1 of 4 values that are not finite.*nothing was kept"):
        save_artifact(tmp_path / "adapter", artifact, pair.ours)
    assert not (tmp_path / "adapter").exists()


def test_the_known_names_are_complete(place: Path) -> None:
    assert set(POOLING_NAMES) == set(POOLING_ACTIVATIONS)
    described = json.loads((place / "lora" / "loralet.json").read_text())
    for label_type in LABEL_TYPES:
        read_description(described | {"label_type": label_type})
