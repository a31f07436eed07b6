"""Exports predict what the run predicts: in transformers, in onnxruntime, and in a folder with no hub and no cache."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from command_line import command
from models import Pair, make_pair
from stand_ins import by_transformers
from test_adapters import LABELS, RUNS, trained
from tolerances import FP32
from transformers import BertForSequenceClassification, pipeline

from loralet import TextClassifier
from loralet.artifacts.artifact import Artifact
from loralet.artifacts.card import for_hub
from loralet.artifacts.folder import add_metrics, save_artifact
from loralet.artifacts.merge import merge
from loralet.backends.batch import batch_of
from loralet.config import BackboneOptions, ModelOptions
from loralet.config.commands import fp32
from loralet.errors import CheckError, RunError
from loralet.export import graphs
from loralet.export import onnx as exports
from loralet.export.checkpoint import export_bundle, export_hf
from loralet.export.graph import onnx_logits
from loralet.export.onnx import LARGEST_DROP, export_onnx, holds
from loralet.export.push import contents
from loralet.hub.backbone import load_backbone
from loralet.inference.adapters import opened_of
from loralet.inference.ensemble import ensemble_of
from loralet.inference.evaluation import logits_of
from loralet.inference.predictor import LoadedClassifier, load_classifier, ready
from loralet.models.pooling import HeadKind
from loralet.report.inspection import inspect_path
from loralet.tasks.base import Scores

TEXTS = ["a w3 w60 z", "w9", "k l m n o p q r s t u v w x y z a b c d e f g", "w1 w2 w3 w4 w5"]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path / "base")


def saved(pair: Pair, folder: Path, head: HeadKind = "pooler", name: str = "all-linear") -> Path:
    """An adapter folder with random tensors, large enough to move the probabilities."""
    _, _, artifact = trained(pair, RUNS[name], head)
    tensors = {
        n: t * (20 if n == "classifier.weight" else 4 if n.endswith(".B") else 1) for n, t in artifact.tensors.items()
    }
    save_artifact(folder, replace(artifact, tensors=tensors), pair.ours)
    return folder


def pieces(folder: Path) -> tuple[Artifact, LoadedClassifier]:
    loaded = load_classifier(folder)
    return loaded.artifact, loaded


@pytest.mark.parametrize("head", ["pooler", "trained-pooler"])
def test_transformers_pipeline_runs_the_merged_checkpoint(pair: Pair, tmp_path: Path, head: str) -> None:
    adapter = saved(pair, tmp_path / "adapter", head)
    export_hf(*pieces(adapter), tmp_path / "hf")
    classify = pipeline("text-classification", model=str(tmp_path / "hf"), top_k=None)
    theirs = [{entry["label"]: entry["score"] for entry in row} for row in classify(TEXTS, truncation=True)]
    ours = TextClassifier.load(adapter)
    wanted = ours.predict_proba(TEXTS)
    assert set(theirs[0]) == set(LABELS)
    for row, expected in zip(theirs, wanted, strict=True):
        assert np.abs(np.array([row[label] for label in LABELS]) - expected).max() <= FP32
    assert wanted.std(0).max() > 1e-3
    still = {name: tensor * 0 if name.endswith(".B") else tensor for name, tensor in ours.artifact_.tensors.items()}
    unadapted = opened_of(replace(ours.artifact_, tensors=still), ours.backbone_)
    without = next(ensemble_of({"unadapted": unadapted}, fp32()).predict(TEXTS)).probabilities
    assert np.abs(np.array(without) - wanted[0]).max() > 1e-3  # the adapters are in the export, not only the head
    report = json.loads((tmp_path / "hf" / "export.json").read_text())
    assert (report["to"], report["labels"]) == ("hf", list(LABELS))
    assert report["bytes"]["model.safetensors"] == (tmp_path / "hf" / "model.safetensors").stat().st_size


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The base, a run, and its export for other programs, with graphs."""
    folder = tmp_path_factory.mktemp("whole")
    adapter = saved(make_pair(folder / "base"), folder / "adapter", "trained-pooler")
    export_hf(*pieces(adapter), folder / "hf", graphs=True)
    return folder / "base", adapter, folder / "hf"


def test_one_folder_has_what_each_program_looks_for(whole: tuple[Path, Path, Path]) -> None:
    hf = whole[2]
    files = {path.relative_to(hf).as_posix() for path in hf.rglob("*") if path.is_file()}
    graphs = {"onnx/model.onnx", "onnx/model_fp16.onnx", "onnx/model_quantized.onnx"}
    plain = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md", "export.json"}
    assert files == graphs | plain
    config = json.loads((hf / "config.json").read_text())
    assert config["id2label"] == {str(i): label for i, label in enumerate(LABELS)}
    assert config["label2id"] == {label: i for i, label in enumerate(LABELS)}
    assert (config["model_type"], config["max_position_embeddings"]) == ("bert", 40)
    report = json.loads((hf / "export.json").read_text())
    assert set(report["bytes"]) == files - {"export.json"}
    assert [(graph["file"], graph["kept"]) for graph in report["graphs"]] == [
        ("model.onnx", True), ("model_quantized.onnx", True), ("model_fp16.onnx", True)
    ]  # fmt: skip
    assert all(graph["rows"] == 120 and graph["data"] == "texts of news-mini" for graph in report["graphs"])
    tags = yaml.safe_load((hf / "README.md").read_text().split("---\n")[1])["tags"]
    assert {"onnx", "transformers.js"} <= set(tags)
    assert {"onnx/model.onnx", "onnx/model_fp16.onnx"} <= set(contents(hf, "me/mine"))
    assert 'const model = "me/mine";' in contents(hf, "me/mine")["README.md"].decode()


def test_the_cards_python_snippets_run_from_the_folder(
    whole: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, adapter, hf = whole
    monkeypatch.chdir(hf)
    snippets = re.findall(r"```python\n(.*?)```", (hf / "README.md").read_text(), re.DOTALL)
    for snippet in snippets:
        exec(snippet.replace('["A text to classify."]', repr(TEXTS)), {})
    by_transformers, by_onnxruntime = map(ast.literal_eval, capsys.readouterr().out.splitlines()[-2:])
    wanted = TextClassifier.load(adapter).predict(TEXTS).tolist()
    assert [entry["label"] for entry in by_transformers] == by_onnxruntime == wanted
    scores = [entry["score"] for entry in by_transformers]
    assert scores == pytest.approx(TextClassifier.load(adapter).predict_proba(TEXTS).max(1).tolist(), abs=FP32)
    assert np.std(scores) > 1e-3


@pytest.mark.parametrize(("name", "tolerance"), [("model", 1e-4), ("model_fp16", 0.02), ("model_quantized", 0.5)])
def test_token_types_may_be_left_out_of_a_graph(whole: tuple[Path, Path, Path], name: str, tolerance: float) -> None:
    hf = whole[2]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(hf / "onnx" / f"{name}.onnx"), options)
    theirs = BertForSequenceClassification.from_pretrained(hf).eval()
    ids = torch.randint(5, 100, (3, 7), generator=torch.Generator().manual_seed(3))
    mask = (torch.arange(7) < torch.tensor([7, 4, 6])[:, None]).long()
    types = (torch.arange(7) > 2).long().expand(3, 7) * mask
    fed = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
    (without,), (zeros,), (mixed,) = (
        session.run(["logits"], fed | own)
        for own in ({}, {"token_type_ids": types.numpy() * 0}, {"token_type_ids": types.numpy()})
    )
    assert without.dtype == np.float32
    assert np.array_equal(without, zeros)
    with torch.no_grad():
        plain = theirs(ids, attention_mask=mask).logits.numpy()
        typed = theirs(ids, attention_mask=mask, token_type_ids=types).logits.numpy()
    assert np.abs(without - plain).max() <= tolerance
    assert np.abs(mixed - typed).max() <= tolerance
    assert np.abs(mixed - without).max() > 1e-2


def test_a_graph_declares_labels_and_lengths_and_refuses_longer_rows(whole: tuple[Path, Path, Path]) -> None:
    _, adapter, hf = whole
    for path in (hf / "onnx").iterdir():
        session = onnxruntime.InferenceSession(str(path), quiet_session())
        told = session.get_modelmeta().custom_metadata_map
        assert json.loads(told["labels"]) == list(LABELS)
        artifact = load_classifier(adapter).artifact
        assert (int(told["max_length"]), int(told["longest"])) == (artifact.max_length, 40)
        assert (told["run"], told["backbone_fingerprint"]) == (artifact.id, artifact.backbone_fingerprint)
        row = {"input_ids": np.ones((1, 41), np.int64), "attention_mask": np.ones((1, 41), np.int64)}
        with pytest.raises(Exception, match="out of data bounds"):
            session.run(None, row)
        assert session.run(None, {name: value[:, :40] for name, value in row.items()})[0].shape == (1, len(LABELS))


def quiet_session() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return options


def test_a_smaller_graph_that_predicts_other_labels_is_left_out(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(path: Path, tokens: Any) -> np.ndarray:
        found = np.random.default_rng(0).normal(size=(len(tokens), len(LABELS))).astype(np.float32)
        return found if path.name == "model_quantized.onnx" else expected(tokens)

    adapter = saved(pair, tmp_path / "adapter")
    artifact, classifier = pieces(adapter)

    def expected(tokens: Any) -> np.ndarray:
        return logits_of(classifier.backend, classifier.forward, tokens, 1)[0] / artifact.temperature

    monkeypatch.setattr(graphs, "onnx_logits", spoil)
    for name in ("write_onnx", "write_int8", "write_fp16"):
        monkeypatch.setattr(graphs, name, lambda source, path: path.write_bytes(b""))
    done = export_hf(artifact, classifier, tmp_path / "hf", graphs=True)
    assert [graph.kept for graph in done.graphs] == [True, False, True]
    assert {path.name for path in (tmp_path / "hf" / "onnx").iterdir()} == {"model.onnx", "model_fp16.onnx"}
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["transformers.js_config"] == {"dtype": "fp32"}
    assert "`q8` would predict other labels and is left out" in (tmp_path / "hf" / "README.md").read_text()


def test_robertas_head_takes_the_pooler_in(tmp_path: Path) -> None:
    by_transformers(tmp_path / "base", "roberta", headed=False)
    backbone = load_backbone(str(tmp_path / "base"))
    texts, labels = ["the game", "oil price", "team wins", "stock market"] * 4, [1, 0, 1, 0] * 4
    classifier = TextClassifier(
        str(tmp_path / "base"), rank=2, steps=10, batch_size=4, head="trained-pooler", lr=1e-2
    ).fit(texts, labels)
    export_hf(classifier.artifact_, ready(classifier.artifact_, backbone), tmp_path / "hf")
    classify = pipeline("text-classification", model=str(tmp_path / "hf"), top_k=None)
    rows = [{entry["label"]: entry["score"] for entry in row} for row in classify(texts[:4])]
    theirs = np.array([[row["0"], row["1"]] for row in rows])
    assert np.abs(theirs - classifier.predict_proba(texts[:4])).max() <= FP32
    assert theirs.std(0).max() > 1e-4


def test_a_head_that_transformers_has_not_is_refused(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"the mean over tokens.*--to onnx"):
        export_hf(*pieces(saved(pair, tmp_path / "adapter", "mean")), tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_merging_adds_the_adapters_and_nothing_else(pair: Pair, tmp_path: Path) -> None:
    loaded = load_classifier(saved(pair, tmp_path / "adapter", name="query-value"))
    merged = merge(loaded.artifact, loaded.backbone)
    changed = {name for name, tensor in merged.weights.items() if not tensor.equal(pair.ours.weights[name])}
    assert changed == {f"layers.{i}.{target}.weight" for i in (0, 1) for target in ("query", "value")}
    assert merged.classifier["classifier.weight"].equal(loaded.artifact.tensors["classifier.weight"])


@pytest.mark.parametrize("head", ["pooler", "trained-pooler", "mean"])
def test_a_bundle_needs_no_hub_no_cache_and_no_backbone(pair: Pair, tmp_path: Path, head: str) -> None:
    adapter = saved(pair, tmp_path / "adapter", head)
    export_bundle(*pieces(adapter), tmp_path / "bundle")
    wanted = TextClassifier.load(adapter).predict_proba(TEXTS)
    pair.folder.rename(tmp_path / "gone")
    code = (
        "import sys, json; from loralet import TextClassifier; c = TextClassifier.load(sys.argv[1]); "
        "found = c.predict_proba(sys.argv[2:]).tolist(); "
        "print(json.dumps([c.classes_.tolist(), found, 'transformers' in sys.modules]))"
    )
    (tmp_path / "empty").mkdir()
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "empty"),
        "XDG_CACHE_HOME": str(tmp_path / "empty"),
    }
    environment |= {"OMP_NUM_THREADS": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", code, "bundle", *TEXTS],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    labels, probabilities, transformers = json.loads(done.stdout)
    assert labels == list(LABELS)
    assert not transformers
    assert np.abs(np.array(probabilities) - wanted).max() <= FP32
    assert wanted.std(0).max() > 1e-3
    assert {"loralet.json", "model.safetensors", "tokenizer.json", "export.json"} <= {
        path.name for path in (tmp_path / "bundle").iterdir()
    }
    with pytest.raises(Exception, match="base"):
        load_classifier(adapter)  # the adapter itself needs its backbone


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained by the command line, and its data."""
    folder = tmp_path_factory.mktemp("export")
    make_pair(folder / "model")
    words = {"apple": "a b c d", "bird": "h i j k", "cat": "p q r s"}
    generator = np.random.default_rng(0)
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(300):
            label = list(words)[i % 3]
            writer.writerow(
                [" ".join(generator.choice([*words[label].split(), *"xyz"], generator.integers(2, 12))), label]
            )
    flags = [
        "--rank",
        "4",
        "--alpha",
        "8",
        "--lr",
        "1e-2",
        "--steps",
        "60",
        "--batch-size",
        "16",
        "--precision",
        "fp32",
        "--out",
        "run",
        "--quiet",
        "--folds",
        "0",
    ]
    done = command(folder, "train", "rows.csv", "--model", "model", *flags)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def exported(place: Path) -> Path:
    done = command(place, "export", "run", "--to", "onnx", "--int8", "--out", "onnx")
    assert done.returncode == 0, done.stderr
    assert "int8" in done.stdout
    return place / "onnx"


def test_the_graph_gives_torchs_logits_for_any_batch_and_length(place: Path, exported: Path) -> None:
    report = json.loads((exported / "export.json").read_text())
    assert report["largest_difference"] <= 1e-4
    assert report["rows_compared"] == 30
    options = ModelOptions(BackboneOptions(str(place / "model")))
    loaded = load_classifier(next((place / "run" / "adapters").iterdir()), options)
    session = onnxruntime.InferenceSession(str(exported / "model.onnx"))
    seen = []
    for rows, tokens in ((1, 2), (1, 40), (7, 13), (3, 3)):
        ids = torch.randint(5, 100, (rows, tokens), generator=torch.Generator().manual_seed(rows))
        lengths = torch.tensor([tokens, *[max(1, tokens - 2 * i) for i in range(1, rows)]])
        mask = (torch.arange(tokens) < lengths[:, None]).long()
        (theirs,) = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        ours = loaded.forward(batch_of(ids, lengths))[0].numpy() / loaded.artifact.temperature
        assert np.abs(theirs - ours).max() <= 1e-4
        seen.append(ours[0])
    assert np.std(seen, axis=0).max() > 1e-2
    assert json.loads((exported / "labels.json").read_text()) == {"labels": ["apple", "bird", "cat"], "max_length": 40}
    assert (exported / "tokenizer.json").exists()


def test_eight_bits_are_smaller_and_as_good(exported: Path) -> None:
    report = json.loads((exported / "export.json").read_text())
    gate = report["int8"]
    assert gate["kept"]
    assert gate["rows"] == 30
    assert gate["metric"] == "accuracy"
    assert gate["fp32"] > 0.9
    assert gate["fp32"] - gate["int8"] <= gate["largest_drop"] == LARGEST_DROP
    sizes = report["bytes"]
    assert (exported / "model.int8.onnx").stat().st_size == sizes["model.int8.onnx"] < sizes["model.onnx"]
    operations = (exported / "model.int8.onnx").read_bytes()
    assert b"MatMulInteger" in operations
    assert b"MatMulInteger" not in (exported / "model.onnx").read_bytes()


def test_eight_bits_that_cost_too_much_are_not_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(path: Path, tokens: Any) -> np.ndarray:
        logits = onnx_logits(path, tokens)
        return np.roll(logits, 1, 1) if "int8" in path.name else logits

    monkeypatch.setattr(exports, "onnx_logits", spoil)
    done = command(place, "export", "run", "--to", "onnx", "--int8", "--out", "spoilt", "--data", "rows.csv")
    assert done.returncode == 1
    report = json.loads((place / "spoilt" / "export.json").read_text())
    gate = report["int8"]
    assert not gate["kept"]
    assert (gate["rows"], gate["data"]) == (300, "rows.csv")
    assert f"it scores {gate['int8']:.4f}, the fp32 graph {gate['fp32']:.4f}" in done.stderr
    assert report["refused"] in done.stderr
    assert "model.int8.onnx" not in report["bytes"]
    assert {path.name for path in (place / "spoilt").iterdir()} == {
        *("model.onnx", "labels.json", "config.json", "tokenizer.json", "tokenizer_config.json", "export.json"),
        "README.md",
    }


@pytest.mark.parametrize(("after", "kept"), [(0.91, True), (0.9, True), (0.895, True), (0.8949, False), (0.5, False)])
def test_the_gate_is_half_a_point(after: float, kept: bool) -> None:
    assert holds(0.9, after)[0] == kept
    assert bool(holds(0.9, after)[1]) != kept


def test_a_graph_that_is_not_torchs_is_not_kept(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = saved(pair, tmp_path / "adapter", "mean")
    artifact, classifier = pieces(adapter)

    def spoil(path: Path, tokens: Any) -> np.ndarray:
        return logits_of(classifier.backend, classifier.forward, tokens, 1)[0] / artifact.temperature + 2e-4

    monkeypatch.setattr(exports, "onnx_logits", spoil)
    monkeypatch.setattr(exports, "write_onnx", lambda merged, path: path.write_bytes(b""))
    with pytest.raises(CheckError, match=r"differ from the run's by 0\.0002"):
        export_onnx(*pieces(adapter), tmp_path / "onnx", None, False)
    assert not (tmp_path / "onnx").exists()
    monkeypatch.undo()
    done = export_onnx(*pieces(adapter), tmp_path / "onnx", None, False)  # a mean head, on fixed rows
    assert done.largest_difference is not None
    assert done.largest_difference <= 1e-4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--int8"], "int8 needs --to onnx, not --to safetensors-bundle"),
        (["run", "--dry-run"], "give a repository with --push"),
        (["run", "--no-onnx"], "no_onnx needs --to hf, not --to safetensors-bundle"),
        (["nowhere"], "no such folder"),
        (["run", "--out", "run"], "exists and is not empty"),
        (["lone", "--to", "onnx", "--int8"], "give labelled rows with --data"),
        (["plain"], "base model alone would only guess"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(place: Path, arguments: list[str], words: str) -> None:
    if not (place / "lone").exists():
        TextClassifier.load(place / "run", backbone=str(place / "model")).save(place / "lone")
    if not (place / "plain").exists():
        shutil.copytree(place / "model", place / "plain")
        config = json.loads((place / "plain" / "config.json").read_text()) | {"architectures": ["BertModel"]}
        (place / "plain" / "config.json").write_text(json.dumps(config))
    before = sorted(place.iterdir())
    done = command(place, "export", *arguments, *([] if "--out" in arguments else ["--out", "new"]))
    assert done.returncode == 2
    assert words in done.stderr
    assert sorted(place.iterdir()) == before


def test_data_that_has_changed_cannot_be_the_gates(place: Path) -> None:
    rows = (place / "rows.csv").read_text()
    try:
        (place / "rows.csv").write_text(rows.replace("apple", "pear", 1).replace("a b", "b a", 1) + "a b c,apple\n")
        done = command(place, "export", "run", "--to", "onnx", "--int8", "--out", "changed")
    finally:
        (place / "rows.csv").write_text(rows)
    assert done.returncode == 2
    assert "has changed since" in done.stderr
    assert not (place / "changed").exists()


def test_the_command_writes_each_kind_and_predicts_with_it(place: Path, exported: Path) -> None:
    for kind in ("hf", "safetensors-bundle"):
        done = command(place, "export", "run", "--to", kind, "--out", kind, *(["--no-onnx"] * (kind == "hf")))
        assert done.returncode == 0, done.stderr
        assert f"as {kind}: {kind}" in done.stdout
    assert not (place / "hf" / "onnx").exists()
    texts = ["a b c", "h i", "p q", "a " * 80]
    before = command(place, "predict", "run", *texts, "--format", "jsonl").stdout
    scores = command(place, "evaluate", "run", "rows.csv", "--format", "json").stdout
    for folder in ("hf", "safetensors-bundle", exported.name):
        after = command(place, "predict", folder, *texts, "--format", "jsonl").stdout
        for one, other in zip(before.splitlines(), after.splitlines(), strict=True):
            assert json.loads(one)["probabilities"] == pytest.approx(json.loads(other)["probabilities"], abs=1e-5)
        assert json.loads(command(place, "evaluate", folder, "rows.csv", "--format", "json").stdout)[
            "accuracy"
        ] == pytest.approx(json.loads(scores)["accuracy"])
        found = inspect_path(str(place / folder))
        assert list(found.facts["labels"].values()) == ["apple", "bird", "cat"]
    both = command(place, "predict", "hf", *texts, "--also", exported.name, "--format", "jsonl").stdout
    assert json.loads(both.splitlines()[0])["label"] == json.loads(before.splitlines()[0])["label"]
    assert "merged" in (place / "safetensors-bundle" / "README.md").read_text()


@pytest.mark.parametrize("kind", ["hf", "onnx"])
def test_the_cards_snippet_runs_as_it_stands(
    pair: Pair, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = saved(pair, tmp_path / "adapter", "mean" if kind == "onnx" else "pooler")
    add_metrics(adapter, "validation", 1234, Scores({"accuracy": 0.91, "macro_f1": 0.9}, {}, 0.25))
    export = export_hf if kind == "hf" else lambda *given: export_onnx(*given, None, False)
    export(*pieces(adapter), tmp_path / "export")
    card = (tmp_path / "export" / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert (front["library_name"], front["pipeline_tag"]) == (
        {"hf": "transformers", "onnx": "onnx"}[kind],
        "text-classification",
    )
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.91
    assert "| validation | 1,234 | 0.9100 | 0.9000 | 0.2500 |" in card
    assert ", ".join(LABELS) in card
    assert "A LoRA adapter on base that classifies texts into 4 classes" in card
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    texts = ["A text to classify.", *TEXTS]
    assert "['A text to classify.']".replace("'", '"') in snippet
    snippet = snippet.replace('["A text to classify."]', repr(texts))
    monkeypatch.chdir(tmp_path / "export")
    wanted = TextClassifier.load(adapter).predict(texts).tolist()
    exec(snippet, {})
    printed = capsys.readouterr().out.splitlines()[-1]
    found = [entry["label"] for entry in ast.literal_eval(printed)] if kind == "hf" else ast.literal_eval(printed)
    assert found == wanted
    assert len(set(found)) > 1
    assert 'model = "me/mine"' in for_hub(card, "me/mine")


def test_a_graph_alone_only_predicts(place: Path, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="has an ONNX graph and no weights; `loralet predict` and `loralet evaluate`"):
        TextClassifier.load(exported)
    done = command(place, "predict", exported.name, "a", "--backend", "torch")
    assert "is an ONNX graph: onnxruntime computes it" in done.stderr
    done = command(place, "predict", exported.name, "a", "--backbone", "model")
    assert "is an ONNX graph, which contains its backbone" in done.stderr
    done = command(place, "predict", exported.name, "a", "--label-names", "x", "y")
    assert "2 label names given, but the classifier has 3 labels (apple, bird, cat)" in done.stderr
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = command(place, "predict", exported.name, "a")
    assert done.returncode == 2
    assert "which onnxruntime computes: pip install 'loralet[onnx]'" in done.stderr


def test_without_the_extra_an_export_has_no_graphs_and_says_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    done = command(place, "export", "run", "--to", "hf", "--out", "without")
    assert done.returncode == 0, done.stderr
    assert "the folder onnx/, for transformers.js and ONNX Runtime, is left out" in done.stderr
    assert "ONNX export needs onnxscript: pip install 'loralet[onnx]'" in done.stderr
    assert (place / "without" / "model.safetensors").exists()
    assert not (place / "without" / "onnx").exists()


def test_a_missing_extra_names_its_install_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = command(place, "export", "run", "--to", "onnx", "--out", "missing")
    assert done.returncode == 2
    assert "pip install 'loralet[onnx]'" in done.stderr
    assert not (place / "missing").exists()
