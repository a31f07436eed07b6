"""An ensemble gives the mean of the probabilities of its members."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import command
from models import Pair, make_pair
from test_adapters import LABELS, RUNS, trained
from test_average import place as place
from tolerances import FP32

from loralet import TextClassifier
from loralet.artifacts.artifact import Artifact
from loralet.artifacts.folder import save_artifact
from loralet.config import ComputeOptions, ModelOptions
from loralet.data.tokens import TextTokenizer, Tokens
from loralet.inference.ensemble import load_ensemble
from loralet.models.pooling import HeadKind

FP32_ONLY = ComputeOptions(precision="fp32")
TEXTS = ["a w3 w60 z", "w9", "k l m n o p q r s t u v w x y z a b c d e f g", "w1 w2 w3 w4 w5"]


def loud(pair: Pair, name: str, head: HeadKind = "pooler", seed: int = 0) -> Artifact:
    """An adapter with random tensors, large enough for members to differ in their predictions."""
    _, _, artifact = trained(pair, RUNS[name], head)
    torch.manual_seed(seed)
    noisy = {n: t + 0.1 * torch.randn_like(t) for n, t in artifact.tensors.items()}
    return replace(artifact, tensors={n: t * (20 if n == "classifier.weight" else 1) for n, t in noisy.items()})


@pytest.mark.parametrize("kind", ["seeds", "unlike runs", "unlike backbones", "one"])
def test_the_ensemble_is_the_mean_of_its_members(tmp_path: Path, kind: str) -> None:
    pair = make_pair(tmp_path / "base")
    other = make_pair(tmp_path / "other", seed=3) if kind == "unlike backbones" else pair
    members = {
        "seeds": [loud(pair, "all-linear", seed=seed) for seed in range(3)],
        "unlike runs": [
            loud(pair, "query-value"),
            loud(pair, "rslora", seed=1),
            loud(pair, "all-linear", "mean"),
            loud(pair, "probe"),
        ],
        "unlike backbones": [loud(pair, "query-value"), replace(loud(other, "query-value"), max_length=6)],
        "one": [loud(pair, "query-value")],
    }[kind]
    backward = tuple(reversed(LABELS))
    if kind != "one":  # the last one has the same labels in another order
        last = members[-1]
        turned = {name: t.flip(0) if name.startswith("classifier") else t for name, t in last.tensors.items()}
        members[-1] = replace(last, labels=backward, tensors=turned)
    folders = [tmp_path / str(i) for i in range(len(members))]
    for folder, artifact in zip(folders, members, strict=True):
        save_artifact(folder, artifact, other.ours if artifact.backbone == other.ours.name else pair.ours)
    ensemble = load_ensemble(folders, ModelOptions(), FP32_ONLY)
    assert ensemble.labels == LABELS
    assert len(ensemble.groups) == {"seeds": 1, "unlike runs": 2, "unlike backbones": 2, "one": 1}[kind]
    found = np.array([prediction.probabilities for prediction in ensemble.predict(TEXTS)])
    singles = []
    for folder, artifact in zip(folders, members, strict=True):
        own = TextClassifier.load(folder)
        alone = dict(zip(artifact.labels, own.predict_proba(TEXTS).T, strict=True))
        singles.append(np.stack([alone[label] for label in LABELS], 1))
    assert np.abs(found - np.mean(singles, 0)).max() <= FP32
    if kind != "one":
        assert all(np.abs(found - single).max() > 1e-2 for single in singles)


def test_a_text_is_tokenised_once_per_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from loralet.inference import ensemble as module

    pair = make_pair(tmp_path / "base")
    for i, artifact in enumerate(
        [loud(pair, "query-value"), loud(pair, "all-linear", "mean"), replace(loud(pair, "probe"), max_length=4)]
    ):
        save_artifact(tmp_path / str(i), artifact, pair.ours)
    lengths: list[int] = []
    plain = module.TextTokenizer.encode

    def counted(self: TextTokenizer, texts: Sequence[str]) -> Tokens:
        lengths.append(self.max_length)
        return plain(self, texts)

    monkeypatch.setattr(module.TextTokenizer, "encode", counted)
    folders = [tmp_path / "0", tmp_path / "1", tmp_path / "2"]
    list(load_ensemble(folders, ModelOptions(), FP32_ONLY).predict(TEXTS))
    assert lengths == [16, 4]


def probabilities(place: Path, *arguments: str) -> np.ndarray:
    done = command(place, "predict", *arguments, "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    return np.array([list(json.loads(line)["probabilities"].values()) for line in done.stdout.splitlines()])


RUN_IDS = ["lora-r2-a8-lr0.01-s0", "lora-r4-a8-lr0.01-s1", "probe-s0"]


def test_the_commands_accept_runs_of_a_study_and_other_folders(place: Path) -> None:
    texts = ["a b c", "h i", "p q", "x"]
    alone = [probabilities(place, "grid", *texts, "--run", run) for run in RUN_IDS]
    assert np.abs(probabilities(place, "grid", *texts, "--runs", *RUN_IDS) - np.mean(alone, 0)).max() <= FP32
    assert np.abs(alone[0] - alone[1]).max() > 1e-2
    lone = probabilities(place, "lone", *texts)
    both = probabilities(place, "grid", *texts, "--run", RUN_IDS[0], "--also", "lone", f"grid/adapters/{RUN_IDS[1]}")
    assert np.abs(both - np.mean([alone[0], lone, alone[1]], 0)).max() <= FP32
    said = command(place, "predict", "grid", "a", "--runs", *RUN_IDS[:2], "--format", "jsonl").stderr
    assert f"mean probability of {RUN_IDS[0]}, {RUN_IDS[1]}" in said


def test_evaluate_scores_the_ensemble(place: Path) -> None:
    done = command(place, "evaluate", "grid", "rows.csv", "--runs", *RUN_IDS, "--format", "json")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    rows = [line.rsplit(",", 1) for line in (place / "rows.csv").read_text().splitlines()[1:]]
    values = probabilities(place, "grid", *(text for text, _ in rows), "--runs", *RUN_IDS)
    numbers = np.array([["apple", "bird", "cat"].index(label) for _, label in rows])
    assert scores["accuracy"] == pytest.approx((values.argmax(1) == numbers).mean())
    assert scores["loss"] == pytest.approx(-np.log(values[np.arange(len(rows)), numbers]).mean(), abs=1e-5)
    assert scores["run"] == " + ".join(RUN_IDS)
    refused = command(place, "evaluate", "grid", "--also", "lone")
    assert refused.returncode == 2
    assert "rows.csv has no test split" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", "a", "--runs", "b", "c"], "run and runs are both given"),
        (["--runs", RUN_IDS[0], RUN_IDS[0]], "given twice"),
        (["--runs", RUN_IDS[0], "nothing"], "no trained run 'nothing'"),
        (["--also", "nowhere"], "nowhere: no such folder"),
        (["--also", "odd"], "the labels of these runs differ"),
    ],
)
def test_user_errors_are_one_message(place: Path, arguments: list[str], words: str) -> None:
    if not (place / "odd").exists():
        classifier = TextClassifier(str(place / "model"), rank=2, steps=2, batch_size=4)
        classifier.fit(["a b", "h i", "p q", "x y"] * 3, ["apple", "bird", "dog", "cat"] * 3).save(place / "odd")
    done = command(place, "predict", "grid", "a b", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
