"""``loralet models``, the short names of ``--model``, and suggestions for wrong names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from math import prod
from pathlib import Path
from statistics import fmean

import pytest
from checkpoints import prajjwal
from command_line import command

from loralet import TextClassifier
from loralet.config import GridOptions, StudyConfig, TrainConfig
from loralet.hub import checkpoint
from loralet.hub.bundled import MODEL, SMALL, bundled
from loralet.hub.models import MODELS, SOURCES, KnownModel, near_names, resolve_model
from loralet.models.families import FAMILIES
from loralet.report.models_table import cells, headings
from loralet.runs.results import read_results
from loralet.studies.plan import plan_study, plan_train

ROOT = Path(__file__).parents[2]
BY_NAME = {model.name: model for model in MODELS}


def bert(layers: int, width: int, vocabulary: int = 30522, **more: int) -> tuple[str, dict[str, object]]:
    config = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width // 64 or 1}
    config |= {"intermediate_size": 4 * width, "vocab_size": vocabulary, "max_position_embeddings": 512}
    return "bert", dict(config | {"type_vocab_size": 2} | more)


CONFIGS: dict[str, tuple[str, dict[str, object]]] = {
    "tiny-en": bert(2, 128),
    "small-en": bert(3, 384, 25346, num_attention_heads=12),
    "bert-tiny": bert(2, 128),
    "bert-mini": bert(4, 256),
    "minilm-l6": bert(6, 384, num_attention_heads=12),
    "minilm-l12": bert(12, 384, num_attention_heads=12),
    "bge-small": bert(12, 384, num_attention_heads=12),
    "multilingual-minilm": bert(12, 384, 250037, num_attention_heads=12),
    "electra-small": ("electra", bert(12, 256)[1] | {"embedding_size": 128}),
    "mpnet-base": ("mpnet", bert(12, 768, 30527, max_position_embeddings=514)[1]),
    "xlm-roberta-base": (
        "xlm-roberta",
        bert(12, 768, 250002, max_position_embeddings=514, type_vocab_size=1)[1] | {"pad_token_id": 1},
    ),
    "distilbert-base": (
        "distilbert",
        {
            "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072, "vocab_size": 30522,
            "max_position_embeddings": 512, "activation": "gelu",
        },
    ),
    "modernbert-base": (
        "modernbert",
        {
            "hidden_size": 768, "num_hidden_layers": 22, "num_attention_heads": 12, "intermediate_size": 1152,
            "vocab_size": 50368, "max_position_embeddings": 8192, "hidden_activation": "gelu",
        },
    ),
}  # fmt: skip
"""Model type and sizes of the published configurations."""


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_parameters_and_length_are_those_of_the_published_configuration(model: KnownModel) -> None:
    kind, config = CONFIGS[model.name]
    family = FAMILIES[kind]
    table = family.table(config)
    shapes = table.tensors()
    pooler = sum(prod(shape) for shape in family.pooling.tensors(table.width).values())
    encoder = sum(prod(shape) for shape in shapes.values())
    # Not every checkpoint has a pooler.
    assert any(abs(model.parameters - count / 1e6) <= 0.06 for count in (encoder, encoder + pooler)), (encoder, pooler)
    assert model.longest == table.longest


def test_the_bundled_models_come_first_and_names_are_unique() -> None:
    assert [model.name for model in MODELS if model.bundled] == [model.name for model in MODELS[:2]] == [MODEL, SMALL]
    assert all(bundled(model.source) for model in MODELS[:2])
    assert len(SOURCES) == len(MODELS) == len({model.source for model in MODELS})
    sizes = [model.parameters for model in MODELS[2:]]
    assert sizes == sorted(sizes)
    assert all("/" in model.source for model in MODELS[2:])
    assert TrainConfig().model in SOURCES


def test_figures_are_those_of_the_committed_benchmarks() -> None:
    speed = json.loads((ROOT / "benchmarks" / "speed.json").read_text())["rows"]["loralet, one run"]
    measured = json.loads((ROOT / "benchmarks" / "league.json").read_text())["rows"]
    rows = {model.name: model.rows_per_second for model in MODELS if model.rows_per_second is not None}
    assert rows == dict.fromkeys(("tiny-en", "bert-tiny"), round(speed["rows_per_second"], -2))
    league = {model.name: model.league for model in MODELS if model.league is not None}
    means = {name: fmean(row["test"] for row in measured[name].values()) for name in SOURCES if name in measured}
    assert league == {name: pytest.approx(mean, abs=5e-4) for name, mean in means.items()}


def test_a_short_name_is_the_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_model("minilm-l6") == "sentence-transformers/all-MiniLM-L6-v2"
    assert resolve_model(MODEL) == MODEL
    assert resolve_model("someone/model") == "someone/model"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "minilm-l6").mkdir()
    assert resolve_model("minilm-l6") == "minilm-l6"


def test_plans_name_the_hub_id() -> None:
    assert plan_train(TrainConfig(model="minilm-l6")).runs[0].model == BY_NAME["minilm-l6"].source
    models = ("tiny-en", "bert-mini", "someone/model")
    plan = plan_study(StudyConfig(grid=GridOptions(models=models)))
    assert {run.model for run in plan.runs} == {"tiny-en", "google/bert_uncased_L-4_H-256_A-4", "someone/model"}
    assert any(run.id.startswith("bert_uncased_L-4_H-256_A-4-lora") for run in plan.runs)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub that has one checkpoint under every name; the list receives the names."""
    prajjwal(tmp_path / "checkpoint")
    asked: list[str] = []

    def fetch(name: str, choose: object) -> Path:
        asked.append(name)
        return tmp_path / "checkpoint"

    monkeypatch.setattr(checkpoint.hub, "fetch", fetch)
    monkeypatch.chdir(tmp_path)
    return asked


TEXTS, LABELS = ["the game", "oil price", "team wins", "stock market"] * 5, ["s", "b", "s", "b"] * 5


def test_runs_and_adapters_record_the_hub_id(tmp_path: Path, hub: list[str]) -> None:
    rows = "".join(f"{text},{label}\n" for text, label in zip(TEXTS, LABELS, strict=True))
    (tmp_path / "rows.csv").write_text("text,label\n" + rows)
    flags = ("--rank", "2", "--steps", "2", "--batch-size", "4", "--hybrid", "off", "--quiet")
    done = command(tmp_path, "train", "rows.csv", "--model", "bert-tiny", *flags, "--out", "run")
    assert done.returncode == 0, done.stderr
    source = BY_NAME["bert-tiny"].source
    assert set(hub) == {source}
    assert read_results(tmp_path / "run").runs[-1].model == source
    (adapter,) = (tmp_path / "run" / "adapters").iterdir()
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == source
    assert command(tmp_path, "predict", "run", "the game").returncode == 0
    assert command(tmp_path, "predict", "run", "the game", "--backbone", "bert-tiny").returncode == 0
    assert command(tmp_path, "inspect", "bert-tiny").returncode == 0
    assert set(hub) == {source}
    classifier = TextClassifier("bert-tiny", rank=2, steps=2, batch_size=4).fit(TEXTS, LABELS)
    assert classifier.backbone_.name == source
    assert classifier.get_params()["backbone"] == "bert-tiny"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("minilm", ["minilm-l6"]),
        ("miniLM-l7", ["minilm-l6"]),
        ("tiny-enn", ["tiny-en"]),
        ("sentence-transformers/all-MiniLM-L6-v3", ["minilm-l6"]),
        ("mpnet", ["mpnet-base"]),
        ("modernbert", ["modernbert-base"]),
    ],
)
def test_a_wrong_name_suggests_near_names(tmp_path: Path, name: str, near: list[str]) -> None:
    assert near_names(name)[: len(near)] == near
    done = command(tmp_path, "train", "news-mini", "--model", name, "--out", "run")
    assert done.returncode == 2
    assert f"; did you mean {near[0]}" in done.stderr
    assert "loralet models lists all short names" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["owner/zzzz", "./nowhere", BY_NAME["minilm-l6"].source])
def test_names_that_are_like_none_suggest_none(tmp_path: Path, name: str) -> None:
    done = command(tmp_path, "train", "news-mini", "--model", name, "--out", "run")
    assert done.returncode == 2
    assert "did you mean" not in done.stderr


def test_the_command_prints_the_table_and_makes_no_request(tmp_path: Path) -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*given): raise AssertionError('a request')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "from loralet.cli import main\n"
        "status = main(['models'])\n"
        "assert not {'torch', 'huggingface_hub'} & set(sys.modules), 'heavy imports'\n"
        "sys.exit(status)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for model in MODELS:
        (line,) = [line for line in lines if line.split()[:1] == [model.name]]
        assert ("bundled" if model.bundled else model.source) in line
        assert model.licence in line
    assert lines[1].split()[:4] == ["name", "hub", "id", "parameters"]


def test_the_command_prints_json(tmp_path: Path) -> None:
    found = json.loads(command(tmp_path, "models", "--format", "json").stdout)
    assert [model["name"] for model in found] == [model.name for model in MODELS]
    assert found[0] == {
        "name": "tiny-en", "source": "tiny-en", "parameters": 4.4, "longest": 512, "languages": "English",
        "licence": "Apache-2.0", "rows_per_second": MODELS[0].rows_per_second, "league": MODELS[0].league,
    }  # fmt: skip


def test_figures_that_no_model_has_are_left_out() -> None:
    bare = KnownModel("a", "b/c", 1.0, 2, "Dutch", "MIT")
    assert "rows/s" not in headings([bare])
    assert cells(bare, headings([bare])) == ("a", "b/c", "1 M", "2", "Dutch", "MIT")
    measured = KnownModel("d", "d", 278.04, 512, "Dutch", "MIT", 1200, 0.8123)
    shown = headings([bare, measured])
    assert shown[-2:] == ("rows/s", "league")
    assert cells(bare, shown)[-2:] == ("–", "–")
    assert cells(measured, shown) == ("d", "bundled", "278 M", "512", "Dutch", "MIT", "1,200", "81.2 %")
