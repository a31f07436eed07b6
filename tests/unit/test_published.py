"""Published checkpoints from the hub to an exported classifier, compared with transformers at each end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from loopback_hub import LoopbackHub
from published import PUBLISHED, XLM_ROBERTA_CONFIG, config_text
from test_hub import User
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from loralet import TextClassifier
from loralet.hub.backbone import load_backbone
from loralet.models.forward import Padded, encode, frozen

FP32 = 1e-5
TEXTS = ["oil price", "The team wins the game: the WORLD cup 2004!", "market", "naïve café, a new play in the world"]
TRAIN = "--rank 4 --lr 2e-3 --steps 10 --batch-size 8 --head trained-pooler --precision fp32 --out run --quiet"
SCRIPT = """
import json, sys, warnings
from loralet.cli import main
warnings.simplefilter("default")  # torch's ONNX exporter warns about itself
for arguments in json.loads(sys.argv[1]):
    assert main(arguments) == 0, arguments
"""


def test_a_configuration_of_the_published_size_has_the_bytes_of_the_published_file() -> None:
    assert len(config_text(XLM_ROBERTA_CONFIG)) == 615


@pytest.mark.parametrize("repo", PUBLISHED)
def test_trained_from_the_hub_and_exported(repo: str, tmp_path: Path) -> None:
    published, user = PUBLISHED[repo], User(tmp_path / "home")
    folder = published.write(tmp_path / "served")
    here = tmp_path / "here"
    here.mkdir()
    texts = {"oil": ("the oil price", "new oil"), "team": ("the team wins", "new team")}
    rows = [f"{text},{label}" for label, own in texts.items() for text in own * 12]
    (here / "rows.csv").write_text("\n".join(["text,label", *rows]))
    exports = [["export", "run", "--to", kind, "--out", kind] for kind in ("hf", "onnx")]
    with LoopbackHub({repo: folder}) as hub:
        user.runs(hub.url, SCRIPT, json.dumps([["train", "rows.csv", "--model", repo, *TRAIN.split()], *exports]))
        fetched = {path.split("/")[-1] for path in hub.downloaded()}
        assert all(f"/{repo}/resolve/" in path and "onnx" not in path for path in hub.downloaded())
    weights = "model.safetensors" if published.safetensors else "pytorch_model.bin"
    assert fetched - {"vocab.txt"} == {"config.json", "tokenizer.json", "tokenizer_config.json", weights}

    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    backbone, lengths = load_backbone(str(folder)), batch["attention_mask"].sum(1)
    kept = batch["attention_mask"].bool()
    for text, ids, own in zip(TEXTS, batch["input_ids"], kept, strict=True):
        assert backbone.tokenizer.encode(text).ids == ids[own].tolist()
    states = encode(backbone.weights, backbone.table, Padded(batch["input_ids"], lengths), frozen(backbone.weights))[0]
    with torch.no_grad():
        theirs = AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state
    assert (states - theirs)[kept].abs().max() <= FP32
    assert theirs.std() > 0.1

    wanted = TextClassifier.load(here / "run", backbone=str(folder)).predict_proba(TEXTS)
    assert wanted.std(0).max() > 1e-3
    session = onnxruntime.InferenceSession(str(here / "onnx" / "model.onnx"))
    (logits,) = session.run(None, {name: batch[name].numpy() for name in ("input_ids", "attention_mask")})
    assert np.abs(torch.from_numpy(logits).softmax(-1).numpy() - wanted).max() <= FP32
    exported = AutoTokenizer.from_pretrained(here / "hf")(TEXTS, padding=True, return_tensors="pt")
    model = AutoModelForSequenceClassification.from_pretrained(here / "hf").eval()
    with torch.no_grad():
        assert np.abs(model(**exported).logits.numpy() - logits).max() <= FP32
