"""Scores of classes and confusions compared with scikit-learn, and thresholds with a search over all of them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import command
from hypothesis import given
from hypothesis import strategies as st
from models import Pair, make_pair
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from test_adapters import RUNS, trained
from test_average import place as place

from loralet.artifacts.artifact import Measured, read_description
from loralet.artifacts.card import card
from loralet.artifacts.folder import add_metrics, load_artifact, save_artifact
from loralet.report.evaluation import MOST_CLASSES, class_table
from loralet.runs.results import read_results
from loralet.runs.selection import chosen_run
from loralet.tasks.base import Scores
from loralet.tasks.classes import ClassScores, Confusion, class_scores, confusion_counts, largest_confusions
from loralet.tasks.coverage import coverage_curve, shortest, threshold_for

NAMES = ("a", "b", "c", "d", "e")
ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(ROWS)
def test_the_scores_of_each_class_are_those_of_scikit_learn(rows: list[tuple[int, int]]) -> None:
    """The fifth class is never a label nor a prediction; others may be absent too."""
    targets, predicted = np.array(rows).T
    found = class_scores(NAMES, predicted, targets)
    *wanted, support = precision_recall_fscore_support(targets, predicted, labels=range(5), zero_division=0)
    for i, scores in enumerate(found):
        assert (scores.label, scores.support) == (NAMES[i], support[i])
        assert scores.predicted == (predicted == i).sum()
        values = (scores.precision, scores.recall, scores.f1)
        assert [0.0 if value is None else value for value in values] == pytest.approx([part[i] for part in wanted])
        assert (scores.precision is None) == (scores.predicted == 0)
        assert (scores.recall is None) == (scores.support == 0)
        assert (scores.f1 is None) == (scores.predicted + scores.support == 0)
    counts = confusion_counts(5, predicted, targets)
    assert (counts == confusion_matrix(targets, predicted, labels=range(5))).all()


def test_the_largest_confusions_come_first() -> None:
    counts = np.array([[9, 2, 0], [3, 0, 0], [4, 2, 1]])
    found = largest_confusions(("a", "b", "c"), counts, 9)
    assert found == (
        Confusion("c", "a", 4, 4 / 7),
        Confusion("b", "a", 3, 1.0),
        Confusion("c", "b", 2, 2 / 7),  # before the same number of rows of the larger class
        Confusion("a", "b", 2, 2 / 11),
    )
    assert largest_confusions(("a", "b", "c"), counts, 1) == found[:1]
    assert largest_confusions(("a", "b"), np.eye(2, dtype=int), 9) == ()


CONFIDENCES = st.lists(
    st.tuples(st.sampled_from([0.25, 0.5, 0.7, 0.71, 0.9, 0.999]), st.booleans()), min_size=1, max_size=30
)


@given(CONFIDENCES, st.sampled_from([0.3, 0.5, 0.75, 0.9, 1.0]))
def test_a_threshold_covers_the_most_rows_of_all_that_give_the_accuracy(
    rows: list[tuple[float, bool]], wanted: float
) -> None:
    confidence = np.array([value for value, _ in rows], np.float32)
    right = np.array([value for _, value in rows])
    curve = coverage_curve(confidence, right)
    assert curve.coverage[-1] == 1.0
    best: tuple[int, int] | None = None
    for least in np.unique(confidence):
        kept = confidence >= least
        assert curve.accuracy[curve.thresholds.tolist().index(float(least))] == pytest.approx(right[kept].mean())
        if right[kept].mean() >= wanted and (best is None or kept.sum() > best[0]):
            best = int(kept.sum()), int(right[kept].sum())
    found = threshold_for(curve, wanted)
    assert (found is None) == (best is None)
    if found and best:
        kept = confidence.astype(float) >= found.threshold  # as predict compares
        assert (kept.sum(), right[kept].sum()) == best == (found.rows, found.right)
        assert (found.total, found.coverage, found.accuracy) == (len(rows), best[0] / len(rows), best[1] / best[0])


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(0.2, 0.9, 0.9), (0.83, 0.8456, 0.84), (0.8399, 0.84, 0.84), (0.5, 0.50001, 0.50001), (0.0, 1.0, 1.0)],
)
def test_the_shortest_number_between_two_confidences(low: float, high: float, wanted: float) -> None:
    assert shortest(low, high) == wanted
    assert low < shortest(low, np.nextafter(low, 1)) <= np.nextafter(low, 1)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path / "base")


def test_the_card_shows_the_classes_of_the_test_split(pair: Pair, tmp_path: Path) -> None:
    _, _, artifact = trained(pair, RUNS["query-value"], "pooler")
    save_artifact(tmp_path / "adapter", artifact, pair.ours)
    scores = Scores({"accuracy": 0.9, "macro_f1": 0.8}, {}, 0.3)
    add_metrics(tmp_path / "adapter", "validation", 9, scores, (ClassScores("old", 1.0, 1.0, 1.0, 9, 9),))
    assert "| old | 1.0000" in (tmp_path / "adapter" / "README.md").read_text()
    classes = (
        ClassScores("<b>a|b</b>\n", 0.75, 0.5, 0.6, 1234, 7),
        ClassScores("never", None, None, None, 0, 0),
    )
    add_metrics(tmp_path / "adapter", "test", 9, scores, classes)
    text = (tmp_path / "adapter" / "README.md").read_text()
    assert "| class (test) | precision | recall | F1 | rows |" in text
    assert r"| &lt;b&gt;a\|b&lt;/b&gt; | 0.7500 | 0.5000 | 0.6000 | 1,234 |" in text
    assert "| never | – | – | – | 0 |" in text
    assert "| old |" not in text
    loaded = load_artifact(tmp_path / "adapter")
    assert loaded.metrics["test"] == Measured(9, scores, classes)
    assert "| class" not in card(replace(loaded, metrics={"test": Measured(9, scores)}), True)


def test_invalid_scores_of_a_class_are_reported(pair: Pair) -> None:
    _, _, artifact = trained(pair, RUNS["query-value"], "pooler")
    measured = Measured(
        9, Scores({"accuracy": 0.9, "macro_f1": 0.8}, {}, 0.3), (ClassScores("a", 0.5, 0.5, 0.5, 2, 2),)
    )
    described = json.loads(json.dumps(replace(artifact, metrics={"test": measured}).describe()))
    assert read_description(described).metrics["test"] == measured
    described["metrics"]["test"]["classes"][0]["recall"] = "high"
    with pytest.raises(ValueError, match=r"metrics.test.classes\[0\].recall is 'high': a number is expected"):
        read_description(described)
    described["metrics"]["test"]["classes"] = 7
    with pytest.raises(ValueError, match=r"metrics.test"):
        read_description(described)


def test_evaluate_reports_classes_confusions_and_a_threshold(place: Path) -> None:
    done = command(place, "evaluate", "grid", "rows.csv", "--format", "json", "--target-accuracy", "0.99")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    lines = (place / "rows.csv").read_text().splitlines()[1:]
    rows = [line.rsplit(",", 1) for line in lines]
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    predicted = command(place, "predict", "grid", "--file", "rows.csv", "--format", "jsonl").stdout.splitlines()
    answers = [json.loads(line) for line in predicted]
    names = sorted(set(labels))
    guesses = [row["label"] for row in answers]
    *wanted, support = precision_recall_fscore_support(labels, guesses, labels=names, zero_division=0)
    for i, scores in enumerate(found["classes"]):
        assert (scores["label"], scores["support"]) == (names[i], support[i])
        values = [scores["precision"] or 0.0, scores["recall"] or 0.0, scores["f1"] or 0.0]
        assert values == pytest.approx([part[i] for part in wanted])
    matrix = confusion_matrix(labels, guesses, labels=names)
    wrong = {(names[i], names[j]): int(matrix[i, j]) for i in range(3) for j in range(3) if i != j and matrix[i, j]}
    assert {(c["label"], c["predicted"]): c["rows"] for c in found["confusions"]} == wrong
    assert wrong
    # The threshold, given to predict, leaves the rows and the accuracy that evaluate printed.
    given_back = command(
        place, "predict", "grid", "--format", "jsonl", "--min-confidence", repr(found["min_confidence"]), "--file",
        "rows.csv",
    )  # fmt: skip
    kept = [json.loads(line)["label"] for line in given_back.stdout.splitlines()]
    right = [guess == label for guess, label in zip(kept, labels, strict=True) if guess is not None]
    assert len(right) / len(texts) == pytest.approx(found["coverage"])
    assert np.mean(right) == pytest.approx(found["covered_accuracy"])
    assert found["covered_accuracy"] >= 0.99
    assert 0 < found["coverage"] < 1
    shown = command(place, "evaluate", "grid", "rows.csv", "--target-accuracy", "0.99").stdout
    first = next(scores for scores in found["classes"] if scores["precision"])
    assert re.search(rf"{first['label']} +{first['precision']:.4f} +{first['recall']:.4f} +{first['f1']:.4f}", shown)
    most = max(wrong, key=lambda pair: wrong[pair])
    assert f"{most[0]} → {most[1]}  {wrong[most]}" in shown
    assert f"accuracy 99 %: --min-confidence {found['min_confidence']:g} predicts {len(right)} of {len(texts)}" in shown
    plain = json.loads(command(place, "evaluate", "grid", "rows.csv", "--format", "json").stdout)
    assert "min_confidence" not in plain


def test_with_many_classes_the_terminal_shows_those_of_the_lowest_f1() -> None:
    classes = [ClassScores(f"c{i}", 1.0, 1.0, i / 100, 3, 3) for i in reversed(range(MOST_CLASSES + 5))]
    shown = class_table([*classes, ClassScores("absent", None, None, None, 0, 0)])
    assert shown.row_count == MOST_CLASSES
    names = [str(cell) for cell in shown.columns[0].cells]
    assert names == [f"c{i}" for i in range(MOST_CLASSES)]


def test_the_results_have_the_classes_of_the_run_chosen_on_validation(place: Path) -> None:
    results = read_results(place / "grid")
    chosen = chosen_run(results)
    assert [(found.run, found.split) for found in results.classes] == [(chosen.id, "validation")]
    metrics = load_artifact(place / "grid" / "adapters" / chosen.id).metrics
    for found in results.classes:
        assert found.scores == metrics[found.split].classes
        assert chosen.validation
        recall = sum((scores.recall or 0) * scores.support for scores in found.scores)
        assert recall / sum(scores.support for scores in found.scores) == pytest.approx(chosen.validation["accuracy"])
