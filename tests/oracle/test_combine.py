"""Rows added by --combine equal averages and ensembles made by hand, and are chosen on validation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import command
from models import make_pair
from safetensors.numpy import load_file

from loralet import TextClassifier
from loralet.artifacts.folder import load_artifact
from loralet.config import BackboneOptions, ComputeOptions, DataOptions, ModelOptions
from loralet.inference.ensemble import load_ensemble
from loralet.report.analysis import analyse
from loralet.runs.results import Results, RunResult, read_results
from loralet.runs.run import Role
from loralet.runs.selection import chosen_run, rank_of_run
from loralet.training.corpus import load_corpus

# Long trainings, most of whose lines other tests cover too; measuring them takes half as long again.
pytestmark = pytest.mark.no_cover

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
    "--hybrid",
    "off",
    "--models",
    "model",
    "--lrs",
    "1e-2",
)
CLOSE = 1e-5
"""Probabilities of merged weights in packs of different composition, fp32."""


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
    done = command(folder, "study", "data", "--no-default", *grid, *FLAGS, "--out", "grid")
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def results(place: Path) -> Results:
    return read_results(place / "grid")


def row_of(results: Results, role: Role) -> RunResult:
    (row,) = [run for run in results.runs if run.role == role]
    return row


def groups() -> list[tuple[str, ...]]:
    return [tuple(f"lora-r{rank}-a8-lr0.01-s{seed}" for seed in SEEDS) for rank in (2, 4)]


def test_one_row_per_role_is_added_at_the_end(place: Path, results: Results) -> None:
    assert [run.role for run in results.runs][-2:] == ["average", "ensemble"]
    roles: tuple[Role, ...] = ("average", "ensemble")
    for role in roles:
        row = row_of(results, role)
        assert row.id == role
        assert row.validation
        assert row.test
        assert all(getattr(row, name) is None for name in ("seed", "steps", "converged_step", "learning_rate"))
        assert row.members
        assert f"{role}: {', '.join(row.members)}" in (place / "said.txt").read_text()
        own = [run for run in results.runs if run.id in row.members]
        assert len(own) == 3
        assert row.train_seconds == pytest.approx(sum(run.train_seconds or 0 for run in own))
    assert all(run.members is None for run in results.runs[:-2])
    ensemble, average = row_of(results, "ensemble"), row_of(results, "average")
    assert ensemble.adapter is None
    assert ensemble.members
    counts = [run.trainable_parameters for run in results.runs if run.id in ensemble.members]
    assert ensemble.trainable_parameters == sum(counts)
    assert average.adapter
    assert average.members in groups()
    assert average.adapter.rank == 3 * (2, 4)[groups().index(average.members)]
    assert results.test_reads == 1


def test_the_average_equals_the_command_and_is_the_best_one(place: Path, results: Results) -> None:
    row = row_of(results, "average")
    ranks: dict[tuple[str, ...], tuple[float, float]] = {}
    for i, runs in enumerate(groups()):
        done = command(place, "average", "grid", "--runs", *runs, "--out", f"by-hand-{i}")
        assert done.returncode == 0, done.stderr
        scores = load_artifact(place / f"by-hand-{i}").metrics["validation"].scores
        assert scores.loss
        ranks[runs] = (scores["accuracy"], -scores.loss)
    assert row.members == max(ranks, key=lambda runs: ranks[runs])
    assert len(set(ranks.values())) == 2
    mine = load_artifact(place / "grid" / "adapters" / "average")
    assert mine.provenance.averaged_from == row.members
    assert row.validation
    assert row.test
    assert mine.metrics["validation"].scores["accuracy"] == row.validation["accuracy"]
    assert mine.metrics["test"].scores["accuracy"] == row.test["accuracy"]
    assert mine.adapter == row.adapter
    by_hand = load_artifact(place / f"by-hand-{groups().index(row.members)}")
    assert all(by_hand.tensors[name].equal(tensor) for name, tensor in mine.tensors.items())
    predicted = load_file(place / "grid" / "predictions.safetensors")
    texts = [line.split(",")[0] for line in (place / "data" / "test.csv").read_text().splitlines()[1:]]
    average = TextClassifier.load(place / "grid" / "adapters" / "average", backbone=str(place / "model"))
    assert np.abs(predicted["average"] - average.predict_proba(texts)).max() <= CLOSE


def test_the_ensemble_is_the_mean_of_its_members_and_the_best_one(place: Path, results: Results) -> None:
    row, predicted = row_of(results, "ensemble"), load_file(place / "grid" / "predictions.safetensors")
    assert row.members
    assert row.validation
    assert row.test
    mean = np.mean([predicted[member] for member in row.members], 0)
    assert np.abs(predicted["ensemble"] - mean).max() <= 1e-6
    labels = predicted["labels"]
    assert row.test["accuracy"] == pytest.approx((mean.argmax(1) == labels).mean())
    assert row.test.loss == pytest.approx(-np.log(mean[np.arange(len(labels)), labels]).mean(), abs=1e-5)
    trained = [run for run in results.runs if run.role == "lora"]
    ranked = sorted(trained, key=lambda run: rank_of_run(run, "accuracy"), reverse=True)
    candidates = [*groups(), tuple(run.id for run in ranked[:3])]
    validation = load_corpus(str(place / "data"), DataOptions(), 512).validation
    options = ModelOptions(BackboneOptions(str(place / "model")))
    found: dict[tuple[str, ...], tuple[float, float]] = {}
    for members in candidates:
        folders = [place / "grid" / "adapters" / run for run in members]
        ensemble = load_ensemble(folders, options, ComputeOptions(precision="fp32"))
        scores = ensemble.task.score(ensemble.logits(validation.texts), validation.targets)
        assert scores.loss
        found[members] = (scores["accuracy"], -scores.loss)
    assert row.members == max(found, key=lambda members: found[members])
    assert len(set(found.values())) > 1
    assert row.validation["accuracy"] == max(found.values())[0]


def test_the_commands_still_use_a_single_run(place: Path, results: Results) -> None:
    chosen = chosen_run(results)
    assert chosen.role == "lora"
    texts = ["a b c", "x"]
    assert f"using {chosen.id}" in command(place, "predict", "grid", *texts, "--format", "jsonl").stderr
    plain = command(place, "predict", "grid", *texts, "--format", "jsonl").stdout
    averaged = command(place, "predict", "grid", *texts, "--format", "jsonl", "--run", "average")
    assert averaged.returncode == 0, averaged.stderr
    assert averaged.stdout != plain
    assert "average of seeds" in command(place, "show", "grid").stdout


def test_the_report_compares_them_with_the_best_single_run(place: Path, results: Results) -> None:
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
        (("--ranks", "2", "4", "--alphas", "8", "16", "--seeds", "0", "--halving"), []),  # a halved run is not included
    ],
)
def test_impossible_combinations_are_skipped(
    place: Path, tmp_path: Path, flags: tuple[str, ...], roles: list[str]
) -> None:
    done = command(
        place,
        "study",
        "data",
        "--no-default",
        *flags,
        "--steps",
        "24",
        "--eval-every",
        "6",
        *FLAGS,
        "--out",
        str(tmp_path / "few"),
    )
    assert done.returncode == 0, done.stderr
    runs = json.loads((tmp_path / "few" / "results.json").read_text())["runs"]
    assert [run["role"] for run in runs if run["role"] in ("average", "ensemble")] == roles
    said = "nothing to combine" in (tmp_path / "few" / "metrics.jsonl").read_text()
    assert said == (not roles)
