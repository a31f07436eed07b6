"""The bundled model and data are complete, contain news, and are the defaults of the commands."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import options
from safetensors.torch import load_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from loralet.data.files import Columns
from loralet.data.sources import load_dataset
from loralet.hub.backbone import load_backbone
from loralet.hub.bundled import DATA, FOLDER, MODEL, SMALL, bundled

LABELS = ("Business", "Sci/Tech", "Sports", "World")
AG_NEWS_TEST = Path(__file__).parents[3] / "shared" / "data" / "ag_news" / "test.csv"
AG_NEWS_LABELS = ("World", "Sports", "Business", "Sci/Tech")


def test_the_news_data_is_balanced_without_duplicates() -> None:
    dataset = load_dataset(DATA, Columns())
    assert dataset.task.labels == LABELS
    assert dataset.findings == ()
    assert dataset.test is not None
    test = dataset.test.read()
    assert [Counter(split.targets.tolist()) for split in (dataset.train, test)] == [
        dict.fromkeys(range(4), n) for n in (120, 30)
    ]
    texts = dataset.train.texts.to_pylist() + test.texts.to_pylist()
    assert len(set(texts)) == 600
    assert all(20 <= len(text.split()) <= 60 for text in texts)
    openings = Counter(" ".join(text.split()[:4]).lower() for text in texts)
    assert max(openings.values()) == 1


@pytest.mark.parametrize(("name", "parameters"), [(MODEL, 4_385_920), (SMALL, 15_402_240)])
def test_the_encoders_are_fp16_on_disk_and_fp32_in_memory(name: str, parameters: int) -> None:
    stored = load_file(FOLDER / name / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    backbone = load_backbone(name)
    assert {tensor.dtype for tensor in backbone.weights.values()} == {torch.float32}
    assert (backbone.parameters, backbone.has_pooler) == (parameters, True)
    assert "all-MiniLM-L6-v2" in (FOLDER / name / "README.md").read_text(encoding="utf-8")


def test_a_local_folder_of_that_name_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundled(DATA) == FOLDER / DATA
    assert bundled("news-huge") is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / DATA).mkdir()
    assert bundled(DATA) is None


def test_commands_without_arguments_use_the_bundled_files() -> None:
    study, train = options("study"), options("train")
    assert (study.data, study.grid.models) == (DATA, (MODEL,))
    assert (train.data, train.model) == (DATA, MODEL)


@pytest.mark.skipif(not AG_NEWS_TEST.exists(), reason="the AG News test rows are not next to this checkout")
def test_a_linear_model_trained_on_it_classifies_real_news() -> None:
    with (FOLDER / DATA / "train.csv").open(encoding="utf-8") as file:
        own = list(csv.DictReader(file))
    with AG_NEWS_TEST.open(encoding="utf-8") as file:
        real = list(csv.DictReader(file))
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), LinearSVC()).fit(
        [row["text"] for row in own], [row["label"] for row in own]
    )
    right = model.predict([row["text"] for row in real]) == np.array(
        [AG_NEWS_LABELS[int(row["label"])] for row in real]
    )
    assert right.mean() >= 0.60
