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
TRAIN = (
    "--rank 4 --lr 2e-3 --steps 10 --batch-size 8 --head trained-pooler --precision fp32 --backend torch --hybrid off "
    "--quiet"
)
SCRIPT = """
import json, sys, warnings
from loralet.cli import main
warnings.simplefilter("default")  # torch's ONNX exporter warns about itself
for arguments in json.loads(sys.argv[1]):
    assert main(arguments) == 0, arguments
"""


def test_a_configuration_of_the_published_size_has_the_bytes_of_the_published_file() -> None:
    assert len(config_text(XLM_ROBERTA_CONFIG)) == 615


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with, of each repository, what was served, the run and its exports; and the paths of fetched files.

    One process trains and exports all of them, as it needs most of its time to import torch and its exporter.
    """
    root = tmp_path_factory.mktemp("published")
    here = root / "here"
    here.mkdir()
    texts = {"oil": ("the oil price", "new oil"), "team": ("the team wins", "new team")}
    rows = [f"{text},{label}" for label, own in texts.items() for text in own * 12]
    (here / "rows.csv").write_text("\n".join(["text,label", *rows]))
    served = {repo: published.write(root / "served" / repo) for repo, published in PUBLISHED.items()}
    commands = []
    for repo in PUBLISHED:
        commands.append(["train", "rows.csv", "--model", repo, "--out", f"run/{repo}", *TRAIN.split()])
        commands.append(["export", f"run/{repo}", "--to", "hf", "--no-onnx", "--out", f"hf/{repo}"])
        commands.append(["export", f"run/{repo}", "--to", "onnx", "--out", f"onnx/{repo}"])
    with LoopbackHub(served) as hub:
        User(root / "home").runs(hub.url, SCRIPT, json.dumps(commands), limit=240)
    return root, hub.downloaded()


@pytest.mark.parametrize("repo", PUBLISHED)
def test_trained_from_the_hub_and_exported(repo: str, exported: tuple[Path, list[str]]) -> None:
    root, downloaded = exported
    folder, here = root / "served" / repo, root / "here"
    fetched = {path.split("/", 5)[5] for path in downloaded if path.startswith(f"/{repo}/resolve/")}
    weights = "model.safetensors" if PUBLISHED[repo].safetensors else "pytorch_model.bin"
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

    wanted = TextClassifier.load(here / "run" / repo, backbone=str(folder)).predict_proba(TEXTS)
    assert wanted.std(0).max() > 1e-3
    session = onnxruntime.InferenceSession(str(here / "onnx" / repo / "model.onnx"))
    (logits,) = session.run(None, {name: batch[name].numpy() for name in ("input_ids", "attention_mask")})
    assert np.abs(torch.from_numpy(logits).softmax(-1).numpy() - wanted).max() <= FP32
    given = AutoTokenizer.from_pretrained(here / "hf" / repo)(TEXTS, padding=True, return_tensors="pt")
    model = AutoModelForSequenceClassification.from_pretrained(here / "hf" / repo).eval()
    with torch.no_grad():
        assert np.abs(model(**given).logits.numpy() - logits).max() <= FP32
