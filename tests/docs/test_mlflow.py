"""The MLflow recipe of the documentation, where MLflow is installed (mlflow-skinny suffices)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import command
from models import make_pair
from pages import snippets

from loralet import TextClassifier, load


@pytest.mark.filterwarnings("ignore")
def test_the_mlflow_recipe_predicts_as_the_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    pytest.importorskip("mlflow", reason="MLflow is not installed")
    monkeypatch.chdir(tmp_path)
    make_pair(tmp_path / "model")
    texts, labels = ["a b c", "x y z"] * 8, ["first", "second"] * 8
    TextClassifier("model", rank=2, steps=2).fit(texts, labels).save("adapter")
    done = command(tmp_path, "export", "adapter", "--out", "news-bundle")
    assert done.returncode == 0, done.stderr
    (recipe,) = snippets("docs/guides/deploying.md", "py")
    names: dict[str, Any] = {}
    exec(recipe.code, names)
    found, classifier = names["model"].predict(names["pd"].DataFrame({"text": texts})), load("news-bundle")
    assert found["label"].tolist() == classifier.predict(texts).tolist()
    assert found[classifier.classes_.tolist()].to_numpy() == pytest.approx(classifier.predict_proba(texts))
