"""The league benchmark: means, comparisons on the same rows, and the table in the docs."""

from __future__ import annotations

import json
from pathlib import Path

import few_labels
import label_errors
import league
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from frozen import fit
from league_tables import few_labels as few_section
from league_tables import label_errors as errors_section
from league_tables import league as section
from league_tables import league_means
from scipy.stats import binomtest

from loralet.data.sources import Split
from loralet.report.statistics import paired

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WORDS = [league.Outcome(0.5, np.array([True, True, False, False, True]), 1.0)]
SEEDS = [
    league.Outcome(0.75, np.array([True, True, True, True, True]), 3.0, 0.25),
    league.Outcome(0.25, np.array([True, False, True, True, True]), 5.0, 0.75),
]


def test_a_summary_has_means_over_seeds_and_compares_all_seeds_with_the_words() -> None:
    row = league.summary(SEEDS, WORDS)
    assert row["test"] == pytest.approx(0.9)
    assert row["test_seeds"] == [1.0, 0.8]
    assert (row["validation"], row["seconds"], row["ece"]) == (0.5, 4.0, 0.5)
    assert row["test_sd"] == pytest.approx(np.std([1.0, 0.8], ddof=1))
    assert row["over_words"]["difference"] == pytest.approx(0.9 - 0.6)
    assert row["over_words"]["method"] == "paired bootstrap over rows and 2 seeds"
    right = np.stack([one.right for one in SEEDS])
    assert row["over_words"]["p"] == paired(np.stack([WORDS[0].right] * 2), right).p


def test_one_seed_is_compared_by_an_exact_test() -> None:
    row = league.summary(SEEDS[:1], WORDS)
    assert row["over_words"]["p"] == pytest.approx(binomtest(2, 2).pvalue)


def test_validation_alone_reads_no_test_rows() -> None:
    unread = [league.Outcome(0.5, np.empty(0, bool), 1.0)]
    assert league.summary(unread, unread).keys() == {"validation", "validation_seeds", "seconds"}


def test_the_words_are_not_compared_with_themselves() -> None:
    assert "over_words" not in league.summary(WORDS, WORDS)


def test_the_classifier_on_embeddings_has_the_best_penalty_on_validation_rows() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(40, 30)), generator.integers(0, 2, 40)
    chosen = fit(x, y, x[:20], y[:20])
    assert chosen.C > 1, "rows that were trained on prefer a weak penalty"


def test_the_table_shows_every_set_and_the_means() -> None:
    row = league.summary(SEEDS, WORDS)
    rows = {league.WORDS: {"some_set": league.summary(WORDS, WORDS)}, "tiny": {"some_set": row}}
    machine = {"cpu": "X", "cores": 2, "dtype": "fp32", "torch": "2", "commit": "abc"}
    found = section({"rows": rows, "machine": machine})
    assert "| some set | 60.0% | 90.0% |" in found, "a difference within chance has no arrow"
    assert "| TF-IDF + linear SVM | 60.0% | – | – | – | – | 1 |" in found
    assert "| tiny | 90.0% | +30.0 points | 0 | 0 | 0.500 | 4 |" in found
    assert "2\nseeds" in found or "2 seeds" in " ".join(found.split())


@pytest.mark.parametrize(("difference", "arrow", "counts"), [(0.3, "↑", "1 | 0"), (-0.3, "↓", "0 | 1")])
def test_the_table_marks_a_difference_beyond_chance(difference: float, arrow: str, counts: str) -> None:
    over = {"p": 0.01, "difference": difference, "method": "an exact test"}
    rows = {
        league.WORDS: {"a": {"test": 0.5, "test_seeds": [0.5], "seconds": 1.0}},
        "tiny": {"a": {"test": 0.5 + difference, "test_seeds": [0.5], "seconds": 1.0, "over_words": over}},
    }
    found = section({"rows": rows, "machine": {"cpu": "X", "cores": 2, "dtype": "fp32", "torch": "2", "commit": "a"}})
    assert f"| a | 50.0% | {0.5 + difference:.1%} {arrow} |" in found
    assert f"| tiny | {0.5 + difference:.1%} | {100 * difference:+.1f} points | {counts} | – | 1 |" in found


def test_classifiers_of_fewer_seeds_are_named() -> None:
    over = {"p": 0.5, "difference": 0.1, "method": "an exact test"}
    rows = {
        name: {"a": {"test": 0.5, "test_seeds": [0.5] * seeds, "seconds": 1.0, "over_words": over}}
        for name, seeds in ((league.WORDS, 1), (league.FROZEN, 1), ("tiny", 3), ("small", 1))
    }
    machine = {"cpu": "X", "cores": 2, "dtype": "fp32", "torch": "2", "commit": "a"}
    found = section({"rows": rows, "machine": machine, "note": "It rained."})
    assert "to the last prediction.\nIt rained.\n" in found
    assert league_means({"rows": rows | {"tiny, encoder alone": rows["tiny"]}}) == (
        f"mean test accuracy on 1 data sets: {', '.join(rows)}",
        "50.0%, 50.0%, 50.0%, 50.0%",
    )
    assert "means over 3 seeds (small: 1). " in found


def test_a_draw_has_the_same_number_of_rows_of_each_class() -> None:
    targets = np.repeat([0, 1, 2], [30, 9, 4])
    rows = few_labels.draw_rows(targets, 5, 0)
    assert len(set(rows.tolist())) == len(rows)
    assert np.bincount(targets[rows]).tolist() == [5, 5, 4]
    assert few_labels.draw_rows(targets, 5, 0).tolist() == rows.tolist()
    assert few_labels.draw_rows(targets, 5, 1).tolist() != rows.tolist()


def test_the_few_rows_are_written_as_they_are(tmp_path: Path) -> None:
    rows = Split("x", pa.chunked_array([pa.array(['a "b", c', "d\ne"])]), np.array([1, 0]))
    few_labels.write_table(tmp_path / "train.csv", rows, ("no", "yes"))
    found = pd.read_csv(tmp_path / "train.csv")
    assert found.to_dict("list") == {"text": ['a "b", c', "d\ne"], "label": ["yes", "no"]}


def test_labels_are_changed_to_other_ones() -> None:
    labels = np.array(["a", "b", "c", "d"] * 25)
    found = label_errors.changed(labels, 0.2, 0)
    assert (found != labels).sum() == 20
    assert set(found) == set("abcd")


def test_scores_of_suspects() -> None:
    wrong = np.array([True, False, True, False, True, False])
    assert label_errors.scores([0, 1, 2, 3], wrong) == {
        "precision": 0.5, "recall": pytest.approx(2 / 3), "first": pytest.approx(2 / 3)
    }  # fmt: skip
    assert label_errors.scores([], wrong) == {"precision": 0, "recall": 0, "first": 0}


def test_the_table_of_label_errors_has_means() -> None:
    row = {"rows": 4000, "accuracy": 0.9, "precision": 0.5, "recall": 0.8, "first": 0.7}
    machine = {"cpu": "X", "cores": 2, "dtype": "fp32", "torch": "2", "commit": "abc"}
    report = {"share": 0.05, "sets": {"one_set": row, "two": row | {"recall": 0.6}}, "machine": machine}
    found = errors_section(report)
    assert "| one set | 90% | 50% | 70% | 80% |" in found
    assert "| mean | 90% | 50% | 70% | 70% |" in found
    assert "4,000 rows of each set, 5% of" in found


def test_the_table_of_few_labels_has_means_over_sets() -> None:
    by_set = {"one_set": {"test": 0.5, "test_sd": 0.1}, "two": {"test": 0.7, "test_sd": 0.3}}
    machine = {"cpu": "X", "cores": 2, "dtype": "fp32", "torch": "2", "commit": "abc"}
    found = few_section({"labels": {"8": {"tiny": by_set}}, "draws": 10, "machine": machine})
    assert "| tiny | 60.0% (20.0%) |" in found
    assert "| one set, 8 per class | 50.0% |" in found
    assert "one set, two" in found
    assert "10 draws" in found


def test_the_committed_results_are_those_of_the_league() -> None:
    path = BENCHMARKS / "league.json"
    if not path.exists():
        pytest.skip("the league was not measured")
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["metric"] == "test"
    assert all(list(rows) == [*league.SETS, "ag_news"] for rows in report["rows"].values())
