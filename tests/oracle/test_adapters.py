"""Saved runs give bitwise equal logits in loralet, and equal logits in PEFT and transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from models import CLASSES, Pair, batch, make_pair
from peft import PeftModel
from programs import logits_of, pack_for, program_of, run_of
from safetensors.torch import load_file, save_file
from tolerances import EXACT, FP32
from transformers import BertForSequenceClassification, BertModel

from loralet.adapters.spec import TARGETS
from loralet.artifacts.artifact import SCHEMA, Artifact
from loralet.artifacts.folder import load_artifact, save_artifact
from loralet.backends.batch import batch_of
from loralet.backends.torch import TorchProgram
from loralet.config import ComputeOptions, ModelOptions
from loralet.errors import RunError
from loralet.inference.predictor import load_classifier
from loralet.models.pooling import HeadKind
from loralet.runs.run import Run

LABELS = ("World", "Sports", "Business", "Sci/Tech")


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path / "base")


def trained(pair: Pair, run: Run, head: HeadKind) -> tuple[TorchProgram, torch.Tensor, Artifact]:
    """A pack of one with random tensors, as if trained: its program, parameters and artifact."""
    pack = pack_for(pair, [run], head)
    torch.manual_seed(1)
    parameters = pack.start(pair.ours.weights)
    parameters += 0.05 * torch.randn_like(parameters)
    artifact = Artifact(
        id=run.id,
        role="lora" if run.role == "lora" else "full" if run.role == "full" else "linear-probe",
        labels=LABELS,
        adapter=run.adapter,
        head=head,
        max_length=16,
        backbone=pair.ours.name,
        backbone_fingerprint=pair.ours.fingerprint,
        architecture="bert",
        data_fingerprint="0",
        tensors=pack.extract(parameters, 0),
    )
    return program_of(pair, pack), parameters, artifact


RUNS = {
    "query-value": run_of(rank=4, alpha=16.0, dropout=0.1, targets=("query", "value")),
    "rslora": run_of(rank=8, alpha=16.5, targets=("key",), scaling="rslora"),
    "all-linear": run_of(rank=8, alpha=16.0, targets=TARGETS),
    "output": run_of(rank=2, alpha=16.0, targets=("output",)),
    "dora": run_of(method="dora", rank=8, alpha=16.0, targets=TARGETS),
    "probe": run_of(rank=0),
    "full": Run("full", "m", "full", lr=1e-3),
}


@pytest.mark.parametrize("head", ["pooler", "trained-pooler", "mean"])
@pytest.mark.parametrize("name", RUNS)
def test_saving_and_loading_gives_bitwise_equal_logits(pair: Pair, tmp_path: Path, name: str, head: str) -> None:
    program, parameters, artifact = trained(pair, RUNS[name], head)
    save_artifact(tmp_path / "adapter", artifact, pair.ours)
    loaded = load_classifier(tmp_path / "adapter", ModelOptions(), ComputeOptions("torch", "fp32"))
    ids, lengths, _, _ = batch()
    logits = logits_of(program, parameters, ids, lengths)
    assert (loaded.forward(batch_of(ids, lengths)) - logits).abs().max() == EXACT
    fresh = logits_of(program, program.pack.start(pair.ours.weights), ids, lengths)
    assert (fresh - logits).abs().max() > 1e-3
    assert loaded.artifact.labels == LABELS
    assert replace(load_artifact(tmp_path / "adapter"), tensors={}) == replace(artifact, tensors={})


@pytest.mark.parametrize("head", ["pooler", "trained-pooler"])
@pytest.mark.parametrize("name", ["query-value", "rslora", "all-linear", "output", "dora"])
def test_peft_loads_an_adapter_with_equal_logits(pair: Pair, tmp_path: Path, name: str, head: str) -> None:
    program, parameters, artifact = trained(pair, RUNS[name], head)
    save_artifact(tmp_path / "adapter", artifact, pair.ours)
    base = BertForSequenceClassification.from_pretrained(pair.folder, num_labels=CLASSES)
    ids, lengths, mask, _ = batch()
    with torch.no_grad():
        before = base(ids, attention_mask=mask).logits
        model = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
        theirs = model(ids, attention_mask=mask).logits
        ours = logits_of(program, parameters, ids, lengths)[0]
    assert (theirs - ours).abs().max() <= FP32
    assert (theirs - before).abs().max() > 1e-3
    adapted = {n for n, _ in model.named_modules() if n.endswith("lora_A")}
    assert len(adapted) == len(RUNS[name].adapter.targets) * pair.ours.table.layers


def test_peft_loads_the_adapters_of_a_run_with_mean_head(pair: Pair, tmp_path: Path) -> None:
    """transformers has no such head: PEFT gets the encoder's adapters, and head.safetensors contains the head."""
    program, parameters, artifact = trained(pair, RUNS["all-linear"], "mean")
    save_artifact(tmp_path / "adapter", artifact, pair.ours)
    model = PeftModel.from_pretrained(BertModel.from_pretrained(pair.folder), tmp_path / "adapter").eval()
    ids, lengths, mask, _ = batch()
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = (states * mask[..., None]).sum(1) / lengths[:, None]
        theirs = mean @ artifact.tensors["classifier.weight"].T + artifact.tensors["classifier.bias"]
        ours = logits_of(program, parameters, ids, lengths)[0]
    assert (theirs - ours).abs().max() <= FP32


def test_transformers_loads_a_fully_fine_tuned_model(pair: Pair, tmp_path: Path) -> None:
    program, parameters, artifact = trained(pair, RUNS["full"], "pooler")
    save_artifact(tmp_path / "full", artifact, pair.ours)
    model = BertModel.from_pretrained(tmp_path / "full").eval()
    ids, lengths, mask, _ = batch()
    with torch.no_grad():
        pooled = model(ids, attention_mask=mask).pooler_output
        theirs = pooled @ artifact.tensors["classifier.weight"].T + artifact.tensors["classifier.bias"]
        assert (theirs - logits_of(program, parameters, ids, lengths)[0]).abs().max() <= FP32


def test_another_backbone_is_rejected(pair: Pair, tmp_path: Path) -> None:
    _, _, artifact = trained(pair, RUNS["query-value"], "pooler")
    save_artifact(tmp_path / "adapter", artifact, pair.ours)
    other = make_pair(tmp_path / "other", seed=7)
    described = json.loads((tmp_path / "adapter" / "loralet.json").read_text())
    (tmp_path / "adapter" / "loralet.json").write_text(json.dumps(described | {"backbone": str(other.folder)}))
    with pytest.raises(RunError, match=rf"trained on another model than {other.folder}"):
        load_classifier(tmp_path / "adapter")


@pytest.mark.parametrize("damage", ["missing", "json", "schema", "key"])
def test_an_invalid_adapter_folder_is_reported(pair: Pair, tmp_path: Path, damage: str) -> None:
    _, _, artifact = trained(pair, RUNS["query-value"], "pooler")
    save_artifact(tmp_path / "adapter", artifact, pair.ours)
    path = tmp_path / "adapter" / "loralet.json"
    described = json.loads(path.read_text())
    if damage == "missing":
        path.unlink()
    elif damage == "json":
        path.write_text("{")
    elif damage == "schema":
        path.write_text(json.dumps(described | {"schema": SCHEMA + 1}))
    else:
        described.pop("labels")
        path.write_text(json.dumps(described))
    wanted = {"missing": "not a loralet adapter", "json": "cannot be read", "schema": "newer loralet", "key": "labels"}
    with pytest.raises(RunError, match=wanted[damage]):
        load_artifact(tmp_path / "adapter")


@pytest.mark.parametrize(
    ("head", "gone"),
    [("pooler", "adapter_model"), ("mean", "adapter_model"), ("mean", "head"), ("trained-pooler", "adapter_model")],
)
def test_missing_adapter_weights_are_reported(pair: Pair, tmp_path: Path, head: str, gone: str) -> None:
    _, _, artifact = trained(pair, RUNS["query-value"], head)
    save_artifact(tmp_path / "adapter", artifact, pair.ours)
    (tmp_path / "adapter" / f"{gone}.safetensors").unlink()
    with pytest.raises(RunError, match=rf"adapter.{gone}.safetensors is missing: predictions would be random"):
        load_artifact(tmp_path / "adapter")


def test_missing_classifier_weights_are_reported(pair: Pair, tmp_path: Path) -> None:
    _, _, artifact = trained(pair, RUNS["query-value"], "pooler")
    save_artifact(tmp_path / "adapter", artifact, pair.ours)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if "classifier" not in name}, path)
    with pytest.raises(RunError, match=r"classifier.bias, classifier.weight"):
        load_artifact(tmp_path / "adapter")
