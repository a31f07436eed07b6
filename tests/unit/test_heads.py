"""The head that is chosen for a backbone."""

from __future__ import annotations

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
from loralet.hub.bundled import MODEL
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
    without = replace(backbone, weights=weights)
    assert chosen_head(without, "auto") == "trained-pooler"
    assert chosen_head(without, "mean") == "mean"
    with pytest.raises(CheckpointError, match="tiny-en has no pooler; use --head mean, or --head trained-pooler"):
        chosen_head(without, "pooler")


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
