"""The rows that --combine adds say what averages and ensembles made by hand say, and validation chose them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import command
from models import make_pair
from safetensors.numpy import load_file

from loralet import TextClassifier
from loralet.artifacts.folder import load_artifact
from loralet.config import DataOptions
from loralet.inference.ensemble import load_ensemble
from loralet.inference.evaluation import score_logits
from loralet.report.analysis import analyse
from loralet.runs.folder import chosen_run
from loralet.training.corpus import load_corpus

SEEDS = (0, 1, 2)
FLAGS = (
    "--batch-size",
    "16",
    "--targets",
    "all-linear",
    "--precision",
    "fp32",
    "--quiet",
    "--combine",
    "--models",
    "model",
    "--lrs",
    "1e-2",
)
CLOSE = 1e-5
"""Probabilities of merged weights in packs of unlike make-up, fp32."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("combine")
    make_pair(folder / "model")
    words = {"apple": "a b c d", "bird": "h i j k", "cat": "p q r s"}
    generator = np.random.default_rng(0)
    (folder / "data").mkdir()
    for name, count in (("train", 240), ("test", 90)):
        labels = list(words) * (count // 3)
        texts = [
            " ".join(generator.choice([*words[label].split(), *"xyz"], generator.integers(2, 12))) for label in labels
        ]
        lines = [f"{text},{label}" for text, label in zip(texts, labels, strict=True)]
        (folder / "data" / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    grid = ("--ranks", "2", "4", "--alphas", "8", "--seeds", *map(str, SEEDS), "--steps", "40", "--eval-every", "10")
    done = command(folder, "study", "data", *grid, *FLAGS, "--out", "grid")
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def results(place: Path) -> dict[str, Any]:
    return json.loads((place / "grid" / "results.json").read_text())  # type: ignore[no-any-return]


def row_of(results: dict[str, Any], role: str) -> dict[str, Any]:
    (row,) = [run for run in results["runs"] if run["role"] == role]
    return row


def groups() -> list[list[str]]:
    return [[f"lora-r{rank}-a8-lr0.01-s{seed}" for seed in SEEDS] for rank in (2, 4)]


def test_one_row_of_each_role_comes_last(place: Path, results: dict[str, Any]) -> None:
    assert [run["role"] for run in results["runs"]][-2:] == ["average", "ensemble"]
    for role in ("average", "ensemble"):
        row = row_of(results, role)
        assert row["id"] == role
        assert row["validation"]
        assert row["test"]
        assert all(row[name] is None for name in ("rank", "alpha", "seed", "steps", "converged_step", "learning_rate"))
        assert f"{role}: {', '.join(row['members'])}" in (place / "said.txt").read_text()
        own = [run for run in results["runs"] if run["id"] in row["members"]]
        assert len(own) == 3
        assert row["train_seconds"] == pytest.approx(sum(run["train_seconds"] for run in own))
    assert all(run["members"] is None for run in results["runs"][:-2])
    members = row_of(results, "ensemble")["members"]
    assert row_of(results, "ensemble")["trainable_parameters"] == sum(
        r["trainable_parameters"] for r in results["runs"] if r["id"] in members
    )
    assert results["test_reads"] == 1


def test_the_average_is_the_commands_and_the_best_of_them(place: Path, results: dict[str, Any]) -> None:
    row = row_of(results, "average")
    scores: dict[tuple[str, ...], float] = {}
    for i, runs in enumerate(groups()):
        done = command(place, "average", "grid", "--runs", *runs, "--out", f"by-hand-{i}")
        assert done.returncode == 0, done.stderr
        made = load_artifact(place / f"by-hand-{i}")
        scores[tuple(runs)] = made.metrics["validation"]["accuracy"] - made.metrics["validation"]["loss"] * 1e-6
    assert tuple(row["members"]) == max(scores, key=lambda runs: scores[runs])
    assert len(set(scores.values())) == 2
    mine = load_artifact(place / "grid" / "adapters" / "average")
    assert mine.training["averaged_from"] == row["members"]
    assert mine.metrics["validation"]["accuracy"] == row["validation"]["accuracy"]
    assert mine.metrics["test"]["accuracy"] == row["test"]["accuracy"]
    by_hand = load_artifact(place / f"by-hand-{groups().index(row['members'])}")
    assert all(by_hand.tensors[name].equal(tensor) for name, tensor in mine.tensors.items())
    predicted = load_file(place / "grid" / "predictions.safetensors")
    texts = [line.split(",")[0] for line in (place / "data" / "test.csv").read_text().splitlines()[1:]]
    alone = TextClassifier.load(place / "grid" / "adapters" / "average", backbone=str(place / "model")).predict_proba(
        texts
    )
    assert np.abs(predicted["average"] - alone).max() <= CLOSE


def test_the_ensemble_is_the_mean_of_its_members_and_the_best(place: Path, results: dict[str, Any]) -> None:
    row, predicted = row_of(results, "ensemble"), load_file(place / "grid" / "predictions.safetensors")
    mean = np.mean([predicted[member] for member in row["members"]], 0)
    assert np.abs(predicted["ensemble"] - mean).max() <= 1e-6
    labels = predicted["labels"]
    assert row["test"]["accuracy"] == pytest.approx((mean.argmax(1) == labels).mean())
    assert row["test"]["loss"] == pytest.approx(-np.log(mean[np.arange(len(labels)), labels]).mean(), abs=1e-5)
    ranked = sorted(
        (r for r in results["runs"] if r["role"] == "lora"),
        key=lambda r: (r["validation"]["accuracy"], -r["validation"]["loss"]),
    )
    candidates = [*groups(), [run["id"] for run in ranked[::-1][:3]]]
    validation = load_corpus(str(place / "data"), DataOptions(), 512).validation
    found: dict[tuple[str, ...], tuple[float, float]] = {}
    for members in candidates:
        ensemble = load_ensemble([place / "grid" / "adapters" / run for run in members], backbone=str(place / "model"))
        scores = score_logits(ensemble.log_probabilities(validation.texts), validation.labels)
        assert scores.loss
        found[tuple(members)] = (scores.accuracy, -scores.loss)
    assert tuple(row["members"]) == max(found, key=lambda members: found[members])
    assert len(set(found.values())) > 1
    assert row["validation"]["accuracy"] == max(found.values())[0]


def test_the_commands_go_on_to_use_a_single_run(place: Path, results: dict[str, Any]) -> None:
    chosen = chosen_run(results)
    assert chosen["role"] == "lora"
    texts = ["a b c", "x"]
    assert f"using {chosen['id']}" in command(place, "predict", "grid", *texts, "--format", "jsonl").stderr
    plain = command(place, "predict", "grid", *texts, "--format", "jsonl").stdout
    averaged = command(place, "predict", "grid", *texts, "--format", "jsonl", "--run", "average")
    assert averaged.returncode == 0, averaged.stderr
    assert averaged.stdout != plain
    assert "average of seeds" in command(place, "show", "grid").stdout


def test_the_report_compares_them_with_the_best_single_run(place: Path, results: dict[str, Any]) -> None:
    configurations = analyse(place / "grid").configurations
    best = next(row for row in configurations if row.winner)
    rows = {row.role: row for row in configurations}
    for role, name in (("average", "average of seeds"), ("ensemble", "ensemble")):
        row = rows[role]
        assert row.name == name
        assert row.versus
        assert row.test
        assert best.test
        assert row.versus.difference == pytest.approx(best.test.mean - row.test.mean)
        assert not row.winner
    assert command(place, "report", "grid").returncode == 0
    assert "average of seeds" in (place / "grid" / "report.md").read_text()


@pytest.mark.parametrize(
    ("flags", "roles"),
    [
        (("--ranks", "2", "--alphas", "8", "--seeds", "0"), []),
        (("--ranks", "2", "4", "--alphas", "8", "16", "--seeds", "0"), ["ensemble"]),
        (("--ranks", "2", "4", "--alphas", "8", "16", "--seeds", "0", "--halving"), []),  # a halved run is not taken in
    ],
)
def test_what_cannot_be_made_is_left_out(place: Path, tmp_path: Path, flags: tuple[str, ...], roles: list[str]) -> None:
    done = command(
        place, "study", "data", *flags, "--steps", "24", "--eval-every", "6", *FLAGS, "--out", str(tmp_path / "few")
    )
    assert done.returncode == 0, done.stderr
    runs = json.loads((tmp_path / "few" / "results.json").read_text())["runs"]
    assert [run["role"] for run in runs if run["role"] in ("average", "ensemble")] == roles
    said = "nothing to combine" in (tmp_path / "few" / "metrics.jsonl").read_text()
    assert said == (not roles)
