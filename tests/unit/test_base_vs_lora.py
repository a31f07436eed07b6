"""The base-vs-lora study end to end: two processes, a hub on 127.0.0.1, preset and report."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import WORDS, google, prajjwal
from loopback_hub import LoopbackHub

GOOGLE, PRAJJWAL = "google/bert_uncased_L-2_H-128_A-2", "prajjwal1/bert-tiny"
LABELS = ("Business", "Sports")
OWN = {"Business": ("stock", "stocks", "market", "oil", "price"), "Sports": ("team", "wins", "game", "play", "world")}


def write_news(folder: Path) -> None:
    """Rows of words of the vocabulary. Each label has its own words."""
    folder.mkdir()
    for seed, (name, count) in enumerate((("train", 120), ("test", 60))):
        generator = np.random.default_rng(seed)
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            labels = [LABELS[i % 2] for i in range(count)]
            texts = [" ".join(generator.choice([*OWN[label], *WORDS[:1], "new", "2004"], 8)) for label in labels]
            csv.writer(file).writerows([("text", "label"), *zip(texts, labels, strict=True)])


def loralet(place: Path, hub: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a new process without our variables, because the hub client reads them on import."""
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING")) and not k.lower().endswith("_proxy")
    }
    environment |= {
        "HF_ENDPOINT": hub,
        "HF_HOME": str(place / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    environment |= {"OMP_NUM_THREADS": "1", "LORALET_CACHE": str(place / "cache")}
    command = [sys.executable, "-W", "error", "-m", "loralet", *arguments]
    return subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True, timeout=300, check=False)


def study(place: Path, seed: int) -> tuple[dict[str, Any], str, str]:
    """The preset on replacements of both checkpoints, the second drawn with a seed: analysis, page, table."""
    models = {GOOGLE: google(place / "a"), PRAJJWAL: prajjwal(place / "b", seed)}
    write_news(place / "data")
    with LoopbackHub(models) as hub:
        done = loralet(
            place, hub.url, "study", "data", "--no-default", "--preset", "base-vs-lora", "--steps", "30",
            "--batch-size", "16", "--eval-every", "10", "--target-score", "0.8", "--lrs", "0.01",
            "--seeds", "0", "1", "--out", "run",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert any(GOOGLE in path for path in hub.downloaded())
        assert any(PRAJJWAL in path for path in hub.downloaded())
        url = hub.url
    # the hub is stopped; a report does not need it
    told = loralet(place, url, "report", "run", "--json", "numbers.json")
    assert told.returncode == 0, told.stderr
    return json.loads((place / "numbers.json").read_text()), (place / "run" / "report.html").read_text(), done.stdout


@pytest.fixture(scope="module")
def equal(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, str]:
    return study(tmp_path_factory.mktemp("equal"), seed=0)


def test_checkpoints_with_equal_tensors_are_one_model(equal: tuple[dict[str, Any], str, str]) -> None:
    analysis, page, table = equal
    (model,) = analysis["models"]
    assert (model["label"], model["names"]) == (f"{GOOGLE} = {PRAJJWAL}", [GOOGLE, PRAJJWAL])
    rows = {row["name"]: row for row in analysis["configurations"]}
    assert [name for name in rows if name != "hybrid"] == [
        "majority class", "TF-IDF + linear SVM", "random head", "linear probe", "r16 α64",
        "TF-IDF + logistic regression",
    ]  # fmt: skip
    # two models and two seeds; each seed counts once
    assert [rows[name]["seeds"] for name in ("random head", "linear probe", "r16 α64")] == [[0, 1]] * 3
    assert all(run.startswith("bert_uncased_L-2_H-128_A-2-") for run in rows["r16 α64"]["runs"])
    said = f"{GOOGLE} and {PRAJJWAL} have equal tensors (equal fingerprints). They are treated as one model."
    assert said in analysis["caveats"]
    assert said in page
    assert f"How accurate is LoRA on {GOOGLE} = {PRAJJWAL}?" in page
    assert "Excluded as duplicates (equal settings, seed and tensors): 6 runs." in analysis["caveats"]
    assert table.count("bert-tiny-") == 6


def test_base_and_lora_are_both_reported(equal: tuple[dict[str, Any], str, str]) -> None:
    analysis = equal[0]
    rows = {row["name"]: row for row in analysis["configurations"]}
    lora, head = rows["r16 α64"], rows["random head"]
    adapter = lora["adapter"]
    assert (adapter["rank"], adapter["alpha"], adapter["dropout"]) == (16, 64.0, 0.1)
    assert lora["test"]["mean"] > max(0.8, head["test"]["mean"])
    assert "chance (the random head) reaches" in analysis["answer"][1]
    assert all(example["chance"] is not None for example in analysis["section"]["examples"]["sampled"])


def test_checkpoints_with_different_tensors_are_two_models(tmp_path: Path) -> None:
    analysis, page, _ = study(tmp_path, seed=1)
    assert [model["label"] for model in analysis["models"]] == [GOOGLE, PRAJJWAL]
    assert len({model["fingerprint"] for model in analysis["models"]}) == 2
    lora = [row for row in analysis["configurations"] if row["role"] == "lora"]
    assert [row["name"] for row in lora] == [f"r16 α64 · {GOOGLE}", f"r16 α64 · {PRAJJWAL}"]
    assert [row["seeds"] for row in lora] == [[0, 1], [0, 1]]
    assert "equal tensors" not in page
    letters = re.findall(r"<text[^>]*>([^<]*)</text>", page)
    # one loss and one check panel per model, with its name; the Pareto plots show the last part of the name
    assert [letters.count(name) for name in (GOOGLE, PRAJJWAL)] == [2, 2]
    assert {"probe · bert-tiny", "probe · bert_uncased_L-2_H-128_A-2"} <= set(letters)
    # no rank and alpha grid is drawn, but the findings are shown
    assert "Rank and alpha" not in page
    assert "Stability: no run diverged" in page
    assert f"How accurate is LoRA on {GOOGLE} and {PRAJJWAL}?" in page
