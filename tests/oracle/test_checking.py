"""``loralet check``: likely wrong labels, copies and near copies, against planted ones and scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from command_line import Done, command
from models import make_pair
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity
from test_hybrid import rows, write

from loralet.data import near
from loralet.data.near import near_copies
from loralet.data.splits import copies
from loralet.studies.checking import RowFinding, spellings

COUNT, WRONG = 200, 12


@dataclass(frozen=True)
class Place:
    """What a check printed and wrote about rows of which the first ones have a wrong label."""

    folder: Path
    done: Done
    found: pd.DataFrame
    labels: list[str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("checking")
    make_pair(folder / "model")
    texts, labels = rows(COUNT, 0, accents=False)
    texts = [f"{text} row{i}" for i, text in enumerate(texts)]  # no copies
    turned = [{"apple": "bird", "bird": "cat", "cat": "apple"}[label] for label in labels[:WRONG]] + labels[WRONG:]
    texts += ["one two three four five", "One  two three four five", "six seven", "six seven"]
    turned += ["apple", "apple", "bird", "cat"]
    write(folder / "rows.csv", texts, turned)
    done = command(folder, "check", "rows.csv", "--model", "model", "--folds", "4", "--out", "found.csv", "--quiet")
    assert done.returncode == 0, done.stderr
    return Place(folder, done, pd.read_csv(folder / "found.csv"), labels)


def test_planted_errors_are_found(place: Place) -> None:
    suspects = place.found[place.found.finding == "label"]
    lines = set(suspects.row) & set(range(2, COUNT + 2))
    right = {line for line in lines if line - 2 < WRONG}
    assert len(right) >= 0.8 * WRONG, "recall"
    assert len(right) >= 0.5 * len(lines), "precision"
    for row in suspects[suspects["row"].isin(right)].itertuples():
        assert row.suggested_label == place.labels[row.row - 2]
        assert row.suggested_probability > row.label_probability
    table = pd.read_csv(place.folder / "rows.csv")
    for row in suspects.itertuples():
        assert (row.text, row.label) == tuple(table.loc[row.row - 2, ["text", "label"]])
    margins = (suspects.label_probability - suspects.suggested_probability).to_numpy()
    assert (np.diff(margins) >= -2e-4).all(), "the clearest come first; probabilities are rounded"


def test_rows_with_another_spelling_of_a_label_name_the_frequent_one() -> None:
    targets = np.array([0, *[1] * 30, *[2] * 5, 3])
    assert spellings(targets, ("Billing", "billing", "delivery", "Other")) == [RowFinding(0, "spelling", "billing")]
    assert spellings(targets, ("refund", "billing", "delivery", "billng")) == [RowFinding(36, "spelling", "billing")]
    assert spellings(targets[1:36], ("Billing", "billing", "delivery")) == []  # a label without rows


def test_copies_and_conflicts_are_found_with_their_other_row(place: Place) -> None:
    found = place.found.set_index("finding")
    copy = found.loc["copy"]
    assert (copy.row, copy.other_row, copy.other_text) == (COUNT + 3, COUNT + 2, "one two three four five")
    conflicts = found.loc["conflict"]
    assert conflicts.row.tolist() == [COUNT + 4, COUNT + 5]
    assert conflicts.other_row.tolist() == [COUNT + 5, COUNT + 4]
    assert conflicts.other_label.tolist() == ["cat", "bird"]


def test_the_terminal_has_the_numbers_and_the_clearest_rows(place: Place) -> None:
    shown, suspects = place.done.stdout, place.found[place.found.finding == "label"]
    assert f"{COUNT + 4} rows; out-of-fold accuracy " in shown
    assert f"{len(suspects)} rows whose label is likely wrong" in shown
    assert "0 rows whose label may be another spelling" in shown
    assert "2 rows with the text of another row and another label (1.0 %)" in shown
    assert "all findings: found.csv" in shown
    first = suspects.iloc[0]
    assert f" {first.row}   {first.label}" in shown


def test_data_with_a_validation_split_are_refused(place: Place) -> None:
    texts, labels = rows(30, 1, accents=False)
    write(place.folder / "split" / "train.csv", texts, labels)
    write(place.folder / "split" / "validation.csv", texts, labels)
    done = command(place.folder, "check", "split", "--model", "model", "--out", "none.csv")
    assert done.returncode == 2
    assert "give the training file alone" in done.stderr
    assert not (place.folder / "none.csv").exists()


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_near_copies_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(near, "BLOCK", block)
    generator = np.random.default_rng(0)
    words = [f"w{i}" for i in range(12)]
    texts = [" ".join(generator.choice(words, generator.integers(2, 7))) for _ in range(80)]
    texts += [f"{texts[i]} w0" for i in range(10)] + [texts[3].upper()]
    groups = copies(pa.chunked_array([pa.array(texts)]))
    kept = np.sort(np.unique(groups, return_index=True)[1])
    features = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", sublinear_tf=True).fit_transform(
        [texts[i] for i in kept]
    )
    similarity = np.tril(cosine_similarity(features), -1)
    wanted = {int(kept[i]): float(similarity[i].max()) for i in range(len(kept)) if similarity[i].max() >= 0.8}
    found = near_copies(texts, groups, 0.8)
    assert {row: value for row, _, value in found} == pytest.approx(wanted)
    places = {int(row): i for i, row in enumerate(kept)}
    for row, other, value in found:
        assert other < row
        assert similarity[places[row], places[other]] == pytest.approx(value)
    assert len(found) >= 5


def test_frequent_words_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "FREQUENT", 2)
    texts = ["the red house", "the blue sky", "the green tree", "the red house again", "the house"]
    assert near_copies(["a", "a b", "a c"], np.arange(3), 0.1) == []
    assert [row for row, _, _ in near_copies(texts, np.arange(5), 0.5)] == [3]
    monkeypatch.setattr(near, "FREQUENT", 1)
    assert near_copies(["the", "the", "the"], np.arange(3)) == []
