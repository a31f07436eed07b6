"""Adapter folders of the first layout load and predict as before; tensors that do not fit are rejected."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import command
from models import CLASSES, Pair, batch, make_pair
from programs import pack_for, run_of
from safetensors.torch import load_file, save_file
from test_adapters import LABELS, RUNS, trained
from tolerances import EXACT
from torch import Tensor

from loralet import TextClassifier
from loralet.adapters.spec import AdapterSpec
from loralet.artifacts.artifact import Artifact, Measured, read_description
from loralet.artifacts.average import average
from loralet.artifacts.folder import load_artifact, save_artifact
from loralet.artifacts.verify import pack_of
from loralet.backends.batch import batch_of
from loralet.config import ComputeOptions, TrainingOptions
from loralet.errors import RunError
from loralet.inference.predictor import load_classifier
from loralet.models.pooling import HeadKind, Pooling
from loralet.tasks.base import Scores

TEXTS = ["a w3 w60 z", "w9", "k l m n o p q r s t u v w x y z a b c d e f g", "w1 w2 w3 w4 w5"]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path / "base")


SCORES = {
    "rows": 30,
    "accuracy": 0.9,
    "accuracy_low": 0.744,
    "accuracy_high": 0.965,
    "macro_precision": 0.91,
    "macro_recall": 0.89,
    "macro_f1": 0.9,
    "loss": 0.31,
}


def drop_checksums(folder: Path) -> dict[str, Any]:
    """Remove the checksums, as in folders written before they existed; returns the description."""
    described: dict[str, Any] = json.loads((folder / "loralet.json").read_text())
    del described["sha256"]
    (folder / "loralet.json").write_text(json.dumps(described))
    return described


def schema_1(artifact: Artifact) -> dict[str, Any]:
    """loralet.json of an artifact as written by version 0.1.0."""
    return {
        "schema": 1,
        "loralet": "0.1.0",
        "id": artifact.id,
        "role": artifact.role,
        "labels": list(artifact.labels),
        "head": artifact.head,
        "max_length": artifact.max_length,
        "rank": artifact.adapter.rank,
        "alpha": artifact.adapter.alpha,
        "dropout": artifact.adapter.dropout,
        "targets": list(artifact.adapter.targets),
        "scaling": artifact.adapter.scaling,
        "backbone": artifact.backbone,
        "backbone_fingerprint": artifact.backbone_fingerprint,
        "architecture": artifact.architecture,
        "data_fingerprint": artifact.data_fingerprint,
        "head_activation": "tanh",
        "label_type": "str",
        "training": {
            "lr": 0.003,
            "seed": 5,
            "steps_taken": 80,
            "head": artifact.head,
            "head_dropout": 0.1,
            "epochs": None,
            "steps": 80,
            "batch_size": 16,
            "schedule": "cosine",
            "warmup": 0.06,
            "weight_decay": 0.01,
            "clip": 1.0,
            "eval_every": 40,
            "validation_sample": 512,
            "target_accuracy": 0.7,
            "patience": 3,
            "precision": "fp32",
            "threads": 2,
        },
        "data": {
            "source": "rows.csv",
            "train_rows": 270,
            "validation_rows": 30,
            "split_seed": 1,
            "validation_fraction": 0.2,
        },
        "metrics": {"validation": SCORES},
    }


def in_the_old_layout(pair: Pair, folder: Path, name: str, head: HeadKind = "pooler") -> Artifact:
    """An adapter folder whose loralet.json has schema 1, and its source artifact."""
    _, _, artifact = trained(pair, RUNS[name], head)
    save_artifact(folder, artifact, pair.ours)
    (folder / "loralet.json").write_text(json.dumps(schema_1(artifact), indent=2), encoding="utf-8")
    return artifact


@pytest.mark.parametrize("head", ["pooler", "trained-pooler", "mean"])
@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if run.adapter.method == "lora"])
def test_a_folder_of_the_first_layout_gives_equal_predictions(
    pair: Pair, tmp_path: Path, name: str, head: HeadKind
) -> None:
    program, parameters, artifact = trained(pair, RUNS[name], head)
    in_the_old_layout(pair, tmp_path / "old", name, head)
    loaded = load_classifier(tmp_path / "old", compute=ComputeOptions("torch", "fp32"))
    ids, lengths, _, _ = batch()
    rows = batch_of(ids, lengths)
    assert (loaded.forward(rows) - program.logits(parameters)(rows)).abs().max() == EXACT
    plain = ("id", "role", "labels", "adapter", "max_length", "backbone", "backbone_fingerprint", "architecture")
    plain += ("data_fingerprint", "task", "pooling", "label_type")
    assert all(getattr(loaded.artifact, key) == getattr(artifact, key) for key in plain)
    assert load_artifact(tmp_path / "old").head == head


def test_training_metadata_of_the_first_layout_is_kept(pair: Pair, tmp_path: Path) -> None:
    in_the_old_layout(pair, tmp_path / "old", "rslora")
    read = load_artifact(tmp_path / "old")
    assert read.adapter == AdapterSpec("lora", 8, 16.5, 0.0, ("key",), "rslora")
    made = read.provenance
    assert (made.source, made.train_rows, made.validation_rows) == ("rows.csv", 270, 30)
    assert (made.split_seed, made.validation_fraction, made.lr, made.seed, made.steps_taken) == (1, 0.2, 0.003, 5, 80)
    assert made.training == TrainingOptions(
        head="pooler",
        steps=80,
        batch_size=16,
        schedule="cosine",
        weight_decay=0.01,
        eval_every=40,
        target_score=0.7,
        patience=3,
    )
    assert made.compute == ComputeOptions(precision="fp32", threads=2)
    values = {"accuracy": 0.9, "macro_precision": 0.91, "macro_recall": 0.89, "macro_f1": 0.9}
    assert read.metrics == {"validation": Measured(30, Scores(values, {"accuracy": (0.744, 0.965)}, 0.31))}
    classifier = TextClassifier.load(tmp_path / "old")
    expected = {"rank": 8, "alpha": 16.5, "targets": ("key",), "scaling": "rslora", "lr": 0.003, "random_state": 5}
    expected |= {"steps": 80, "schedule": "cosine", "target_score": 0.7, "patience": 3, "precision": "fp32"}
    expected |= {"threads": 2, "split_seed": 1, "validation_fraction": 0.2, "max_length": 16}
    assert {name: classifier.get_params()[name] for name in expected} == expected
    # Saved again, it has the current layout and the same content.
    save_artifact(tmp_path / "new", read, pair.ours)
    described = json.loads((tmp_path / "new" / "loralet.json").read_text())
    assert described["schema"] == 2
    assert replace(load_artifact(tmp_path / "new"), tensors={}) == replace(read, tensors={})


@pytest.mark.parametrize(("activation", "form"), [("relu", Pooling("relu")), ("gelu", Pooling("gelu"))])
def test_the_old_name_of_the_pooler_activation_is_read(
    pair: Pair, tmp_path: Path, activation: str, form: Pooling
) -> None:
    in_the_old_layout(pair, tmp_path / "old", "query-value", "trained-pooler")
    path = tmp_path / "old" / "loralet.json"
    tanh = load_classifier(tmp_path / "old")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"head_activation": activation}))
    other = load_classifier(tmp_path / "old")
    assert (tanh.artifact.pooling, other.artifact.pooling) == (Pooling(), form)
    ids, lengths, _, _ = batch()
    apart = other.forward(batch_of(ids, lengths)) - tanh.forward(batch_of(ids, lengths))
    assert apart.abs().max() > 1e-3


def test_fields_added_to_the_first_layout_later_are_optional(pair: Pair, tmp_path: Path) -> None:
    artifact = in_the_old_layout(pair, tmp_path / "old", "all-linear")
    path = tmp_path / "old" / "loralet.json"
    described = json.loads(path.read_text())
    for key in ("head_activation", "label_type", "training", "data", "metrics"):
        described.pop(key)
    path.write_text(json.dumps(described))
    read = load_artifact(tmp_path / "old")
    assert replace(read, tensors={}) == replace(artifact, tensors={})
    for made_of in (["a", "b"], ["a", "b", "c"]):
        path.write_text(json.dumps(described | {"training": {"averaged_from": made_of}, "data": {}}))
        assert load_artifact(tmp_path / "old").provenance.averaged_from == tuple(made_of)
    merged = {"merged_from": "lora-r4", "merged_rank": 4, "merged_alpha": 8.0, "lr": 0.003}
    path.write_text(json.dumps(described | {"training": merged}))
    read = load_artifact(tmp_path / "old")
    assert (read.provenance.merged_from, read.provenance.lr) == ("lora-r4", 0.003)
    assert read.provenance.training is None


def test_old_and_new_folders_can_be_averaged(pair: Pair, tmp_path: Path) -> None:
    artifact = in_the_old_layout(pair, tmp_path / "old", "query-value")
    old = load_artifact(tmp_path / "old")
    made = average({"old": old, "new": artifact}, "made")
    both = average({"a": artifact, "b": artifact}, "made")
    assert all(torch.equal(tensor, both.tensors[name]) for name, tensor in made.tensors.items())


def test_the_command_line_predicts_with_an_old_folder(pair: Pair, tmp_path: Path) -> None:
    artifact = in_the_old_layout(pair, tmp_path / "old", "all-linear")
    save_artifact(tmp_path / "new", artifact, pair.ours)
    said = [command(tmp_path, "predict", name, *TEXTS, "--format", "jsonl") for name in ("old", "new")]
    assert [done.returncode for done in said] == [0, 0], said[0].stderr
    assert said[0].stdout == said[1].stdout
    assert len(said[0].stdout.splitlines()) == len(TEXTS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 0}, "schema is 0: a whole number from 1 to 2 is expected"),
        ({"schema": 3, "loralet": "9.9"}, r"written by a newer loralet \(9\.9\)"),
        ({"schema": "1"}, "schema is '1': a whole number from 1 to 2 is expected"),
        ({"schema": True}, "schema is True: a whole number from 1 to 2 is expected"),
        ({"schema": None}, "schema is None: a whole number"),
        ({"rank": -4}, "adapter.rank is -4: it must be 0"),
        ({"dropout": 1.5}, "adapter.dropout is 1.5: it must be at least 0 and below 1"),
        ({"targets": ["query", "quarry"]}, "adapter.targets has quarry"),
        ({"rank": "4"}, "adapter.rank is '4': a whole number is expected"),
        ({"scaling": "rs"}, "adapter.scaling is 'rs': one of alpha/r, rslora is expected"),
        ({"labels": []}, "labels is empty"),
        ({"labels": "abcd"}, "labels is 'abcd': a list is expected"),
        ({"favourite": 1}, "favourite is not known"),
        ({"metrics": {"validation": {"accuracy": 0.5}}}, "metrics.validation"),
    ],
)
def test_an_invalid_description_is_reported(pair: Pair, change: dict[str, Any], words: str) -> None:
    _, _, artifact = trained(pair, RUNS["query-value"], "pooler")
    described = schema_1(artifact)
    read_description(described)
    with pytest.raises(ValueError, match=words):
        read_description(described | change)


def test_all_problems_of_a_description_are_listed(pair: Pair) -> None:
    _, _, artifact = trained(pair, RUNS["query-value"], "pooler")
    described = artifact.describe()
    described["adapter"] = {"rank": 4, "alpha": "high"}
    described["task"] = "translation"
    described.pop("backbone")
    with pytest.raises(ValueError, match=r"adapter\.alpha is 'high'") as caught:
        read_description(described)
    assert "backbone is missing" in str(caught.value)
    described = artifact.describe() | {"task": "translation"}
    with pytest.raises(ValueError, match="task is 'translation': known tasks: single-label"):
        read_description(described)


Change = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
MISFITS: dict[str, tuple[Change, str]] = {
    "missing": (lambda t: {n: x for n, x in t.items() if n != "layers.1.value.B"}, "layers.1.value.B is missing"),
    "unknown": (lambda t: t | {"layers.2.query.A": torch.zeros(4, 32)}, "layers.2.query.A is not expected"),
    "rank": (
        lambda t: t | {"layers.0.query.A": torch.zeros(5, 32)},
        "layers.0.query.A has shape [5, 32], expected [4, 32]",
    ),
    "smaller": (lambda t: t | {"layers.0.value.A": torch.zeros(3, 32)}, "has shape [3, 32], expected [4, 32]"),
    "turned": (lambda t: t | {"layers.0.query.B": torch.zeros(4, 32)}, "has shape [4, 32], expected [32, 4]"),
    "classes": (
        lambda t: t | {"classifier.weight": torch.zeros(CLASSES + 1, 32)},
        "classifier.weight has shape [5, 32], expected [4, 32]",
    ),
    "bias": (lambda t: t | {"classifier.bias": torch.zeros(1)}, "classifier.bias has shape [1], expected [4]"),
    "pooler": (lambda t: t | {"pooler.weight": torch.zeros(32, 32)}, "pooler.weight is not expected"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_mismatched_tensors_are_rejected_by_pack_and_folder(pair: Pair, tmp_path: Path, name: str) -> None:
    change, words = MISFITS[name]
    runs = [run_of(rank=8, alpha=16.0, targets=("query",)), RUNS["query-value"]]
    pack = pack_for(pair, runs)
    parameters = pack.start(pair.ours.weights)
    own = [pack.extract(parameters, i) for i in range(2)]
    assert torch.equal(pack.fill(own), parameters)
    with pytest.raises(ValueError, match=r"expected|missing") as caught:
        pack.fill([own[0], change(own[1])])
    assert words in str(caught.value)

    _, _, artifact = trained(pair, RUNS["query-value"], "pooler")
    spoilt = replace(artifact, tensors=change(dict(artifact.tensors)))
    with pytest.raises(RunError, match=r"the tensors do not fit the adapter") as refused:
        pack_of([artifact, spoilt], pair.ours.table)
    assert words in str(refused.value)
    assert artifact.id in str(refused.value)
    pack_of([artifact, artifact], pair.ours.table)


def test_all_mismatched_tensors_are_listed(pair: Pair) -> None:
    pack = pack_for(pair, [RUNS["query-value"]])
    own = pack.extract(pack.start(pair.ours.weights), 0)
    own.pop("layers.0.query.A")
    own |= {"classifier.bias": torch.zeros(7), "odd": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"classifier\.bias") as caught:
        pack.fill([own])
    assert str(caught.value).split("; ") == [
        "classifier.bias has shape [7], expected [4]",
        "layers.0.query.A is missing",
        "odd is not expected",
    ]


def test_mismatched_tensors_are_one_message_on_the_command_line(pair: Pair, tmp_path: Path) -> None:
    _, _, artifact = trained(pair, RUNS["query-value"], "pooler")
    save_artifact(tmp_path / "adapter", artifact, pair.ours)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("layer.1.attention.self.value.lora_B.weight"))
    save_file({n: t for n, t in tensors.items() if n != name}, path)
    drop_checksums(tmp_path / "adapter")
    done = command(tmp_path, "predict", "adapter", *TEXTS)
    assert done.returncode == 2
    assert "layers.1.value.B is missing" in done.stderr
    assert "Traceback" not in done.stderr
    # Fewer labels than outputs of the classifier.
    save_artifact(tmp_path / "labels", artifact, pair.ours)
    described = drop_checksums(tmp_path / "labels")
    (tmp_path / "labels" / "loralet.json").write_text(json.dumps(described | {"labels": list(LABELS[:3])}))
    done = command(tmp_path, "predict", "labels", *TEXTS)
    assert done.returncode == 2
    assert "classifier.weight has shape [4, 32], expected [3, 32]" in done.stderr
