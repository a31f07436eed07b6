"""The league benchmark: means, comparisons on the same rows, and the table in the docs."""

from __future__ import annotations

import json
from pathlib import Path

import league
import numpy as np
import pytest
from frozen import fit
from league_tables import league as section
from scipy.stats import binomtest

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
    assert "| some set | 60.0% | 90.0% | +30.0 points | 0.42 | 4 |" in found
    assert "| mean | 60.0% | 90.0% | +30.0 points |  |  |" in found
    assert "2\nseeds" in found or "2 seeds" in " ".join(found.split())


def test_the_committed_results_are_those_of_the_league() -> None:
    path = BENCHMARKS / "league.json"
    if not path.exists():
        pytest.skip("the league was not measured")
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["metric"] == "test"
    assert all(list(rows) == [*league.SETS, "ag_news"] for rows in report["rows"].values())
