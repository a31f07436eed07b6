"""The head that is chosen for a backbone."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from models import make_pair
from safetensors.torch import load_file, save_file
from test_runs import write_rows

from loralet.artifacts.folder import load_artifact
from loralet.cli import main
from loralet.errors import CheckpointError
from loralet.hub.backbone import load_backbone
from loralet.hub.bundled import MODEL, SMALL
from loralet.hub.checkpoint import checkpoint_files
from loralet.hub.sentence_pooling import pools_mean
from loralet.training.session import chosen_head


def test_the_head_is_the_pooler_of_the_backbone_or_a_new_one() -> None:
    backbone = load_backbone(MODEL)
    assert chosen_head(backbone, "auto") == "pooler"
    assert [chosen_head(backbone, head) for head in ("pooler", "trained-pooler", "mean")] == [
        "pooler",
        "trained-pooler",
        "mean",
    ]
    weights = {name: tensor for name, tensor in backbone.weights.items() if not name.startswith("pooler.")}
    assert chosen_head(replace(backbone, pools_mean=True), "auto") == "mean"
    assert chosen_head(replace(backbone, pools_mean=True), "pooler") == "pooler"
    without = replace(backbone, weights=weights)
    assert chosen_head(without, "auto") == "trained-pooler"
    assert chosen_head(without, "mean") == "mean"
    with pytest.raises(CheckpointError, match="tiny-en has no pooler; use --head mean, or --head trained-pooler"):
        chosen_head(without, "pooler")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}', True),
        ('{"pooling_mode_mean_tokens": false, "pooling_mode_cls_token": true}', False),
        ('{"pooling_mode": "mean"}', True),
        ('{"pooling_mode": "cls"}', False),
        ("{}", False),
    ],
)
def test_the_pooling_of_sentence_transformers_is_read(tmp_path: Path, content: str, expected: bool) -> None:
    assert not pools_mean(tmp_path), "no file"
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(content)
    assert pools_mean(tmp_path) is expected


@pytest.mark.parametrize(("content", "said"), [("{", "not valid JSON"), ("[]", "not a JSON object")])
def test_a_damaged_pooling_file_is_named(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=rf"1_Pooling/config\.json: {said}"):
        pools_mean(tmp_path)


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    os.mkfifo(tmp_path / "1_Pooling" / "config.json")
    with pytest.raises(CheckpointError, match="is a named pipe"):
        pools_mean(tmp_path)


def test_the_bundled_encoders_have_the_heads_that_they_were_trained_for() -> None:
    assert [chosen_head(load_backbone(name), "auto") for name in (MODEL, SMALL)] == ["pooler", "mean"]


def test_the_pooling_is_among_the_files_of_a_hub() -> None:
    names = ["1_Pooling/config.json", "config.json", "modules.json", "model.safetensors", "tokenizer.json"]
    assert checkpoint_files(names) == ["config.json", "tokenizer.json", "1_Pooling/config.json", "model.safetensors"]


def test_a_backbone_without_a_pooler_is_trained_without_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_pair(tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    without = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
    assert len(without) == len(weights) - 2
    save_file(without, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    write_rows(tmp_path / "rows.csv", 60, 0)
    assert (
        main(
            ["train", "rows.csv", "--model", "model", "--steps", "2", "--folds", "0", "--hybrid", "off", "--out", "run"]
        )
        == 0
    )
    assert "head: trained-pooler, as the backbone has no pooler" in capsys.readouterr().err
    (adapter,) = (tmp_path / "run" / "adapters").glob("lora*")
    assert load_artifact(adapter).head == "trained-pooler"
