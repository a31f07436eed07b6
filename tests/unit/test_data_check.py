"""The data check: what it finds in training rows, and that copies of a text stay together."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from command_line import command
from hypothesis import given
from hypothesis import strategies as st
from models import make_pair

from loralet.config import DataOptions
from loralet.data.check import DataCheck, check_data, combinations, near_equal
from loralet.data.columns import label_column, memory_dataset, task_of, text_column
from loralet.data.files import Columns
from loralet.data.sources import load_dataset
from loralet.data.splits import carve, copies
from loralet.errors import DataError
from loralet.runs.results import read_results
from loralet.training.corpus import FOREIGN, settle, split_rows, unknown_share

CLEAN = [(f"a text number {i} of {'xyz'[i % 3]}", "xyz"[i % 3]) for i in range(60)]


def checked(rows: Sequence[tuple[str, str]]) -> DataCheck:
    classes, numbers = label_column([label for _, label in rows], len(rows))
    return check_data(memory_dataset(text_column([text for text, _ in rows]), numbers, task_of(classes)))


def test_clean_rows_have_a_summary_only() -> None:
    check = checked(CLEAN)
    assert check.lines == ["60 training rows in 3 classes: x 20, y 20, z 20"]
    check.require_clean()


def test_many_classes_are_summarised() -> None:
    rows = [(f"text {i} of {j}", f"class {i}") for i in range(12) for j in range(12 - i + 1)]
    line = checked(rows).lines[0]
    assert line.startswith("90 training rows in 12 classes: class 0 13, class 1 12, ")
    assert line.endswith("class 7 6, 4 more, the smallest class 11 2")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            [("A text  number 0 of x", "x")],
            "row 61 repeats the text of an earlier row; all copies of a text are held out together",
        ),
        ([("a text number 0 of x", "y")], "2 rows (1, 61) have the same text as another row, with another label"),
        ([("123 !?", "x"), ("🎉", "y")], "2 rows (61, 62) have texts without a letter"),
        ([("another", "zz"), ("one more", "X")], "labels that may be one: x 20 / X 1; see row 62"),
        ([("another", "N/A"), ("one more", "N/A")], "labels that may stand for a missing one: 'N/A' (2 rows)"),
        ([("another", "w")], "1 class has one row, which cannot be validated: w"),
    ],
)
def test_findings(more: list[tuple[str, str]], words: str) -> None:
    check = checked([*CLEAN, *more])
    assert words in check.lines
    with pytest.raises(DataError, match=r"the data check found \d problems? \(--strict\)") as caught:
        check.require_clean()
    assert f"  - {words}" in str(caught.value)


def test_strict_lists_ten_rows_and_a_count() -> None:
    check = checked([*CLEAN, *[(f"{i}", "x") for i in range(12)]])
    with pytest.raises(DataError) as caught:
        check.require_clean()
    assert "12 rows (61, 62, 63, 64, 65, 66, 67, 68, 69, 70, ...) have texts without a letter" in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "groups"),
    [
        ({"billing": 40, "Billing": 2, "delivery": 30}, [["billing", "Billing"]]),
        ({"billing": 40, "bill\u200bing": 1}, [["billing", "bill\u200bing"]]),
        ({unicodedata.normalize("NFC", "é"): 5, unicodedata.normalize("NFD", "é"): 6}, [["e\u0301", "é"]]),
        ({"log in": 9, "log_in": 8, "log-in": 7}, [["log in", "log_in", "log-in"]]),
        ({"delivery": 100, "delivry": 1}, [["delivery", "delivry"]]),
        ({"delivery": 10, "delivry": 9}, []),  # a typo is rare
        ({"1": 10, "01": 9, "2": 5}, [["1", "01"]]),
        ({"class1": 100, "class2": 1}, []),
        ({"happy": 100, "unhappy": 90, "sad": 5}, []),
        ({"cat": 100, "car": 1}, []),  # short words
        ({"1": 5, "-1": 5, "true": 4}, []),
    ],
)
def test_labels_that_may_be_one(rows: dict[str, int], groups: list[list[str]]) -> None:
    assert near_equal(rows) == groups


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (["a", "b", "a|b", "b|c", "c"], ["a|b", "b|c"]),
        (["0,15", "15,3", "3,0"], ["0,15", "15,3", "3,0"]),
        (["joy; love", "love", "joy"], ["joy; love"]),
        (["Paris, France", "Lyon, France", "Rome, Italy"], []),
        (["a|b", "c"], []),
        (["a|", "a"], []),
        (["a+b", "a", "b", "b + c", "c"], ["a+b", "b + c"]),
        (["[0, 1]", "[0]", "[1]"], ["[0, 1]"]),
        (["['a', 'b']", "['a']", "['b']"], ["['a', 'b']"]),
        (["sci/tech", "tv/radio", "politics & law"], []),
        (["[a]", "[b]", "c++"], []),
    ],
)
def test_labels_that_join_several(labels: list[str], found: list[str]) -> None:
    assert combinations(labels) == found


def test_a_repeated_header_is_named(tmp_path: Path) -> None:
    body = "".join(f"a text number {i},{'xy'[i % 2]}\n" for i in range(20))
    path = tmp_path / "a.csv"
    path.write_text(f"Text,label\n{body}text,Label\n{body.replace('text', 'row')}")
    check = check_data(load_dataset(str(path), Columns()))
    assert "line 22 repeats the header" in check.lines
    path.write_text(f"Text,label\n{body}other words,label\nmore words,label\n")
    assert not any("header" in line for line in check_data(load_dataset(str(path), Columns())).lines)


def column(texts: Sequence[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(texts, pa.string())])


def test_copies_are_equal_but_for_case_spaces_and_form() -> None:
    texts = ["a b", "A  b ", "caf\u00e9", "ab", "cafe\u0301", "a b"]
    assert copies(column(texts)).tolist() == [0, 0, 1, 2, 1, 0]
    assert copies(column(["a", "a", "b"]), column(["x", "y", "x"])).tolist() == [0, 1, 2]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=4, max_size=60), st.integers(0, 99))
def test_a_group_is_on_one_side_and_every_class_is_trained(rows: list[tuple[int, int]], seed: int) -> None:
    groups = np.unique([group for group, _ in rows], return_inverse=True)[1]
    labels = np.array([label for _, label in rows])
    first = np.unique(groups, return_index=True)[1]
    if np.bincount(labels[first]).max() < 2:
        if np.bincount(labels).max() >= 2:  # copies are the only rows that can be held out
            assert len(carve(labels, 0.1, seed, groups)[1])
            return
        with pytest.raises(ValueError, match="too few"):
            carve(labels, 0.3, seed, groups)
        return
    train, validation = carve(labels, 0.3, seed, groups)
    assert sorted([*train, *validation]) == list(range(len(rows)))
    assert not set(groups[train]) & set(groups[validation])
    assert set(labels[train]) == set(labels)


@given(st.lists(st.integers(0, 3), min_size=8, max_size=60), st.integers(0, 99))
def test_without_copies_the_draw_is_the_same(labels: list[int], seed: int) -> None:
    targets = np.array(labels)
    if np.bincount(targets).max() >= 2:
        plain, grouped = carve(targets, 0.2, seed), carve(targets, 0.2, seed, np.arange(len(labels)))
        assert [part.tolist() for part in plain] == [part.tolist() for part in grouped]


def test_four_sentences_with_twenty_copies_each(tmp_path: Path) -> None:
    sentences = [("good", 1), ("fine", 1), ("bad", 0), ("poor", 0)]
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in sentences * 20))
    dataset = load_dataset(str(path), Columns())
    corpus = settle(dataset, DataOptions(), 512)
    train, validation = (set(split.texts.to_pylist()) for split in (corpus.train, corpus.validation))
    assert (len(train), len(validation), len(train & validation)) == (2, 2, 0)
    assert (len(corpus.train), len(corpus.validation)) == (40, 40)
    assert "76 lines (6, 7, 8, 9, 10, ...) repeat the text of an earlier row" in check_data(dataset).lines[1]
    path.write_text("text,label\n" + "good,1\nbad,0\n" * 20)
    dataset = load_dataset(str(path), Columns())
    corpus = settle(dataset, DataOptions(), 512)
    assert (len(corpus.train), len(corpus.validation)) == (36, 4)
    words = "no class has two different texts, so validation rows are copies of training rows"
    assert words in check_data(dataset).lines[1]


def test_unknown_tokens_are_counted(tmp_path: Path) -> None:
    backbone = make_pair(tmp_path / "model").ours
    known = memory_dataset(text_column(["a b c", "x y"]), np.array([0, 1]), task_of(np.array(["p", "q"]))).train
    strange = memory_dataset(text_column(["a Ж c", "Ж Ж"]), np.array([0, 1]), task_of(np.array(["p", "q"]))).train
    assert unknown_share(split_rows(known, backbone, 40), backbone) == 0
    assert unknown_share(split_rows(strange, backbone, 40), backbone) == pytest.approx(3 / 5)
    assert FOREIGN < 3 / 5


def test_the_command_prints_the_check_and_strict_refuses(tmp_path: Path) -> None:
    make_pair(tmp_path / "model")
    rows = [f"{'a b c' if i % 2 else 'p q r'} {'xyzkl'[i % 5]} {'hijmn'[i // 5]},{i % 2}.0\n" for i in range(24)]
    (tmp_path / "a.csv").write_text("tweet,intent\n" + "".join([*rows, rows[3]]))
    train = ("train", "a.csv", "--model", "model", "--steps", "2", "--out", "run")
    refused = command(tmp_path, *train, "--strict")
    assert refused.returncode == 2
    assert "the data check found 1 problem (--strict):" in refused.stderr
    assert "line 26 repeats the text of an earlier row" in refused.stderr
    assert not (tmp_path / "run").exists()
    done = command(tmp_path, *train)
    assert done.returncode == 0, done.stderr
    for words in ("text from column 'tweet', labels from column 'intent'", "25 training rows in 2 classes: 1 13, 0 12"):
        assert words in done.stderr
    data = read_results(tmp_path / "run").data
    assert (data.text_columns, data.label_column, data.label_type) == (("tweet",), "intent", "float")
    (tmp_path / "b.csv").write_text(
        "tweet,intent\n" + "".join([*rows, "Ж Ж Ж Ж Ж Ж Ж Ж Ж Ж Ж Ж Ж Ж Ж Ж Ж Ж Ж Ж,1.0\n"])
    )
    foreign = command(tmp_path, "train", "b.csv", "--model", "model", "--out", "other", "--strict")
    assert (foreign.returncode, (tmp_path / "other").exists()) == (2, False)
    assert "of the tokens in the training texts are unknown to model" in foreign.stderr
