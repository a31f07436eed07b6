"""ModernBERT beyond what all families share: its config layouts, its local attention, its classification head."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from stand_ins import by_transformers
from test_encoder import CLOSE, FAR, batch, difference, states, theirs
from tolerances import FP32
from transformers import ModernBertForSequenceClassification

from loralet import TextClassifier
from loralet.errors import CheckpointError, RunError
from loralet.export.checkpoint import export_bundle, export_hf
from loralet.hub.backbone import load_backbone
from loralet.inference.predictor import load_classifier, ready

LENGTHS = (64, 9, 40)
PUBLISHED = {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "global_attn_every_n_layers": 3}
"""Keys of the published checkpoints; transformers 5 writes ``rope_parameters`` and ``layer_types`` instead."""


def change(folder: Path, *gone: str, **keys: Any) -> None:
    """Set keys of config.json, and take keys away."""
    path = folder / "config.json"
    config = {key: value for key, value in json.loads(path.read_text()).items() if key not in gone}
    path.write_text(json.dumps(config | keys))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return by_transformers(tmp_path / "model", "modernbert")


@pytest.mark.parametrize("local_base", [10000.0, 160000.0], ids=["ModernBERT", "Ettin"])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_config_of_published_checkpoints(folder: Path, local_base: float, every: int) -> None:
    written = load_backbone(str(folder)).table
    change(folder, "rope_parameters", "layer_types", **PUBLISHED, position_embedding_type="sans_pos")
    assert load_backbone(str(folder)).table == written
    change(folder, local_rope_theta=local_base, global_attn_every_n_layers=every)
    backbone = load_backbone(str(folder))
    ids, lengths = batch(backbone, LENGTHS)
    expected = theirs(folder, "modernbert", ids, lengths).last_hidden_state
    assert difference(states(backbone, ids, lengths), expected, lengths) < CLOSE


def test_a_local_base_that_is_null_is_the_global_one(folder: Path) -> None:
    change(folder, "rope_parameters", **PUBLISHED | {"local_rope_theta": None})
    assert load_backbone(str(folder)).table.local_rotary_base == 160000.0


@pytest.mark.parametrize(
    "switch", [{"local_window": 7}, {"local_window": 0}, {"global_every": 2}, {"local_rotary_base": 160000.0}], ids=str
)
def test_local_attention_matters(folder: Path, switch: dict[str, Any]) -> None:
    backbone = load_backbone(str(folder))
    assert [backbone.table.is_local(i) for i in range(4)] == [False, True, True, False]
    ids, lengths = batch(backbone, LENGTHS)
    other = replace(backbone, table=replace(backbone.table, **switch))
    assert difference(states(other, ids, lengths), states(backbone, ids, lengths), lengths) > FAR


ROTARY = {"rope_type": "default", "rope_theta": 10000.0}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"norm_bias": True}, "norm_bias is True"),
        ({"norm_eps": 1e-6}, "norm_eps is 1e-06; only 1e-05"),
        ({"layer_types": ["sliding_attention", "full_attention"] * 2}, "layer_types is ['sliding_attention', "),
        (
            {"rope_parameters": {"full_attention": ROTARY | {"rope_type": "yarn"}, "sliding_attention": ROTARY}},
            "rope_parameters.full_attention is {",
        ),
        ({"rope_parameters": {"full_attention": ROTARY}}, "rope_parameters.sliding_attention is None"),
    ],
)
def test_what_is_not_computed_is_refused(folder: Path, keys: dict[str, Any], words: str) -> None:
    change(folder, **keys)
    with pytest.raises(CheckpointError) as caught:
        load_backbone(str(folder))
    assert f"{folder / 'config.json'}: {words}" in str(caught.value)


def test_a_classifier_of_the_mean_is_refused_and_exports_read_the_first_token(folder: Path, tmp_path: Path) -> None:
    """The published checkpoints ask transformers for the mean over the tokens; loralet's head reads the first one."""
    change(folder, classifier_pooling="mean")
    base = ModernBertForSequenceClassification.from_pretrained(folder, num_labels=2)
    config = LoraConfig(task_type="SEQ_CLS", target_modules=["Wqkv"], modules_to_save=["head", "classifier"])
    get_peft_model(base, config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(RunError, match="its base: classifier_pooling is 'mean'; loralet computes 'cls'"):
        load_classifier(tmp_path / "adapter")
    change(folder, classifier_pooling="cls")
    assert load_classifier(tmp_path / "adapter").artifact.pooling.norm
    change(folder, classifier_pooling="mean")

    texts, labels = ["the game", "oil price", "team wins", "stock market"] * 2, [1, 0, 1, 0] * 2
    ours = TextClassifier(str(folder), rank=2, steps=4, batch_size=4, head="trained-pooler").fit(texts, labels)
    export_hf(ours.artifact_, ready(ours.artifact_, ours.backbone_), tmp_path / "hf")
    export_bundle(ours.artifact_, ready(ours.artifact_, ours.backbone_), tmp_path / "bundle")
    names = {name for name in load_file(tmp_path / "bundle" / "model.safetensors") if "pooler" in name}
    assert names == {"model.pooler.dense.weight", "model.pooler.norm.weight"}
    model = ModernBertForSequenceClassification.from_pretrained(tmp_path / "hf").eval()
    assert model.config.classifier_pooling == "cls"
    for text, expected in zip(texts[:4], ours.predict_proba(texts[:4]), strict=True):
        ids = torch.tensor([ours.backbone_.tokenizer.encode(text).ids])
        with torch.no_grad():
            found = model(ids).logits.softmax(-1)[0]
        assert (found - torch.from_numpy(expected)).abs().max() <= FP32
