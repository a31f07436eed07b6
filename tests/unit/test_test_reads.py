"""Evaluations on the test rows of a run are counted, whichever way the rows are named."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from run_folders import LABELS, change_results, write_data, write_train

from loralet.data.files import Columns
from loralet.data.sources import fingerprint_rows, load_labelled
from loralet.runs.results import read_results
from loralet.runs.test_reads import record_test_reads
from loralet.tasks.single_label import SingleLabel

TASK = SingleLabel(LABELS)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_data(tmp_path / "data")
    return write_train(tmp_path / "run", tmp_path / "data")


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def evaluate(run: Path, path: Path, rows: Sequence[Sequence[str]]) -> tuple[int, list[str]]:
    """Evaluate the rows of a file, and return the number of reads and the remarks."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["text", "label"], *rows])
    (adapter,) = (run / "adapters").iterdir()
    remarks = list(record_test_reads([adapter, adapter], load_labelled(str(path), Columns(), TASK), TASK.labels))
    return read_results(run).test_reads, remarks


def test_the_same_rows_in_another_file_order_or_format_are_test_rows(run: Path, tmp_path: Path) -> None:
    test, train = rows_of(tmp_path / "data" / "test.csv"), rows_of(tmp_path / "data" / "train.csv")
    for count, (name, rows) in enumerate(
        [
            ("copy.csv", test),
            ("reversed.csv", test[::-1]),
            ("rows.jsonl", test),
            ("half.csv", test[:5]),
            ("more.csv", [*test, *train, *train, *train]),
            ("relabelled.csv", [[text, LABELS[0]] for text, _ in test]),
        ],
        2,
    ):
        reads, remarks = evaluate(run, tmp_path / name, rows)
        assert (reads, remarks) == (count, [f"these are test rows of {run}, which were read {count} times now"])


def test_other_rows_are_not_counted(run: Path, tmp_path: Path) -> None:
    test, train = rows_of(tmp_path / "data" / "test.csv"), rows_of(tmp_path / "data" / "train.csv")
    for name, rows in (("train.csv", train), ("few.csv", [*train, *test[:29]]), ("new.csv", [["new", LABELS[0]]] * 3)):
        assert evaluate(run, tmp_path / name, rows) == (1, []), name
    shutil.rmtree(run / "adapters")
    (tmp_path / "alone").mkdir()
    split = load_labelled(str(tmp_path / "data" / "test.csv"), Columns(), TASK)
    assert list(record_test_reads([tmp_path / "alone"], split, LABELS)) == []


def test_the_fingerprint_suffices_if_the_data_have_gone(run: Path, tmp_path: Path) -> None:
    test = rows_of(tmp_path / "data" / "test.csv")
    split = load_labelled(str(tmp_path / "data" / "test.csv"), Columns(), TASK)
    change_results(run, {}, test_fingerprint=fingerprint_rows(split, LABELS))
    shutil.rmtree(tmp_path / "data")
    assert evaluate(run, tmp_path / "copy.csv", test)[0] == 2
    assert evaluate(run, tmp_path / "reversed.csv", test[::-1]) == (2, [])


def test_a_run_that_cannot_be_written_is_a_remark(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("loralet.runs.test_reads.write_results", refused)
    reads, (remark,) = evaluate(run, tmp_path / "copy.csv", rows_of(tmp_path / "data" / "test.csv"))
    assert reads == 1
    assert "this read of them cannot be recorded" in remark
