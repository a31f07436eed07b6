"""The average of adapters equals the mean of the weights that PEFT merges from each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import command
from models import CLASSES, Pair, make_pair
from peft import PeftModel
from programs import run_of
from test_adapters import RUNS, trained
from transformers import BertForSequenceClassification

from loralet import TextClassifier
from loralet.adapters.spec import Scaling
from loralet.artifacts.artifact import Artifact
from loralet.artifacts.average import average
from loralet.artifacts.folder import load_artifact, save_artifact
from loralet.errors import RunError
from loralet.models.pooling import HeadKind, Pooling
from loralet.runs.results import read_results
from loralet.runs.selection import chosen_seeds

MERGED = 1e-6
"""fp32 sums of a few products in different order, on weights of size 0.1."""


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path / "base")


def member(
    pair: Pair, seed: int, rank: int = 4, alpha: float = 16.0, scaling: Scaling = "alpha/r", head: HeadKind = "pooler"
) -> Artifact:
    """An adapter with random tensors."""
    run = run_of(seed=seed, rank=rank, alpha=alpha, targets=("query", "output"), scaling=scaling)
    _, _, artifact = trained(pair, run, head)
    torch.manual_seed(100 + seed)
    return replace(artifact, tensors={name: t + 0.05 * torch.randn_like(t) for name, t in artifact.tensors.items()})


def merged_by_peft(pair: Pair, folder: Path) -> dict[str, torch.Tensor]:
    base = BertForSequenceClassification.from_pretrained(pair.folder, num_labels=CLASSES)
    merged: Any = PeftModel.from_pretrained(base, folder).merge_and_unload()
    return {name: tensor.clone() for name, tensor in merged.state_dict().items()}


CASES: dict[str, list[dict[str, Any]]] = {
    "seeds": [{}, {}, {}],
    "two": [{"alpha": 7.5}, {"alpha": 7.5}],
    "unlike": [{}, {"rank": 2, "alpha": 3.0}, {"rank": 8, "scaling": "rslora"}],
    "rslora": [{"scaling": "rslora"}, {"scaling": "rslora"}],
    "pooler": [{"head": "trained-pooler"}, {"head": "trained-pooler"}],
}


@pytest.mark.parametrize("name", CASES)
def test_the_average_equals_the_mean_of_weights_merged_by_peft(pair: Pair, tmp_path: Path, name: str) -> None:
    members = [member(pair, seed, **options) for seed, options in enumerate(CASES[name])]
    for i, artifact in enumerate(members):
        save_artifact(tmp_path / str(i), artifact, pair.ours)
    made = average({str(i): artifact for i, artifact in enumerate(members)}, "made")
    save_artifact(tmp_path / "made", made, pair.ours)
    singles = [merged_by_peft(pair, tmp_path / str(i)) for i in range(len(members))]
    found = merged_by_peft(pair, tmp_path / "made")
    for key, tensor in found.items():
        wanted = torch.stack([single[key] for single in singles]).mean(0)
        assert (tensor - wanted).abs().max() <= MERGED, key
    query = "bert.encoder.layer.0.attention.self.query.weight"
    assert all((found[query] - single[query]).abs().max() > 1e-3 for single in singles)
    a, b = (
        torch.stack(
            [
                m.tensors[f"layers.0.query.{x}"][:2] if x == "A" else m.tensors["layers.0.query.B"][:, :2]
                for m in members
            ]
        )
        for x in "AB"
    )
    assert (b.mean(0) @ a.mean(0) - (b @ a).mean(0)).abs().max() > 1e-3  # the mean of factors differs
    assert made.adapter.rank == sum(m.adapter.rank for m in members)


def test_averaged_seeds_keep_alpha_and_factors(pair: Pair) -> None:
    members = [member(pair, seed) for seed in range(3)]
    made = average(dict(zip("abc", members, strict=True)), "made")
    assert (made.adapter.rank, made.adapter.alpha, made.adapter.scaling) == (12, 16.0, "alpha/r")
    assert made.tensors["layers.1.output.B"][:, 4:8].equal(members[1].tensors["layers.1.output.B"])
    assert made.tensors["layers.1.output.A"][8:].equal(members[2].tensors["layers.1.output.A"])
    assert made.provenance.averaged_from == tuple(m.id for m in members)


def test_an_average_of_different_ratios_has_no_ratio(pair: Pair) -> None:
    def with_ratio(seed: int, ratio: float) -> Artifact:
        found = member(pair, seed)
        return replace(found, provenance=replace(found.provenance, lr_ratio=ratio))

    assert average({"a": with_ratio(0, 8.0), "b": with_ratio(1, 16.0)}, "made").provenance.lr_ratio is None
    assert average({"a": with_ratio(0, 8.0), "b": with_ratio(1, 8.0)}, "made").provenance.lr_ratio == 8.0


def test_probes_average_their_heads(pair: Pair) -> None:
    _, _, probe = trained(pair, RUNS["probe"], "pooler")
    other = replace(probe, tensors={name: tensor * 3 for name, tensor in probe.tensors.items()})
    made = average({"a": probe, "b": other}, "made")
    assert made.adapter.rank == 0
    assert made.tensors["classifier.weight"].allclose(probe.tensors["classifier.weight"] * 2)


def test_all_differences_are_listed(pair: Pair) -> None:
    first = member(pair, 0)
    odd = replace(
        first,
        labels=tuple(reversed(first.labels)),
        head="mean",
        pooling=Pooling("relu"),
        max_length=8,
        adapter=replace(first.adapter, targets=("query",)),
        backbone_fingerprint="f" * 64,
        backbone="other",
    )
    with pytest.raises(RunError) as caught:
        average({"a": first, "b": odd, "c": first}, "made")
    lines = str(caught.value).splitlines()
    assert lines[0] == "these adapters cannot be averaged:"
    assert [line.split(":")[0].strip(" -") for line in lines[1:]] == [
        "backbone",
        "labels",
        "head",
        "pooler",
        "max length",
        "targets",
    ]
    assert "b has other (fingerprint ffffffffffff)" in lines[1]
    assert "a has World, Sports, Business, Sci/Tech, b has Sci/Tech" in lines[2]
    _, _, full = trained(pair, RUNS["full"], "pooler")
    with pytest.raises(RunError, match="b is a fully fine-tuned model, which has no adapter"):
        average({"a": first, "b": full}, "made")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two seeds and a single run on other data, trained by the command line."""
    folder = tmp_path_factory.mktemp("average")
    make_pair(folder / "model")
    words = {"apple": "a b c d", "bird": "h i j k", "cat": "p q r s"}
    generator = np.random.default_rng(0)
    rows = [
        " ".join(generator.choice([*words[label].split(), *"xyz"], generator.integers(2, 12)))
        for label in list(words) * 60
    ]
    for name, count in (("rows", 180), ("fewer", 90)):
        lines = [f"{text},{label}" for text, label in zip(rows[:count], list(words) * (count // 3), strict=True)]
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    flags = ["--steps", "30", "--batch-size", "16", "--targets", "all-linear", "--precision", "fp32", "--quiet"]
    grid = ["--models", "model", "--ranks", "2", "4", "--alphas", "8", "--lrs", "1e-2", "--seeds", "0", "1"]
    assert command(folder, "study", "rows.csv", "--no-default", *grid, *flags, "--out", "grid").returncode == 0
    lone = ["--model", "model", "--rank", "2", "--alpha", "8", "--lr", "1e-2", "--seed", "5"]
    assert command(folder, "train", "fewer.csv", *lone, *flags, "--out", "lone").returncode == 0
    return folder


def test_a_study_averages_the_seeds_of_its_best_configuration(place: Path) -> None:
    results = read_results(place / "grid")
    seeds = chosen_seeds(results)
    by_rank: dict[int, list[tuple[float, float]]] = {2: [], 4: []}
    for run in results.runs:
        if run.role == "lora":
            assert run.adapter
            assert run.validation
            assert run.validation.loss
            by_rank[run.adapter.rank].append((run.validation["accuracy"], -run.validation.loss))
    best = max(by_rank, key=lambda rank: np.mean(by_rank[rank], 0).tolist())
    assert seeds == [f"lora-r{best}-a8-lr0.01-s{seed}" for seed in (0, 1)]
    done = command(place, "average", "grid", "--out", "seeds")
    assert done.returncode == 0, done.stderr
    made = load_artifact(place / "seeds")
    assert (made.adapter.rank, made.adapter.alpha, made.id) == (2 * best, 8.0, "seeds")
    assert made.provenance.averaged_from == tuple(seeds)
    accuracy = made.metrics["validation"].scores["accuracy"]
    assert f"seeds                            rank {2 * best}    validation accuracy {accuracy:.4f}" in done.stdout
    card = (place / "seeds" / "README.md").read_text()
    assert "A mean of 2 LoRA adapters on model" in card
    assert f"| averaged from | {', '.join(seeds)} |" in card
    named = command(place, "average", "grid", "--runs", *seeds, "--out", "named")
    assert named.returncode == 0, named.stderr
    again = load_artifact(place / "named")
    assert all(again.tensors[name].equal(tensor) for name, tensor in made.tensors.items())


def test_runs_that_stopped_early_are_not_averaged(place: Path) -> None:
    results = read_results(place / "grid")
    best = chosen_seeds(results)
    runs = [replace(run, status="halved" if run.id == best[0] else run.status) for run in results.runs]
    others = [f"lora-r{6 - int(best[0][6])}-a8-lr0.01-s{seed}" for seed in (0, 1)]
    assert chosen_seeds(replace(results, runs=tuple(runs))) == others  # that of the other rank
    runs = [replace(run, status="diverged") for run in results.runs]
    with pytest.raises(RunError, match="with two seeds"):
        chosen_seeds(replace(results, runs=tuple(runs)))


def test_the_average_is_an_ordinary_adapter(place: Path) -> None:
    assert command(place, "average", "grid", "lone", "--out", "made").returncode == 0
    made = load_artifact(place / "made")
    assert (made.data_fingerprint, made.metrics) == ("", {})  # the runs have different data, so there are no scores
    texts = ["a b c", "h i", "p q", "x"]
    predicted = command(place, "predict", "made", *texts, "--format", "jsonl")
    assert predicted.returncode == 0, predicted.stderr
    rows = [list(json.loads(line)["probabilities"].values()) for line in predicted.stdout.splitlines()]
    base = str(place / "model")
    assert np.abs(np.array(rows) - TextClassifier.load(place / "made", backbone=base).predict_proba(texts)).max() < 1e-6
    assert command(place, "evaluate", "made", "rows.csv").returncode == 0
    assert command(place, "export", "made", "--out", "bundle").returncode == 0
    bundled = command(place, "predict", "bundle", *texts, "--format", "jsonl")
    assert [json.loads(line)["label"] for line in bundled.stdout.splitlines()] == [
        json.loads(line)["label"] for line in predicted.stdout.splitlines()
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no runs given"),
        (["lone"], "lone is one run, but an average needs at least two"),
        (["lone", "lone"], "given twice"),
        (["grid", "lone", "--runs", "a", "b"], "runs needs exactly one study folder, but 2 folders are given"),
        (["grid", "--runs", "probe-s0"], "an average needs at least two"),
        (["grid", "--runs", "probe-s0", "nothing"], "no trained run 'nothing'"),
        (["grid", "--runs", "probe-s0", "lora-r2-a8-lr0.01-s0"], "kind: grid/adapters/probe-s0 has linear-probe"),
        (["grid", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_user_errors_are_reported_and_leave_no_files(place: Path, arguments: list[str], words: str) -> None:
    done = command(place, "average", *arguments, "--out", "new")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "new").exists()
