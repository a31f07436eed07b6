"""Classifiers of other programs predict what transformers predicts: merged PEFT models and plain checkpoints."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import command
from models import CLASSES
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from stand_ins import KINDS, by_transformers
from tolerances import FP32
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from loralet import TextClassifier
from loralet.errors import CheckpointError, RunError
from loralet.report.inspection import inspect_path

LABELS = ["World", "Sports", "Business", "Sci/Tech"]
TEXTS = ["the stock market", "team wins the game 2004", "x", "oil price, new news! " * 3]
NAMES: dict[str, Any] = {
    "num_labels": CLASSES,
    "id2label": dict(enumerate(LABELS)),
    "label2id": {name: i for i, name in enumerate(LABELS)},
}


def classifier(
    folder: Path, kind: str = "bert", dtype: torch.dtype = torch.float32, rows: int = 0, **config: Any
) -> Any:
    """A sequence classification checkpoint of transformers, with random weights; returns the model."""
    base = by_transformers(folder, kind, rows=rows)
    model = AutoModelForSequenceClassification.from_pretrained(base, **(NAMES | config)).eval()
    torch.manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_((0.5 if "classifier" in name else 0.1) * torch.randn_like(parameter))
    (folder / "model.safetensors").unlink()
    model.to(dtype).save_pretrained(folder)
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()


def by_theirs(model: Any, folder: Path, texts: list[str] = TEXTS) -> np.ndarray:
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        found: np.ndarray = model(**batch).logits.softmax(-1).numpy()
    return found


def compare(model: Any, folder: Path) -> None:
    loaded = TextClassifier.load(folder)
    assert loaded.artifact_.labels == tuple(LABELS)
    wanted = by_theirs(model, folder)
    order = [loaded.classes_.tolist().index(label) for label in LABELS]
    assert np.abs(loaded.predict_proba(TEXTS)[:, order] - wanted).max() <= FP32
    assert wanted.std(0).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_every_family(tmp_path: Path, kind: str) -> None:
    own = {"classifier_pooling": "cls"} if kind == "modernbert" else {}
    compare(classifier(tmp_path / kind, kind, **own), tmp_path / kind)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sharded_weights_of_half_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    model = classifier(tmp_path / "half", dtype=dtype)
    compare(model, tmp_path / "half")
    (tmp_path / "half" / "model.safetensors").unlink()
    model.to(dtype).save_pretrained(tmp_path / "half", max_shard_size="20KB")
    assert (tmp_path / "half" / "model.safetensors.index.json").exists()
    compare(model.float(), tmp_path / "half")


def test_a_merged_peft_model(tmp_path: Path) -> None:
    base = classifier(tmp_path / "base")
    config = LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=16, target_modules=["query", "value"])
    model = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    merged = model.merge_and_unload().eval()
    merged.save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(tmp_path / "base").save_pretrained(tmp_path / "merged")
    compare(merged, tmp_path / "merged")
    before = TextClassifier.load(tmp_path / "base").predict_proba(TEXTS)
    assert np.abs(TextClassifier.load(tmp_path / "merged").predict_proba(TEXTS) - before).max() > 1e-2


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_it_can_be_saved_and_exported(tmp_path: Path, kind: str) -> None:
    model = classifier(tmp_path / "theirs", kind)
    TextClassifier.load(tmp_path / "theirs").save(tmp_path / "ours")
    assert (tmp_path / "ours" / "loralet.json").exists()
    wanted = by_theirs(model, tmp_path / "theirs")
    for form in ("hf", "safetensors-bundle"):
        done = command(tmp_path, "export", "theirs", "--to", form, "--out", form, *(["--no-onnx"] * (form == "hf")))
        assert done.returncode == 0, done.stderr
    for folder in ("ours", "hf", "safetensors-bundle"):
        loaded = TextClassifier.load(tmp_path / folder)
        order = [loaded.classes_.tolist().index(label) for label in LABELS]
        assert np.abs(loaded.predict_proba(TEXTS)[:, order] - wanted).max() <= FP32


def test_the_commands(tmp_path: Path) -> None:
    model = classifier(tmp_path / "theirs")
    done = command(tmp_path, "predict", "theirs", *TEXTS, "--format", "csv")
    assert done.returncode == 0, done.stderr
    wanted = by_theirs(model, tmp_path / "theirs").argmax(1)
    assert [row["label"] for row in csv.DictReader(io.StringIO(done.stdout))] == [LABELS[i] for i in wanted]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *zip(TEXTS, (LABELS[i] for i in wanted), strict=True)])
    done = command(tmp_path, "evaluate", "theirs", "rows.csv", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] == 1.0
    found = inspect_path(str(tmp_path / "theirs"))
    assert found.kind == "classifier"
    assert list(found.facts["labels"].values()) == LABELS
    assert found.facts["parameters"]["classifier"] == CLASSES * 32 + CLASSES
    assert found.facts["architecture"]["layers"] == 2


def test_a_base_model_is_still_refused(tmp_path: Path) -> None:
    by_transformers(tmp_path / "base", "bert")
    with pytest.raises(RunError, match="no trained classifier; a base model alone would only guess"):
        TextClassifier.load(tmp_path / "base")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"problem_type": "multi_label_classification"}, "problem_type is 'multi_label_classification'"),
        ({"problem_type": "regression"}, "problem_type is 'regression'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"is_decoder": True, "add_cross_attention": True}, "is_decoder is True"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"hidden_act": "silu"}, "activation 'silu'"),
    ],
)
def test_keys_that_change_the_arithmetic_are_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    classifier(tmp_path / "theirs")
    path = tmp_path / "theirs" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises((RunError, CheckpointError), match=words):
        TextClassifier.load(tmp_path / "theirs")


def test_keys_without_an_effect_are_ignored(tmp_path: Path) -> None:
    model = classifier(tmp_path / "theirs", chunk_size_feed_forward=4, problem_type="single_label_classification")
    compare(model, tmp_path / "theirs")


@pytest.mark.parametrize("lost", ["classifier.weight", "bert.pooler.dense.bias"])
def test_a_lost_tensor_is_named(tmp_path: Path, lost: str) -> None:
    classifier(tmp_path / "theirs")
    path = tmp_path / "theirs" / "model.safetensors"
    tensors = load_file(path)
    del tensors[lost]
    save_file(tensors, path)
    with pytest.raises((RunError, CheckpointError), match=f"{lost.removeprefix('bert.')} is missing"):
        TextClassifier.load(tmp_path / "theirs")


def test_one_output_is_regression(tmp_path: Path) -> None:
    classifier(tmp_path / "theirs", num_labels=1, id2label={0: "LABEL_0"}, label2id={"LABEL_0": 0})
    with pytest.raises(RunError, match=r"the classifier has the shape \[1, 32\]; two or more outputs"):
        TextClassifier.load(tmp_path / "theirs")


def test_options_that_would_do_nothing_are_refused(tmp_path: Path) -> None:
    classifier(tmp_path / "theirs")
    done = command(tmp_path, "predict", "theirs", "x", "--backbone", "theirs")
    assert done.returncode == 2
    assert "which contains its backbone" in done.stderr
    done = command(tmp_path, "predict", "theirs", "x", "--run", "other")
    assert "is one classifier, not a study" in done.stderr


@pytest.mark.parametrize("change", ["lower case", "added token", "none"])
def test_an_adapter_with_its_own_tokenizer(tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture) -> None:
    base = classifier(tmp_path / "base", rows=300)
    model = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"])).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base", do_lower_case=change != "lower case")
    if change == "added token":
        tokenizer.add_tokens(["stock market"])
    tokenizer.save_pretrained(tmp_path / "adapter")
    texts = [*TEXTS, "The STOCK Market"]
    wanted = by_theirs(model, tmp_path / "adapter", texts)
    with caplog.at_level("WARNING", "loralet"):
        loaded = TextClassifier.load(tmp_path / "adapter")
    order = [loaded.classes_.tolist().index(label) for label in LABELS]
    assert np.abs(loaded.predict_proba(texts)[:, order] - wanted).max() <= FP32
    differs = np.abs(by_theirs(model, tmp_path / "base", texts) - wanted).max() > 1e-4
    assert differs == (change != "none") == ("its tokenizer differs from that of the base" in caplog.text)
    if not differs:
        loaded.save(tmp_path / "ours")
        return
    with pytest.raises(RunError, match="the adapter has its own tokenizer"):
        loaded.save(tmp_path / "ours")
    done = command(tmp_path, "export", "adapter", "--to", "safetensors-bundle", "--out", "bundle")
    assert done.returncode == 0, done.stderr
    assert np.abs(TextClassifier.load(tmp_path / "bundle").predict_proba(texts)[:, order] - wanted).max() <= FP32


def test_alpha_is_the_one_of_peft(tmp_path: Path) -> None:
    base = classifier(tmp_path / "base")
    for number, (rslora, patterns) in enumerate([(False, {}), (True, {}), (False, {"query": 5})]):
        config = LoraConfig(
            task_type="SEQ_CLS",
            r=4,
            lora_alpha=16,
            target_modules=["query", "value"],
            use_rslora=rslora,
            alpha_pattern=patterns,
        )
        get_peft_model(base, config).save_pretrained(tmp_path / f"adapter{number}")
        base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
        facts = inspect_path(str(tmp_path / f"adapter{number}")).facts["adapter"]
        assert (facts["rank"], facts["alpha"]) == (4, 16.0)
        assert facts.get("alpha pattern") == (json.dumps(patterns) if patterns else None)
        assert facts["scaling"] == ("rslora" if rslora else "alpha/r")
