"""Adapter methods and their options on the command line and in Python: studies, single runs, and records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import command
from models import make_pair
from test_cli import WORDS, write_rows

from loralet import TextClassifier
from loralet.artifacts.folder import load_artifact
from loralet.backends.info import VARIABLE
from loralet.config import StudyConfig, TrainConfig
from loralet.errors import ConfigError
from loralet.report.analysis import analyse
from loralet.runs.environment import read_environment
from loralet.runs.results import read_results
from loralet.runs.sources import read_config

FLAGS = (
    "--models",
    "model",
    "--alphas",
    "8",
    "--lrs",
    "1e-2",
    "--steps",
    "30",
    "--batch-size",
    "16",
    "--eval-every",
    "10",
    "--precision",
    "fp32",
    "--hybrid",
    "off",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("methods")
    make_pair(folder / "model")
    (folder / "data").mkdir()
    write_rows(folder / "data" / "train.csv", 150, 0)
    write_rows(folder / "data" / "test.csv", 60, 1)
    return folder


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture(scope="module")
def grid(place: Path) -> Path:
    arguments = ("--method", "dora", "--ranks", "2", "4", "--seeds", "0", "1", "--combine", "--out", "grid")
    done = command(place, "study", "data", "--no-default", *FLAGS, *arguments)
    assert done.returncode == 0, done.stderr
    return place / "grid"


def test_a_study_of_dora(place: Path, grid: Path) -> None:
    results = read_results(grid)
    rows = [run for run in results.runs if run.role == "lora"]
    assert [run.id for run in rows] == [f"dora-r{r}-a8-lr0.01-s{s}" for s in (0, 1) for r in (2, 4)]
    for run in rows:
        assert run.adapter
        assert run.adapter.method == "dora"
        # query and value of two layers, width 32, with 32 magnitudes each; the head has 3 x 32 + 3 parameters
        assert run.trainable_parameters == 4 * (run.adapter.rank * 64 + 32) + 99
        saved = load_artifact(grid / "adapters" / run.id)
        assert sum(tensor.numel() for tensor in saved.tensors.values()) == run.trainable_parameters
    assert "DoRA  " in command(place, "show", "grid").stdout


def test_seeds_of_dora_are_combined_to_an_ensemble_and_not_averaged(place: Path, grid: Path) -> None:
    assert [run.role for run in read_results(grid).runs][-1:] == ["ensemble"]
    assert "average" not in {run.role for run in read_results(grid).runs}
    assert "DoRA adapters cannot be averaged" in (grid / "metrics.jsonl").read_text()
    done = command(place, "average", "grid", "--out", "mean")
    assert done.returncode == 2
    assert "DoRA adapters cannot be averaged" in done.stderr
    assert not (place / "mean").exists()


def test_the_report_names_the_method_and_counts_its_parameters(grid: Path) -> None:
    report = analyse(grid, with_texts=False)
    assert report.question.startswith("How accurate is DoRA on model, and how does rank affect")
    rows = [row for row in report.configurations if row.role == "lora"]
    assert [row.counted for row in rows] == [True, True]
    assert not any("LoRA" in sentence for sentence in (*report.answer, *report.findings, *report.recommendations))


def test_torch_computes_dora_and_the_reason_is_recorded(place: Path, grid: Path) -> None:
    backends = [entry.backend for entry in read_environment(grid).backends]
    if torch.cuda.is_available() or backends[0].name == "torch":
        return
    assert [(info.name, info.reason.rpartition(": ")[2]) for info in backends] == [
        ("native", ""),
        ("torch", "it does not know the adapter method dora"),
    ]
    refused = command(
        place, "study", "data", "--no-default", *FLAGS, "--method", "dora", "--backend", "native", "--out", "never"
    )
    assert refused.returncode == 2
    assert "--backend native: the native backend cannot be used: it does not know the adapter method dora" in (
        " ".join(refused.stderr.split())
    )
    assert not (place / "never").exists()


def test_a_study_of_two_methods_trains_each_as_in_a_separate_study(place: Path, grid: Path) -> None:
    arguments = (
        "--methods",
        "lora",
        "dora",
        "--ranks",
        "2",
        "--seeds",
        "0",
        "--precision",
        "fp32",
        "--backend",
        "torch",
    )
    done = command(place, "study", "data", "--no-default", *FLAGS, *arguments, "--out", "both")
    assert done.returncode == 0, done.stderr
    alone = command(
        place, "study", "data", "--no-default", *FLAGS, *arguments[3:], "--method", "dora", "--out", "alone"
    )
    assert alone.returncode == 0, alone.stderr
    name = "dora-r2-a8-lr0.01-s0"
    ours, own = (load_artifact(place / folder / "adapters" / name).tensors for folder in ("both", "alone"))
    assert all((ours[slot] - own[slot]).abs().max() <= 1e-5 for slot in own)
    report = analyse(place / "both", with_texts=False)
    assert {row.name for row in report.configurations if row.role == "lora"} == {"r2 α8 lora", "r2 α8 dora"}
    assert report.question == "How accurate are LoRA and DoRA on model?"


def test_dora_in_python(place: Path, tmp_path: Path) -> None:
    texts = [" ".join(word) for word in zip(*(WORDS["apple"].split(), "xyzx"), strict=True)] * 6
    texts += [" ".join(word) for word in zip(*(WORDS["bird"].split(), "xyzx"), strict=True)] * 6
    labels = ["apple"] * 24 + ["bird"] * 24
    options = {"rank": 2, "alpha": 8.0, "lr": 1e-2, "steps": 20, "precision": "fp32"}
    classifier = TextClassifier(str(place / "model"), method="dora", **options).fit(texts, labels)
    classifier.save(tmp_path / "adapter")
    loaded = TextClassifier.load(tmp_path / "adapter")
    assert loaded.method == "dora"
    assert (loaded.predict_proba(texts) == classifier.predict_proba(texts)).all()
    plain = TextClassifier(str(place / "model"), backend="torch", **options).fit(texts, labels)
    assert abs(classifier.predict_proba(texts) - plain.predict_proba(texts)).max() > 1e-4


RATIOS = ("--ranks", "2", "--lr-ratios", "1", "16", "--seeds", "0", "1", "--out", "ratios")


@pytest.fixture(scope="module")
def ratios(place: Path) -> Path:
    done = command(place, "study", "data", "--no-default", *FLAGS, *RATIOS)
    assert done.returncode == 0, done.stderr
    return place / "ratios"


def test_the_learning_rate_ratio_is_recorded_and_distinguishes_configurations(ratios: Path) -> None:
    results = read_results(ratios)
    assert {run.id: run.lr_ratio for run in results.runs if run.trained} == {
        **{f"probe-s{s}": 1.0 for s in (0, 1)},
        **{f"lora-r2-a8-lr0.01-ratio{r}-s{s}": float(r) for r in (1, 16) for s in (0, 1)},
    }
    assert all(run.lr_ratio is None for run in results.runs if not run.trained)
    config = read_config(ratios, "study")
    assert isinstance(config, StudyConfig)
    assert config.grid.lr_ratios == (1.0, 16.0)
    for run in results.runs:
        if run.trained:
            assert load_artifact(ratios / "adapters" / run.id).provenance.lr_ratio == run.lr_ratio
    card = (ratios / "adapters" / "lora-r2-a8-lr0.01-ratio16-s0" / "README.md").read_text()
    assert "| lr ratio | 16.0 |" in card

    report = analyse(ratios, with_texts=False)
    rows = {row.name: row for row in report.configurations if row.role == "lora"}
    assert list(rows) == ["r2 α8 lr ratio 1", "r2 α8 lr ratio 16"]
    assert [row.seeds for row in rows.values()] == [(0, 1), (0, 1)]
    assert [grid.title for grid in report.grids] == ["model, lr 0.01, lr ratio 1", "model, lr 0.01, lr ratio 16"]
    assert "how does learning-rate ratio affect" in report.question
    assert any(line.startswith("Learning-rate ratio of B to A: ") for line in report.recommendations)


def test_a_single_run_matches_the_run_of_the_study(place: Path, ratios: Path) -> None:
    train = (
        "train",
        "data",
        "--model",
        "model",
        "--rank",
        "2",
        "--alpha",
        "8",
        "--lr",
        "1e-2",
        "--targets",
        "query",
        "value",
    )
    for ratio in ("16", "1"):
        arguments = (*train, *FLAGS[6:], "--lr-ratio", ratio, "--folds", "0", "--out", f"alone-{ratio}")
        assert command(place, *arguments).returncode == 0
        run = read_results(place / f"alone-{ratio}").runs[-1]
        assert (run.id, run.lr_ratio) == ("lora-r2-a8-lr0.01-s0", float(ratio))
        alone = load_artifact(place / f"alone-{ratio}" / "adapters" / run.id)
        studied = load_artifact(ratios / "adapters" / f"lora-r2-a8-lr0.01-ratio{ratio}-s0")
        apart = max(float((alone.tensors[n] - studied.tensors[n]).abs().max()) for n in alone.tensors)
        moved = max(float(t.abs().max()) for n, t in alone.tensors.items() if n.endswith(".B"))
        assert apart < 1e-3 * moved, (apart, moved)
    config = read_config(place / "alone-16", "train")
    assert isinstance(config, TrainConfig)
    assert config.lr_ratio == 16.0


@pytest.mark.parametrize("value", ["0", "-1", "inf", "nan"])
def test_an_invalid_ratio_is_reported(place: Path, value: str) -> None:
    for kind, flag in (("train", "--lr-ratio"), ("study", "--lr-ratios")):
        done = command(place, kind, "data", flag, value, "--out", "never")
        assert done.returncode == 2
        assert f"{flag[2:].replace('-', '_')} is {float(value)}: it must be above 0 and at most 1e+30" in done.stderr
    assert not (place / "never").exists()


def test_the_ratio_in_python(place: Path, tmp_path: Path) -> None:
    texts = [" ".join(word) for word in zip(*(WORDS["apple"].split(), "xyzx"), strict=True)] * 6
    texts += [" ".join(word) for word in zip(*(WORDS["bird"].split(), "xyzx"), strict=True)] * 6
    labels = ["apple"] * 24 + ["bird"] * 24
    options = {"rank": 2, "alpha": 8.0, "lr": 1e-2, "steps": 20, "precision": "fp32"}
    scaled, plain = (
        TextClassifier(str(place / "model"), lr_ratio=ratio, **options).fit(texts, labels) for ratio in (16, 1.0)
    )
    assert abs(scaled.predict_proba(texts) - plain.predict_proba(texts)).max() > 1e-3
    scaled.save(tmp_path / "adapter")
    assert TextClassifier.load(tmp_path / "adapter").lr_ratio == 16.0
    path = tmp_path / "adapter" / "loralet.json"
    described = json.loads(path.read_text())
    assert described["provenance"].pop("lr_ratio") == 16.0
    path.write_text(json.dumps(described))
    assert TextClassifier.load(tmp_path / "adapter").lr_ratio == 1.0
    with pytest.raises(ConfigError, match=r"lr_ratio is 0\.0: it must be above 0 and at most"):
        TextClassifier(str(place / "model"), lr_ratio=0.0).fit(texts, labels)
