"""The PEFT recipe of the card predicts and trains on, and AutoPeftModel finds the base of local and pushed adapters."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import command
from peft import AutoPeftModelForSequenceClassification, PeftModel
from tolerances import FP32
from transformers import AutoTokenizer, BertForSequenceClassification

from loralet import TextClassifier
from loralet.export.push import base_files, contents, plan_push
from loralet.hub.bundled import MODEL, bundled

TEXTS, LABELS = ["the game", "oil price", "team wins", "stock market"] * 5, ["sports", "business"] * 10


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on the bundled encoder."""
    folder = tmp_path_factory.mktemp("cards") / "adapter"
    TextClassifier(MODEL, rank=2, steps=8, batch_size=4, lr=1e-2, hybrid="off", max_length=16).fit(TEXTS, LABELS).save(
        folder
    )
    return folder


def recipe(folder: Path) -> str:
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if "peft" in block]
    return str(found)


def compare(model: Any, folder: Path, adapter: Path) -> None:
    """Logits of the adapter in PEFT and in loralet; the temperature is not part of the weights."""
    loaded = TextClassifier.load(adapter)
    batch = AutoTokenizer.from_pretrained(folder)(TEXTS[:4], padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = (model.eval()(**batch).logits / loaded.artifact_.temperature).softmax(-1).numpy()
    assert np.abs(theirs - loaded.predict_proba(TEXTS[:4])).max() <= FP32
    assert theirs.std(0).max() > 1e-2


def test_the_recipe_predicts_and_trains_on_without_nan(
    adapter: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(adapter)
    code = recipe(adapter).replace('["A text to classify."]', repr(TEXTS))
    names: dict[str, Any] = {}
    exec(code, names)
    wanted = TextClassifier.load(adapter).predict(TEXTS).tolist()
    assert capsys.readouterr().out.splitlines()[-1] == str(wanted)
    compare(names["model"], adapter, adapter)
    trainable = code.replace("adapter).eval()", "adapter, is_trainable=True)").partition("tokenizer =")[0]
    assert "is_trainable=True)" in trainable
    exec(trainable, names)
    model = names["model"].train()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    batch = names["tokenizer"](TEXTS, padding=True, return_tensors="pt")
    targets, losses = torch.tensor([names["labels"].index(label) for label in LABELS]), []
    for _ in range(8):
        loss = model(**batch, labels=targets).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    # Without the recipe's dtype, the base is in fp16.
    assert BertForSequenceClassification.from_pretrained(str(bundled(MODEL))).dtype == torch.float16


def test_auto_peft_model_finds_the_base(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = AutoPeftModelForSequenceClassification.from_pretrained(adapter, num_labels=2, dtype=torch.float32)
    compare(local, adapter, adapter)
    planned = plan_push(adapter, "me/mine")
    for repo, files in (
        ("me/mine", contents(adapter, "me/mine", True)),
        ("me/mine-base", base_files(adapter, "me/mine")),
    ):
        (tmp_path / repo).mkdir(parents=True)
        for name, content in files.items():
            (tmp_path / repo / name).write_bytes(content)
        sizes = {name: len(content) for name, content in files.items()}
        assert sizes == (planned.files if repo == "me/mine" else planned.base)
    monkeypatch.chdir(tmp_path)  # the folders stand for the repositories of these names
    pushed = AutoPeftModelForSequenceClassification.from_pretrained("me/mine")
    assert pushed.dtype == torch.float32
    assert pushed.config.id2label == {0: "business", 1: "sports"}
    compare(pushed, Path("me/mine"), adapter)
    assert 'backbone = "me/mine-base"' in recipe(tmp_path / "me/mine")
    assert "loralet.hub" not in recipe(tmp_path / "me/mine")
    for content in contents(adapter, "me/mine", True).values():
        assert str(bundled(MODEL)).encode() not in content
    assert (
        TextClassifier.load("me/mine").predict(TEXTS).tolist() == TextClassifier.load(adapter).predict(TEXTS).tolist()
    )


def test_no_base_uploads_the_adapter_alone(adapter: Path) -> None:
    done = command(adapter.parent, "push", "adapter", "me/mine", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "me/mine-base: 5 files" in done.stdout
    done = command(adapter.parent, "push", "adapter", "me/mine", "--dry-run", "--no-base")
    assert "me/mine-base" not in done.stdout
    assert b'"base_model_name_or_path": "tiny-en"' in contents(adapter, "me/mine")["adapter_config.json"]


def test_the_card_is_right_about_weighted_adapters(adapter: Path) -> None:
    base = BertForSequenceClassification.from_pretrained(str(bundled(MODEL)), num_labels=2, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, adapter, adapter_name="a")
    model.load_adapter(adapter, "b")
    with pytest.raises(ValueError, match="modules_to_save"):
        model.add_weighted_adapter(["a", "b"], [0.5, 0.5], "mean", combination_type="linear")
    assert "`add_weighted_adapter` refuses" in (adapter / "README.md").read_text(encoding="utf-8")
