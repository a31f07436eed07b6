"""Names in benchmarks/ are consistent and match the committed results; compare.py compares two checkouts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import accuracy
import compare
import defaults
import memory
import pytest
from contenders import CONTENDERS
from machine import describe_machine
from process import UnknownContenderError
from speed import RATIOS, ratios, summary
from work import Measured

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def report(name: str) -> Any:
    """A committed benchmark result."""
    return json.loads((BENCHMARKS / f"{name}.json").read_text(encoding="utf-8"))


def test_ratios_and_compared_work_name_existing_contenders() -> None:
    assert {name for ratio in RATIOS for name in (ratio.faster, ratio.slower)} <= CONTENDERS.keys()
    assert {names[0] for names in compare.WORKS.values()} <= CONTENDERS.keys()


def test_committed_results_use_current_names() -> None:
    assert report("speed")["rows"].keys() <= CONTENDERS.keys()
    assert {ratio["name"] for ratio in report("speed")["ratios"]} <= {ratio.name for ratio in RATIOS}
    assert {row["name"] for row in report("accuracy")["rows"]} <= set(accuracy.ORDER)
    assert [row["name"] for row in report("defaults")["rows"]] == list(defaults.VARIANTS)


def test_every_report_describes_its_machine() -> None:
    wanted = describe_machine().keys() - {"instructions"}
    for path in BENCHMARKS.glob("*.json"):
        assert wanted <= report(path.stem)["machine"].keys(), path.name


def test_medians_and_ratios_of_measured_contenders() -> None:
    def measured(*speeds: float) -> list[Measured]:
        return [{"rows_per_second": speed, "seconds": 1.0, "peak_bytes": 10 * speed} for speed in speeds]

    rounds = measured(100.0, 300.0, 150.0)
    assert summary(rounds) == {
        "rows_per_second": 150.0,
        "all": [100.0, 300.0, 150.0],
        "seconds": 1.0,
        "peak_bytes": 3000.0,
    }
    found = ratios({"loralet, one run": rounds, "loralet, one run, torch backend": measured(60.0, 50.0, 70.0)})
    assert [(ratio["name"], ratio["ratio"]) for ratio in found] == [("native against torch backend, one run", 2.5)]


@pytest.mark.parametrize(("speed", "status"), [(98.0, 0), (96.0, 1)])
def test_compare_uses_older_names_and_reports_slower_work(
    speed: float, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new, old = compare.WORKS["pack of nine with checks"]

    def run(name: str, arguments: object, checkout: Path) -> Measured:
        if name != (old if checkout == tmp_path else new):
            raise UnknownContenderError(name)
        return {"rows_per_second": 100.0 if checkout == tmp_path else speed}

    monkeypatch.setattr(compare, "run_contender", run)
    monkeypatch.setattr(sys, "argv", ["compare.py", str(tmp_path), "data", "model", "--only", "with checks"])
    assert compare.main() == status
    assert f"{speed / 100:.3f}" in capsys.readouterr().out


def test_compare_names_a_checkout_without_the_contender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str, arguments: object, checkout: Path) -> Measured:
        raise UnknownContenderError(name)

    monkeypatch.setattr(compare, "run_contender", run)
    with pytest.raises(SystemExit, match="no contender 'one' or 'two'"):
        compare.speed(("one", "two"), compare.Arguments("data", "model", 1), tmp_path)


def test_the_memory_estimate_is_close_to_the_committed_measurements() -> None:
    rows = report("memory")["rows"]
    assert [row["name"] for row in rows] == list(memory.CELLS)
    for row in rows:
        assert memory.row_of(row["name"], row) == row
        assert 0.8 <= row["ratio"] <= 1.25, row["name"]


def test_the_memory_of_a_pack_is_measured_and_estimated() -> None:
    cell = memory.Cell("2x128", 9, 32, "torch", "all-linear", "dora", 0.1)
    assert cell.name == "2x128, 9 runs, 32 tokens, torch, all-linear, dora, dropout 0.1"
    assert {run.adapter.rank for run in cell.members} == {4, 16, 32}
    assert memory.load_of(cell, 4).native == ()
    assert memory.load_of(memory.Cell("2x128", 1, 32), 4).native == ("lora",)
    assert len(memory.rows_of(5, 7).tokens.ids) == 35
