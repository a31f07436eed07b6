"""``loralet runs`` and ``loralet compare``."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from command_line import command
from models import make_pair
from run_folders import change_results, write_data, write_study, write_train
from safetensors.numpy import load_file, save_file
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score

from loralet.commands.contenders import labelled_rows
from loralet.config import CompareConfig
from loralet.errors import DataError
from loralet.report.leaderboard import Contender, compare
from loralet.report.leaderboard_page import answer, render_page
from loralet.runs.listing import list_runs
from loralet.runs.results import read_results, write_results
from loralet.tasks.single_label import SingleLabel

LETTERS = {"apple": "abcd", "bird": "hijk", "cat": "pqrs"}


def write_rows(path: Path, count: int, seed: int, header: str = "text,label") -> None:
    """Texts of letters. Each label has its own, and all share some."""
    generator = np.random.default_rng(seed)
    lines = [header]
    for i in range(count):
        label = list(LETTERS)[i % 3]
        lines.append(f"{' '.join(generator.choice([*LETTERS[label], *'xyz'], 5))},{label}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained runs with the same test rows, the second with fewer training rows, and one with other test rows."""
    folder = tmp_path_factory.mktemp("compare")
    make_pair(folder / "model")
    for name, count in (("data", 240), ("fewer", 60), ("other", 60)):
        (folder / name).mkdir()
        write_rows(folder / name / "train.csv", count, 0)
        write_rows(folder / name / "test.csv", 90, 2 if name == "other" else 1)
    given = ("--model", "model", "--steps", "40", "--batch-size", "16", "--head", "mean", "--folds", "0", "--quiet")
    for name, lr in (("data", "1e-2"), ("fewer", "1e-4"), ("other", "1e-2")):
        done = command(folder, "train", name, *given, "--lr", lr, "--hybrid", "off", "--out", f"runs/{name}")
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder of run folders: finished, unfinished, and damaged in several ways, next to other folders."""
    write_data(tmp_path / "data")
    runs = tmp_path / "runs"
    write_study(runs / "study", tmp_path / "data")
    write_train(runs / "train", tmp_path / "data", test=False)
    write_study(runs / "half", tmp_path / "data")
    results = read_results(runs / "half")
    begun = tuple(replace(run, test=None) for run in results.runs if run.id != "lora-r4-a16-lr0.0015-s0")
    write_results(
        runs / "half", replace(results, runs=begun, finished=False, pending=("lora-r4-a16-lr0.0015-s0",), test_reads=0)
    )
    (runs / "begun" / "checkpoint").mkdir(parents=True)
    for name, content in {"text": "not JSON", "list": "[]", "future": '{"schema": 99}', "empty": "{}"}.items():
        (runs / name).mkdir()
        (runs / name / "results.json").write_text(content)
    write_train(runs / "scores", tmp_path / "data")
    change_results(runs / "scores", {}, labels=7)
    (runs / "folder" / "results.json").mkdir(parents=True)
    (runs / "options").mkdir()
    (runs / "options" / "config.toml").write_text("[grid]\n")
    (runs / "nothing here").mkdir()
    (runs / "student").mkdir()
    (runs / "student" / "config.toml").write_text('teacher = "t"\ntext = ["x"]\nout = "o"\n')
    (runs / "notes.txt").write_text("mine")
    return runs


def test_run_folders_are_listed_with_their_state(broken: Path) -> None:
    found = {run.name: run for run in list_runs(broken)}
    assert sorted(found) == sorted(
        ["study", "train", "half", "begun", "text", "list", "future", "empty", "scores", "folder", "options"]
    )
    states = {name: run.state for name, run in found.items()}
    assert states.pop("study") == states.pop("train") == "finished"
    assert states.pop("half") == states.pop("begun") == "unfinished"
    assert set(states.values()) == {"unreadable"}
    assert all(run.note and "\n" not in run.note for name, run in found.items() if name not in ("study", "train"))
    results, study = read_results(broken / "study"), found["study"]
    chosen = results.run("lora-r4-a16-lr0.0015-s0")
    assert chosen.test is not None
    assert (study.chosen, study.score, study.split, study.rows) == (chosen.id, chosen.test["accuracy"], "test", 60)
    assert (study.low, study.high) == chosen.test.intervals["accuracy"]
    assert (study.kind, study.data, study.models, study.runs) == ("study", results.data.source, ("./base",), 5)
    assert (found["train"].split, found["train"].rows, found["half"].split) == ("validation", 3, "validation")
    assert found["half"].note == f"4 of 5 runs are trained: loralet resume {broken / 'half'}"
    assert f"loralet resume {broken / 'begun'}" in found["begun"].note
    assert study.date is not None
    dates = [run.date or "" for run in list_runs(broken)]
    assert dates == sorted(dates, reverse=True)


def test_the_list_as_table_and_json(broken: Path) -> None:
    done = command(broken.parent, "runs")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Traceback" not in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("study ")]
    assert "0.9000" in line
    assert "60 test rows" in line
    assert f"half: unfinished; 4 of 5 runs are trained: loralet resume {Path('runs', 'half')}" in done.stdout
    assert "future: unreadable; " in done.stdout
    listed = json.loads(command(broken.parent, "runs", "runs", "--format", "json").stdout)
    assert {run["name"] for run in listed} == {run.name for run in list_runs(broken)}
    one = json.loads(command(broken.parent, "runs", "runs/study", "--format", "json").stdout)
    assert [run["name"] for run in one] == ["study"]
    none = command(broken.parent, "runs", "data")
    assert (none.returncode, none.stdout) == (0, "data contains no run folders\n")
    missing = command(broken.parent, "runs", "rnus")
    assert missing.returncode == 2
    assert "rnus: no such folder" in missing.stderr


def adjusted(p_values: list[float]) -> list[float]:
    """Holm's correction, written from its definition."""
    order, found, largest = np.argsort(p_values, kind="stable"), [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, p_values[i] * (len(p_values) - place)))
        found[i] = largest
    return found


def test_the_leaderboard_agrees_with_scipy_and_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    task, targets = SingleLabel(("a", "b", "c")), generator.integers(0, 3, 200)
    guesses = {
        name: np.where(generator.random(200) < share, targets, generator.integers(0, 3, 200))
        for name, share in {"weak": 0.5, "good": 0.85, "best": 0.9}.items()
    }
    contenders = [Contender(name, name, "base", values) for name, values in guesses.items()]
    board = compare(contenders, targets, task, "rows", "not measured")
    ranked = [standing.contender.name for standing in board.standings]
    assert (
        ranked == sorted(guesses, key=lambda name: -accuracy_score(targets, guesses[name])) == ["best", "good", "weak"]
    )
    for standing in board.standings:
        own = guesses[standing.contender.name]
        assert standing.scores["accuracy"] == accuracy_score(targets, own)
        assert standing.scores["macro_f1"] == pytest.approx(f1_score(targets, own, average="macro"))
    right = {name: values == targets for name, values in guesses.items()}
    wanted = []
    for better, worse in combinations(ranked, 2):
        only = int((right[better] & ~right[worse]).sum()), int((right[worse] & ~right[better]).sum())
        wanted.append(binomtest(only[0], sum(only)).pvalue)
    assert [pair.p for pair in board.pairs] == pytest.approx(wanted)
    assert [pair.p_holm for pair in board.pairs] == pytest.approx(adjusted(wanted))
    assert [pair.difference for pair in board.pairs] == pytest.approx(
        [right[a].mean() - right[b].mean() for a, b in combinations(ranked, 2)]
    )
    assert [(s.contender.name, s.tied) for s in board.standings[1:]] == [
        (pair.worse, pair.p_holm >= 0.05) for pair in board.pairs if pair.better == "best"
    ]
    assert {standing.tied for standing in board.standings[1:]} == {True, False}


def test_runs_with_the_same_test_rows_are_compared_by_their_predictions(place: Path) -> None:
    done = command(place, "compare", "runs/fewer", "runs/data", "--format", "json", "--out", "page.html")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    results = {name: read_results(place / "runs" / name) for name in ("data", "fewer")}
    assert results["data"].data.fingerprint != results["fewer"].data.fingerprint
    assert [run["name"] for run in found["runs"]] == ["runs/data", "runs/fewer"]
    for run in found["runs"]:
        row = results[run["name"].removeprefix("runs/")].run(run["run"])
        assert row.test is not None
        assert (run["accuracy"], run["macro_f1"]) == (row.test["accuracy"], pytest.approx(row.test["macro_f1"]))
        assert run["parameters"] == row.total_parameters
        assert run["seconds_per_text"] > 0
        assert run["bytes"] > 1000
    assert found["rows"] == 90
    assert found["runs"][1]["p_holm"] == found["pairs"][0]["p_holm"] < 0.05
    assert "per text, on 60 training texts" in found["timing"]
    page = Page((place / "page.html").read_text())
    assert page.rows[0][0] == "runs/data ★"
    assert page.outside == []
    table = command(place, "compare", "runs/fewer", "runs/data")
    lines = [line.split()[0] for line in table.stdout.splitlines() if line.startswith("runs/")]
    assert lines[:2] == ["runs/data", "runs/fewer"]


class Page(HTMLParser):
    """The rows of the tables of a page, and the addresses that it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.outside: list[str] = []
        self.body = self.cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outside += [value or "" for name, value in attrs if name in ("src", "href")]
        self.body = tag == "tbody" or (self.body and tag != "table")
        if self.body and tag == "tr":
            self.rows.append([])
        self.cell = self.body and tag in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.cell:
            self.rows[-1].append(data)
            self.cell = False


def test_given_rows_give_the_scores_of_evaluate(place: Path) -> None:
    write_rows(place / "given.csv", 60, 5)
    done = command(place, "compare", "runs/data", "runs/other", "--data", "given.csv", "--format", "json")
    assert done.returncode == 0, done.stderr
    for run in json.loads(done.stdout)["runs"]:
        one = json.loads(command(place, "evaluate", run["name"], "given.csv", "--format", "json").stdout)
        assert (run["accuracy"], run["macro_f1"]) == (one["accuracy"], one["macro_f1"])
        assert run["seconds_per_text"] > 0


def test_each_run_reads_the_columns_that_it_was_trained_on(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    adapters = {}
    for name, columns in (("a", ["subject", "body"]), ("b", ["body"])):
        change_results(write_train(tmp_path / name, tmp_path / "data"), {}, text_columns=columns, label_column="label")
        (adapters[name],) = (tmp_path / name / "adapters").iterdir()
    task, data = SingleLabel(("no", "yes")), tmp_path / "given.csv"
    config = CompareConfig(("a", "b"), str(data))
    data.write_text("subject,body,label\nx,one,yes\ny,two,no\n")
    splits = labelled_rows(config, adapters, task)
    assert {name: split.texts.to_pylist() for name, split in splits.items()} == {
        "a": ["x one", "y two"],
        "b": ["one", "two"],
    }
    assert [split.targets.tolist() for split in splits.values()] == [[1, 0], [1, 0]]
    data.write_text("subject,body,label\nx,,yes\ny,two,no\n")
    with pytest.raises(DataError, match="an empty text in the columns of one run"):
        labelled_rows(config, adapters, task)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("runs/data", "runs/other"), "runs/data and runs/other were tested on different rows"),
        (("runs/data",), "folders is runs/data: give at least two"),
        (("runs/data", "runs/data"), "folders contains duplicates"),
        (("runs/data", "runs/none"), "not a run folder"),
        (("runs/data", "runs/fewer", "--labels-are-indices"), "labels_are_indices needs --data"),
        (("runs/data", "runs/fewer", "--out", "runs"), "runs: is a folder"),
        (("runs/data", "runs/fewer", "--out", "data/test.csv"), "exists and is no HTML page"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(place: Path, arguments: tuple[str, ...], words: str) -> None:
    done = command(place, "compare", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stdout == ""


def test_older_folders_and_other_orders_of_labels(tmp_path: Path) -> None:
    """Folders without the fingerprint of the test rows, and without encoders, which prediction times need."""
    write_data(tmp_path / "data")
    write_study(tmp_path / "a", tmp_path / "data")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    labels = read_results(tmp_path / "a").data.labels
    change_results(tmp_path / "b", {}, labels=[labels[2], labels[0], labels[1]])
    tensors = load_file(tmp_path / "b" / "predictions.safetensors")
    turned = {
        name: (values + 1) % 3 if values.ndim == 1 else values[:, [2, 0, 1]].copy() for name, values in tensors.items()
    }
    save_file(turned, tmp_path / "b" / "predictions.safetensors")
    done = command(tmp_path, "compare", "a", "b", "a/adapters/lora-r2-a8-lr0.0015-s0", "--format", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [round(60 * run["accuracy"]) for run in found["runs"]] == [54, 54, 40]
    assert [pair["p"] for pair in found["pairs"]] == pytest.approx(
        [1.0, binomtest(14, 14).pvalue, binomtest(14, 14).pvalue]
    )
    assert found["timing"].startswith("prediction time was not measured: ")
    change_results(tmp_path / "b", {}, fingerprint="0" * 64)
    refused = command(tmp_path, "compare", "a", "b")
    assert refused.returncode == 2
    assert "tested on different rows" in refused.stderr
    change_results(tmp_path / "b", {}, labels=["apple", "bird", "dog"])
    assert "different labels" in command(tmp_path, "compare", "a", "b").stderr


def test_the_page_shows_texts_of_others_as_text() -> None:
    targets = np.array([0, 1, 0, 1])
    runs = [Contender(f"<b>{i}</b>", "x", "<i>", (targets + i) % 2) for i in range(2)]
    page = render_page(compare(runs, targets, SingleLabel(("a", "b")), "<script>alert(1)</script>", "not measured"))
    assert "<script>alert" not in page
    assert "<b>0</b>" not in page
    assert "&lt;b&gt;0&lt;/b&gt; ★" in page


def test_the_page_says_by_how_much_the_best_run_is_better() -> None:
    targets = np.arange(200) % 2
    runs = [Contender("good", "x", "m", targets), Contender("bad", "x", "m", np.where(np.arange(200) < 50, 1, 0))]
    board = compare(runs, targets, SingleLabel(("a", "b")), "rows", "not measured")
    assert answer(board)[1] == "It is more accurate than bad (+50.0 points)."
