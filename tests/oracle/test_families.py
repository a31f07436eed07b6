"""Every model family from a checkpoint to a trained and exported classifier. A new family adds only its stand-in."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from backends import NATIVE, ORACLE, backend_id
from command_line import command
from stand_ins import KINDS, STAND_INS, by_transformers
from tolerances import FP32
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from loralet import TextClassifier
from loralet.adapters.pack import Pack
from loralet.adapters.spec import AdapterSpec
from loralet.backends.base import Backend
from loralet.backends.batch import batch_of
from loralet.hub.backbone import Backbone, load_backbone
from loralet.models.families import FAMILIES
from loralet.runs.environment import read_environment
from loralet.training.packs import adapter_run, build_pack, resolved

# Long trainings, most of whose lines other tests cover too; measuring them takes half as long again.
pytestmark = pytest.mark.no_cover

CLASSES = ("oil", "team")
WORDS = {"oil": ["oil", "price", "stock", "market"], "team": ["team", "wins", "game", "play"]}
TEXTS = ["oil price", "The team wins the game: the WORLD cup 2004!", "market", "naïve café, a new play in the world"]


def write_rows(path: Path) -> None:
    generator = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(120):
            label = CLASSES[i % 2]
            writer.writerow(
                [" ".join(generator.choice([*WORDS[label], "the", "new"], generator.integers(2, 9))), label]
            )


@pytest.mark.parametrize("kind", KINDS)
def test_trained_by_the_command_line_and_exported(kind: str, tmp_path: Path) -> None:
    """Training finds the backend by itself; transformers and onnxruntime predict what the run predicts."""
    by_transformers(tmp_path / "base", kind)
    write_rows(tmp_path / "rows.csv")
    flags = "--rank 4 --lr 2e-3 --steps 20 --batch-size 16 --head trained-pooler --precision fp32 --out run"
    done = command(tmp_path, "train", "rows.csv", "--model", "base", *flags.split(), "--hybrid", "off", "--quiet")
    assert done.returncode == 0, done.stderr
    backend = read_environment(tmp_path / "run").backends[0].backend
    if NATIVE:
        assert backend.name == ("torch" if STAND_INS[kind].refused else "native")
        assert STAND_INS[kind].refused in backend.reason
    ours = TextClassifier.load(tmp_path / "run", backbone=str(tmp_path / "base"))
    wanted = ours.predict_proba(TEXTS)
    assert wanted.std(0).max() > 1e-3
    done = command(tmp_path, "export", "run", "--to", "onnx", "--out", "onnx")
    assert done.returncode == 0, done.stderr
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"))
    (logits,) = session.run(None, {name: batch[name].numpy() for name in ("input_ids", "attention_mask")})
    assert np.abs(torch.from_numpy(logits).softmax(-1).numpy() - wanted).max() <= FP32
    done = command(tmp_path, "export", "run", "--to", "hf", "--no-onnx", "--out", "hf")
    if ours.artifact_.pooling != FAMILIES[kind].head.pooling:
        assert f"transformers has no {kind} classifier" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    batch = AutoTokenizer.from_pretrained(tmp_path / "hf")(TEXTS, padding=True, truncation=True, return_tensors="pt")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "hf").eval()
    assert model.config.architectures == [type(model).__name__]
    with torch.no_grad():
        theirs = model(**batch).logits.numpy()
    assert np.abs(theirs - logits).max() <= FP32


def pack_over(backbone: Backbone) -> Pack:
    run = resolved(adapter_run("m", AdapterSpec(rank=4, alpha=8.0), 1e-3, 0), backbone.table)
    return build_pack([run], backbone.table, len(CLASSES), "trained-pooler", 0.0, backbone.family.pooling)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", NATIVE, ids=backend_id)
def test_the_native_backend_computes_it_or_says_why_not(kind: str, backend: Backend, tmp_path: Path) -> None:
    backbone, refused = load_backbone(str(by_transformers(tmp_path / "base", kind))), STAND_INS[kind].refused
    found = backend.supports(backbone.table, torch.float32)
    assert (found is None) == (not refused)
    assert refused in (found or "")
    pack = pack_over(backbone)
    if refused:
        with pytest.raises(ValueError, match=refused):
            backend.load(backbone.weights, backbone.table, torch.float32).program(pack)
        return
    parameters = pack.start(backbone.weights)
    parameters = parameters + 0.1 * torch.randn(parameters.shape, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(10, backbone.table.vocabulary, (4, 20), generator=torch.Generator().manual_seed(1))
    batch = batch_of(ids, torch.tensor([20, 3, 11, 2]))
    native, torchs = (
        b.load(backbone.weights, backbone.table, torch.float32).program(pack).logits(parameters)(batch)
        for b in (backend, ORACLE)
    )
    assert (native - torchs).abs().max() <= FP32
    assert torchs.std() > 1e-2
