"""Damaged classifiers of other programs, and damaged exports, are refused with one message before any prediction."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from command_line import command
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file
from test_foreign import LABELS, classifier
from transformers import AutoTokenizer

from loralet.config import ComputeOptions, ModelOptions
from loralet.errors import UserError
from loralet.inference.adapters import find_adapter
from loralet.inference.ensemble import load_ensemble
from loralet.inference.predictions import Prediction

TEXT = "the stock market"
WIDTH, POSITIONS = 8, 16
"""Width of the graph's embeddings, and the number of tokens that its metadata name."""
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
Change = Callable[[Path], object]


def written(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content)


def cut(name: str) -> Change:
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: (folder / name).stat().st_size // 2]
    )


def lost(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def with_keys(name: str, **keys: Any) -> Change:
    """Set keys of a JSON file."""

    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    """Change the tensors of a checkpoint."""

    def changed(folder: Path) -> None:
        found = load_file(folder / "model.safetensors")
        change(found)
        save_file(found, folder / "model.safetensors")

    return changed


def one_nan(found: dict[str, torch.Tensor]) -> None:
    found["classifier.weight"][1, 2] = torch.nan


def one_row_less(found: dict[str, torch.Tensor]) -> None:
    found["classifier.weight"] = found["classifier.weight"][:-1].clone()


def ids(*names: Any) -> dict[str, Any]:
    return {str(number): name for number, name in enumerate(names)}


CHECKPOINTS: dict[str, tuple[str, Change]] = {
    "truncated configuration": ("config.json: cannot be read (config.json is not valid JSON", cut("config.json")),
    "a number as configuration": ("config.json: a JSON object is expected", written("config.json", "7")),
    "no weights": ("config.json names a classifier, but model.safetensors or", lost("model.safetensors")),
    "truncated weights": ("cannot be read as weights", cut("model.safetensors")),
    "an LFS pointer as weights": ("it is a Git LFS pointer", written("model.safetensors", POINTER)),
    "NaN": ("classifier.weight has 1 of 128 values that are not finite", tensors(one_nan)),
    "a classifier row missing": ("id2label has 4 names; one for each of the 3 classes", tensors(one_row_less)),
    "a name missing": ("id2label has 3 names; one for each of the 4", with_keys("config.json", id2label=ids(*"abc"))),
    "a name more": ("id2label has 5 names; one for each of the 4", with_keys("config.json", id2label=ids(*"abcde"))),
    "names as a list": ("id2label is ['a', 'b', 'c', 'd']", with_keys("config.json", id2label=list("abcd"))),
    "names as numbers of places": (
        "id2label has 4 names",
        with_keys("config.json", id2label={str(i): "a" for i in "1234"}),
    ),
    "no names": ("id2label is {}", with_keys("config.json", id2label={})),
    "a name twice": ("id2label has 'a' more than once", with_keys("config.json", id2label=ids("a", "b", "a", "c"))),
    "an empty name": ("id2label has an empty name", with_keys("config.json", id2label=ids("a", "b", "", "c"))),
    "null as a name": (
        "id2label has values that are not names",
        with_keys("config.json", id2label=ids("a", "b", None, "c")),
    ),
    "half a character in a name": (
        "not valid Unicode",
        with_keys("config.json", id2label=ids("a", "b\ud800", "c", "d")),
    ),
    "no tokenizer": ("no vocabulary; expected tokenizer.json", lost("tokenizer.json")),
    "truncated tokenizer": ("tokenizer.json: the tokenizer cannot be read", cut("tokenizer.json")),
    "truncated tokenizer settings": ("tokenizer_config.json: not valid JSON", cut("tokenizer_config.json")),
    "tokenizer settings of text": (
        "do_lower_case is 'no'; true, false or null is expected",
        with_keys("tokenizer_config.json", do_lower_case="no"),
    ),
    "a token of another tokenizer": (
        "use files of one tokenizer",
        with_keys("tokenizer_config.json", added_tokens_decoder={"9999": {"content": "zz"}}),
    ),
    "ids of added tokens as text": (
        "the added tokens cannot be read",
        with_keys("tokenizer_config.json", added_tokens_decoder={"x": {"content": "zz"}}),
    ),
    "added tokens as a list": (
        "added_tokens_decoder must be an object of objects",
        with_keys("tokenizer_config.json", added_tokens_decoder=["zz"]),
    ),
}


def write_graph(
    folder: Path, inputs: tuple[str, str] = ("input_ids", "attention_mask"), output: str = "logits"
) -> None:
    """Write a graph: the mean embedding of a text, times a matrix."""
    draw = np.random.default_rng(0)
    rows = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    values = {
        "embeddings": draw.normal(size=(rows, WIDTH)).astype(np.float32),
        "matrix": draw.normal(size=(WIDTH, len(LABELS))).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["embeddings", inputs[0]], ["embedded"]),
        helper.make_node("Cast", [inputs[1]], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["weights"]),
        helper.make_node("Mul", ["embedded", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "tokens"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "matrix"], [output]),
    ]
    places = [helper.make_tensor(name, TensorProto.INT64, [1], [place]) for name, place in (("last", 2), ("tokens", 1))]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", len(LABELS)])],
        [*(numpy_helper.from_array(array, name) for name, array in values.items()), *places],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"labels": json.dumps(LABELS), "longest": str(POSITIONS)})
    onnx.save(model, folder / "model.onnx")


def graph_with_nan(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    matrix = next(tensor for tensor in model.graph.initializer if tensor.name == "matrix")
    values = numpy_helper.to_array(matrix).copy()
    values[0] = np.nan
    matrix.CopyFrom(numpy_helper.from_array(values, "matrix"))
    onnx.save(model, folder / "model.onnx")


def fewer_embeddings(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    table = next(tensor for tensor in model.graph.initializer if tensor.name == "embeddings")
    table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table)[:3].copy(), "embeddings"))
    onnx.save(model, folder / "model.onnx")


def settings(**keys: Any) -> Change:
    return with_keys("labels.json", **keys)


GRAPHS: dict[str, tuple[str, Change]] = {
    "truncated labels": ("labels.json is not valid JSON", cut("labels.json")),
    "an LFS pointer as labels": ("it is a Git LFS pointer", written("labels.json", POINTER)),
    "a list as labels.json": ("labels.json: a JSON object is expected", written("labels.json", "[]")),
    "one label": ("two or more strings are expected", settings(labels=["a"])),
    "numbers as labels": ("two or more strings are expected", settings(labels=[1, 2, 3, 4])),
    "a label missing": ("has 4 logits, but the folder has 3 labels", settings(labels=LABELS[:3])),
    "a label more": ("has 4 logits, but the folder has 5 labels", settings(labels=[*LABELS, "more"])),
    "a label twice": ("labels has 'World' more than once", settings(labels=[*LABELS[:3], LABELS[0]])),
    "an empty label": ("labels has an empty name", settings(labels=[*LABELS[:3], ""])),
    "half a character in a label": ("not valid Unicode", settings(labels=[*LABELS[:3], "a\udc80"])),
    "labels in another order": ("but those of the folder are", settings(labels=LABELS[::-1])),
    "length of text": ("max_length is '16'; a whole number", settings(max_length="16")),
    "fractional length": ("max_length is 16.5; a whole number", settings(max_length=16.5)),
    "length 0": ("max_length is 0; a whole number from 3", settings(max_length=0)),
    "infinite length": ("max_length is inf; a whole number", settings(max_length=float("inf"))),
    "longer length": ("computes texts of at most 16 tokens, but max_length is 17", settings(max_length=17)),
    "no graph": ("labels.json is that of an ONNX graph, but model.onnx is missing", lost("model.onnx")),
    "truncated graph": ("onnxruntime cannot read it", cut("model.onnx")),
    "an empty graph": ("onnxruntime cannot read it", written("model.onnx", "")),
    "an LFS pointer as graph": ("it is a Git LFS pointer", written("model.onnx", POINTER)),
    "other inputs": (
        "has the inputs ids, attended and the outputs",
        lambda folder: write_graph(folder, ("ids", "attended")),
    ),
    "another output": ("the outputs scores; expected", lambda folder: write_graph(folder, output="scores")),
    "NaN in a graph": ("are not finite", graph_with_nan),
    "embeddings missing": ("graph, tokenizer and max_length must be those of one model", fewer_embeddings),
    "no tokenizer": ("cannot be read as a folder with an ONNX graph", lost("tokenizer.json")),
    "truncated tokenizer": ("cannot be read as a folder with an ONNX graph", cut("tokenizer.json")),
    "an LFS pointer as tokenizer": ("it is a Git LFS pointer", written("tokenizer.json", POINTER)),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of transformers, and a folder with a graph."""
    folder = tmp_path_factory.mktemp("exports")
    classifier(folder / "checkpoint")
    AutoTokenizer.from_pretrained(folder / "checkpoint").save_pretrained(folder / "checkpoint")
    (folder / "checkpoint" / "vocab.txt").unlink(missing_ok=True)
    (folder / "graph").mkdir()
    shutil.copy(folder / "checkpoint" / "tokenizer.json", folder / "graph")
    (folder / "graph" / "labels.json").write_text(json.dumps({"labels": LABELS, "max_length": POSITIONS}))
    write_graph(folder / "graph")
    return folder


def predicted(folder: Path) -> list[Prediction]:
    ensemble = load_ensemble([find_adapter(folder)], ModelOptions(), ComputeOptions())
    return list(ensemble.predict([TEXT, "x"]))


@pytest.mark.parametrize(
    ("kind", "name"), [*(("checkpoint", name) for name in CHECKPOINTS), *(("graph", name) for name in GRAPHS)]
)
def test_damage_is_refused(place: Path, tmp_path: Path, kind: str, name: str) -> None:
    words, change = (CHECKPOINTS if kind == "checkpoint" else GRAPHS)[name]
    shutil.copytree(place / kind, tmp_path / "copy")
    change(tmp_path / "copy")
    with pytest.raises(UserError) as caught:
        predicted(tmp_path / "copy")
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "copy")) or "not finite" in words


def test_intact_folders_predict(place: Path) -> None:
    for kind in ("checkpoint", "graph"):
        done = command(place, "predict", kind, TEXT, TEXT * 20, "--format", "csv")
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 3


def test_label_names_replace_those_of_a_folder(place: Path, tmp_path: Path) -> None:
    for kind in ("checkpoint", "graph"):
        done = command(place, "predict", kind, TEXT, "--label-names", *"abcd", "--format", "jsonl")
        assert done.returncode == 0, done.stderr
    shutil.copytree(place / "checkpoint", tmp_path / "copy")
    with_keys("config.json", id2label=ids("a", "b", "a", "c"))(tmp_path / "copy")
    assert command(tmp_path, "predict", "copy", TEXT, "--label-names", *"abcd").returncode == 0
