"""The values of a report, on run folders with known predictions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from run_folders import (
    INPUTS,
    LABELS,
    NASTY,
    NATIVE,
    OUTPUTS,
    RIGHT,
    TEST_ROWS,
    as_schema_1,
    change_results,
    write_data,
    write_study,
    write_train,
)
from safetensors.numpy import load_file, save_file

from loralet.adapters.spec import AdapterSpec
from loralet.config import StudyConfig
from loralet.config.toml import read_options
from loralet.errors import RunError
from loralet.events import Checked, Halved, event_line
from loralet.records import plain
from loralet.report.analysis import Analysis, analyse
from loralet.report.class_scores import classes_text
from loralet.report.comparisons import choose
from loralet.report.configurations import Configuration
from loralet.report.coverage import coverage_of, coverage_text
from loralet.report.grids import Trend
from loralet.report.page import write_report
from loralet.report.sections.base import Answer, ExampleRow, ExampleTable, Measure, ShownRuns
from loralet.report.sections.registry import SECTIONS, section_of
from loralet.report.sections.single_label import SingleLabelSection
from loralet.report.statistics import holm, paired, wilson
from loralet.report.tables import class_table, tables
from loralet.report.text import trend_sentence
from loralet.report.wording import NO_BREAK, p_value, points
from loralet.runs.record import Record
from loralet.runs.results import RunResult, read_results
from loralet.runs.selection import chosen_run
from loralet.tasks.registry import TASKS
from loralet.tasks.single_label import SingleLabel


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("analysis")
    write_data(folder / "data")
    write_study(folder / "one", folder / "data")
    write_study(folder / "seeds", folder / "data", models=("./base", "./twin"), seeds=(0, 1))
    return folder


@pytest.fixture(scope="module")
def one(place: Path) -> Analysis:
    return analyse(place / "one")


@pytest.fixture(scope="module")
def seeds(place: Path) -> Analysis:
    return analyse(place / "seeds")


def section(analysis: Analysis) -> SingleLabelSection:
    assert isinstance(analysis.section, SingleLabelSection)
    return analysis.section


def row(analysis: Analysis, name: str) -> Configuration:
    return next(r for r in analysis.configurations if r.name == name)


def test_the_rows_and_the_winner(one: Analysis) -> None:
    assert [r.name for r in one.configurations] == [
        "majority class", "TF-IDF + linear SVM", "random head", "linear probe", "r2 α8", "r2 α16", "r4 α8", "r4 α16",
    ]  # fmt: skip
    assert one.winner == "r4 α16"
    assert one.shown_run == "lora-r4-a16-lr0.0015-s0"
    best = one.best
    assert best.test is not None
    assert best.test.mean == pytest.approx(54 / 60)
    assert (best.test.low, best.test.high) == pytest.approx(wilson(54, 60))
    assert best.test.sd is None
    assert best.adapter is not None
    assert (best.adapter.scale, best.effective) == (4.0, 0.006)
    assert (best.trainable, best.counted) == (4 * (INPUTS + OUTPUTS) + 9, True)
    assert best.rows_per_second == pytest.approx(60 * 4 / 3.0)
    assert best.bytes is not None
    assert best.bytes > best.trainable * 4
    assert best.convergence is not None
    assert (best.convergence.text, best.rows, best.to_target_seconds) == ("20", 80.0, pytest.approx(1.0))
    late = row(one, "r2 α8").convergence
    assert late is not None
    assert late.text == ">60"
    assert row(one, "r2 α8").rows is None


def test_comparisons_with_the_winner(one: Analysis) -> None:
    rows = np.arange(TEST_ROWS)
    others = {"majority class": 20, "TF-IDF + linear SVM": 52, "linear probe": 35} | {
        f"r{rank} α{alpha:g}": right for (rank, alpha), right in RIGHT.items() if right != 54
    }
    p = {name: paired((rows < right)[None], (rows < 54)[None]).p for name, right in others.items()}
    corrected = dict(zip(p, holm(list(p.values())), strict=True))
    for name, right in others.items():
        versus = row(one, name).versus
        assert versus is not None
        assert versus.difference == pytest.approx((54 - right) / 60)
        assert (versus.p, versus.p_holm) == (pytest.approx(p[name]), pytest.approx(corrected[name]))
        assert row(one, name).tied == (corrected[name] >= 0.05)
    assert {r.name for r in one.configurations if r.tied} == {"r4 α8", "TF-IDF + linear SVM"}
    assert row(one, "random head").versus is None


def test_a_baseline_without_seeds_is_compared_with_every_seed_of_the_winner(seeds: Analysis) -> None:
    rows = np.arange(TEST_ROWS)
    versus = row(seeds, "TF-IDF + linear SVM").versus
    assert versus is not None
    expected = paired(np.stack([rows < 52, rows < 52]), np.stack([rows < 54, rows < 55]))
    assert (versus.difference, versus.low, versus.high, versus.p) == pytest.approx(
        (2.5 / 60, expected.low, expected.high, expected.p)
    )
    assert "2 seeds" in versus.method
    assert any("compared row by row with each of the winner's 2 seeds" in sentence for sentence in seeds.caveats)


def test_sentences_about_the_linear_model_on_words(one: Analysis, place: Path, tmp_path: Path) -> None:
    versus = row(one, "TF-IDF + linear SVM").versus
    assert versus is not None
    assert (
        f"86.7\u00a0%, which the paired test cannot distinguish from it (−3.3 points, {p_value(versus.p_holm)}; no gain"
        in one.answer[1]
    )
    assert any(f"TF-IDF + linear SVM −3.3 points ({p_value(versus.p_holm)})" in sentence for sentence in one.caveats)
    assert any(sentence.startswith("First consider TF-IDF") for sentence in one.recommendations)
    worse = write_study(tmp_path / "worse", place / "data")
    predict(
        worse,
        "predicted/tfidf-svm",
        np.where(np.arange(TEST_ROWS) < 30, np.arange(TEST_ROWS) % 3, (np.arange(TEST_ROWS) + 1) % 3),
    )
    told = analyse(worse, with_texts=False)
    assert f"{NO_BREAK}%, −40.0 points, p{NO_BREAK}<{NO_BREAK}0.001." in told.answer[1]
    # the recorded value is still in the interval, so the recommendation follows the paired test
    assert not any("consider TF-IDF" in sentence for sentence in told.recommendations)


def test_baselines_without_predictions_are_compared_by_intervals(place: Path, tmp_path: Path) -> None:
    old = write_study(tmp_path / "old", place / "data")
    predict(old, "predicted/tfidf-svm", None)
    predict(old, "predicted/majority", None)
    told = analyse(old, with_texts=False)
    assert row(told, "TF-IDF + linear SVM").versus is None
    assert row(told, "r4 α8").versus is not None
    assert "with an overlapping interval, so no gain from LoRA is shown" in told.answer[1]
    assert any("compared by intervals, not by a paired test" in sentence for sentence in told.caveats)
    assert any(sentence.startswith("First consider TF-IDF") for sentence in told.recommendations)


def predict(folder: Path, name: str, classes: np.ndarray | None) -> None:
    """Put other predictions into a run folder, or take them out."""
    path = folder / "predictions.safetensors"
    tensors = load_file(path) | ({name: classes} if classes is not None else {})
    save_file({key: value for key, value in tensors.items() if key != name or classes is not None}, path)


@pytest.mark.parametrize(
    ("difference", "said"),
    [(0.031, "+3.1 points"), (-0.031, "−3.1 points"), (-0.0004, "+0.0 points"), (0.0, "+0.0 points")],
)
def test_a_difference_that_rounds_to_zero_has_a_plus_sign(difference: float, said: str) -> None:
    assert points(difference) == said


def test_pareto_fronts(one: Analysis) -> None:
    fronts = {r.name: r.front for r in one.configurations}
    assert "trainable" in fronts["linear probe"]
    assert "trainable" in fronts["r2 α16"]
    assert fronts["r2 α8"] == ()
    assert set(fronts["r4 α16"]) == {"trainable", "bytes", "seconds"}


def test_grids_and_trends(one: Analysis) -> None:
    (grid,) = one.grids
    assert (grid.ranks, grid.alphas) == ((2, 4), (8.0, 16.0))
    cells = {(c.rank, c.alpha): c for c in grid.cells}
    assert {key: cell.accuracy for key, cell in cells.items()} == {
        key: pytest.approx(right / 60) for key, right in RIGHT.items()
    }
    assert {key: cell.text for key, cell in cells.items()} == {
        (2, 8.0): ">60",
        (2, 16.0): "40",
        (4, 8.0): "30",
        (4, 16.0): "20",
    }
    assert {key: cell.effective for key, cell in cells.items()} == {
        (2, 8.0): 0.006, (2, 16.0): 0.012, (4, 8.0): 0.003, (4, 16.0): 0.006,
    }  # fmt: skip
    (trend,) = one.trends
    # Ranks of alpha 1.5 3.5 1.5 3.5, of accuracy 1 2 3 4: Spearman 1 / sqrt(5); of rank 1.5 1.5 3.5 3.5: 2 / sqrt(5)
    assert trend.accuracy_alpha == pytest.approx(1 / 5**0.5)
    assert trend.accuracy_rank == pytest.approx(2 / 5**0.5)
    assert trend.late_rank == pytest.approx(-2 / 5**0.5)
    (equal,) = trend.equal
    assert (equal.effective, equal.names) == (0.006, ("r2 α8", "r4 α16"))
    assert any("same effective scale (0.006)" in sentence for sentence in one.findings)


def test_curves(one: Analysis) -> None:
    best = next(curve for curve in one.losses if curve.best)
    assert (best.run, len(best.steps), best.steps[0], best.steps[-1]) == (one.shown_run, 60, 1, 60)
    assert best.y[0] == pytest.approx(5.0)  # the fifth run of its pack: 5 / step
    accuracy = next(curve for curve in one.accuracies if curve.best)
    assert accuracy.steps == (10, 20, 30, 40, 50, 60)
    assert accuracy.y[-1] == pytest.approx(0.9)
    assert [curve.best for curve in one.losses].count(True) == 1


def test_confusion_and_calibration(one: Analysis) -> None:
    assert section(one).confusion == ((18, 2, 0), (0, 18, 2), (2, 0, 18))
    calibration = section(one).calibration
    assert [(b.rows, b.accuracy) for b in calibration.bins] == [(6, 0.0), (54, 1.0)]
    assert calibration.ece == pytest.approx(0.1 * 0.75 + 0.9 * 0.2)


def test_examples(one: Analysis) -> None:
    found = section(one).examples
    assert found.note == ""
    assert (len(found.sampled), found.unit) == (10, "line")
    for example in found.sampled:
        place = example.row - 2  # below the header
        assert example.text == (NASTY if place == 0 else f"test text {place}")
        assert example.label == LABELS[place % 3]
        assert (example.winner.label == example.label) == (place < 54)
        assert example.chance is not None
        assert (example.chance.label == example.label) == (place < 18)
        assert sum(example.winner.probabilities) == pytest.approx(1)
    assert [example.row for example in found.wrong] == [56, 57, 58, 59, 60, 61]
    # Thresholds of the four runs' means are about 0.66; from row 55 on, all four are wrong and another class has 0.75.
    assert found.suspect_count == 6
    assert sorted(example.row for example in found.suspects) == [56, 57, 58, 59, 60, 61]
    assert all(example.suspected for example in found.wrong)
    assert not any(example.suspected for example in found.sampled if example.row < 56)


def test_without_texts_the_data_is_not_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the data source was read")

    monkeypatch.setattr("loralet.report.sections.examples.dataset_of", refuse)
    analysis = analyse(place / "one", with_texts=False)
    found = section(analysis).examples
    assert all(example.text is None for example in (*found.sampled, *found.wrong, *found.suspects))
    assert (found.unit, [example.row for example in found.wrong]) == ("row", [55, 56, 57, 58, 59, 60])
    assert "test text" not in json.dumps(analysis.to_json())
    with pytest.raises(AssertionError, match="data source was read"):
        analyse(place / "one")


def test_showing_texts_does_not_count_as_a_test_read(place: Path) -> None:
    before = (place / "one" / "results.json").read_bytes()
    assert analyse(place / "one").test_reads == 1
    assert (place / "one" / "results.json").read_bytes() == before


def test_changed_data_is_not_shown(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    write_study(tmp_path / "run", tmp_path / "data")
    with (tmp_path / "data" / "test.csv").open("a") as file:
        file.write("one more,apple\n")
    found = section(analyse(tmp_path / "run")).examples
    assert "fingerprint differs" in found.note
    assert all(example.text is None for example in found.sampled)
    (tmp_path / "data" / "train.csv").unlink()
    told = analyse(tmp_path / "run")
    assert "cannot be read" in section(told).examples.note
    assert told.note == section(told).examples.note


def test_seeds_are_grouped_and_equal_models_are_merged(seeds: Analysis) -> None:
    (model,) = seeds.models
    assert model.names == ("./base", "./twin")
    assert model.label == "base = twin"
    assert [r.name for r in seeds.configurations if r.role == "lora"] == ["r2 α8", "r2 α16", "r4 α8", "r4 α16"]
    best = seeds.best
    assert best.seeds == (0, 1)
    assert best.runs == ("base-lora-r4-a16-lr0.0015-s0", "base-lora-r4-a16-lr0.0015-s1")
    assert best.test is not None
    assert best.test.mean == pytest.approx(54.5 / 60)
    assert best.test.sd == pytest.approx(np.std([54 / 60, 55 / 60], ddof=1))
    assert best.test.low < 54.5 / 60 < best.test.high
    assert seeds.shown_run == "base-lora-r4-a16-lr0.0015-s1"
    versus = row(seeds, "r2 α8").versus
    assert versus is not None
    assert "2 seeds" in versus.method
    assert any("equal tensors" in sentence for sentence in seeds.caveats)
    assert any("duplicates" in sentence for sentence in seeds.caveats)
    assert not any("single seed" in sentence for sentence in seeds.caveats)


def test_words(one: Analysis) -> None:
    assert (
        one.question
        == "How accurate is LoRA on base, and how do rank and alpha affect convergence, accuracy and stability?"
    )
    assert len(one.answer) == 3
    assert "rank 4, alpha 16" in one.answer[0]
    assert "90.0\u00a0%" in one.answer[0]
    assert "chance (the random head)" in one.answer[1]
    assert any("single seed" in sentence for sentence in one.caveats)
    assert one.recommendations[0].startswith("Rank: 4")
    assert any(sentence.startswith("Learning rate: 0.0015 is the only one tried") for sentence in one.recommendations)
    assert any("TF-IDF" in sentence for sentence in one.recommendations)  # 52 of 60 lies within the winner's interval


def test_the_error_of_a_check_depends_on_its_number_of_rows(one: Analysis) -> None:
    # three validation rows, fewer than the sample size of 512: Wilson's interval of 2 in 3 is 0.21 to 0.94
    assert any(
        "a fixed sample of 3 validation rows. The error of a check is about ± 37 points." in sentence
        for sentence in one.caveats
    )


def test_two_tied_configurations(place: Path, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "alike", place / "data")
    path = folder / "results.json"
    results = json.loads(path.read_text())
    kept = ("lora-r4-a16-lr0.0015-s0", "lora-r4-a8-lr0.0015-s0")
    results["runs"] = [run for run in results["runs"] if run["role"] != "lora" or run["id"] in kept]
    path.write_text(json.dumps(results))
    best = next(run for run in results["runs"] if run["id"] == kept[0])
    change_results(folder, {kept[1]: {"test": best["test"]}})
    told = analyse(folder, with_texts=False)
    assert "; the other LoRA configuration cannot be distinguished from it)" in told.answer[0]
    assert (
        told.answer[2]
        == f"Over the grid, accuracy is 90.0{NO_BREAK}% for all configurations; there are too few cells for a trend."
    )


def trend(**numbers: float | None) -> Trend:
    given: dict[str, float | None] = dict.fromkeys(
        (
            "accuracy_alpha",
            "accuracy_rank",
            "accuracy_effective",
            "late_alpha",
            "late_rank",
            "late_effective",
            "alpha_is_effective",
        ),
        0.0,
    )
    return Trend(title="", cells=9, equal=(), **(given | numbers))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("numbers", "words", "absent"),
    [
        ({}, "shows no trend with alpha", "rank"),
        ({"accuracy_rank": 0.9}, "rises with rank (Spearman +0.90), but shows no trend with alpha", "significant"),
        (
            {"accuracy_alpha": -0.7, "accuracy_effective": -0.75},
            "so the apparent effect of alpha is also an effect of step size",
            "significant",
        ),
        ({"accuracy_alpha": -0.6, "accuracy_effective": -0.6}, "not significant with 9 cells", "rank"),
        (
            {"accuracy_alpha": 0.8, "accuracy_effective": 0.3},
            "rises with alpha (Spearman +0.80) more than",
            "step size",
        ),
        (
            {"accuracy_alpha": None, "accuracy_effective": -0.9, "accuracy_rank": 0.9},
            "rises with rank (Spearman +0.90); it falls",
            "step size",
        ),
    ],
)
def test_sentences_about_a_trend(numbers: dict[str, float | None], words: str, absent: str) -> None:
    said = trend_sentence(trend(**numbers))
    assert words in said
    assert absent not in said


def test_early_exits_are_counted(place: Path, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "early", place / "data")
    early = {"steps": 20, "status": "early-stopped", "train_seconds": 1.0}
    change_results(folder, {"lora-r2-a8-lr0.0015-s0": early})
    savings = analyse(folder, with_texts=False).savings
    assert (savings.runs, savings.stopped, savings.diverged) == (5, 1, 0)
    assert (savings.steps_saved, savings.steps_planned, savings.seconds) == (40, 300, pytest.approx(2.0))


def halved(folder: Path) -> Path:
    """A study in which three LoRA runs stopped at two rungs of its pack. Checks rise to each run's accuracy."""
    names = {(rank, alpha): f"lora-r{rank}-a{alpha:g}-lr0.0015-s0" for rank, alpha in RIGHT}
    first = Halved(
        20, 1, tuple(names[key] for key in ((4, 16.0), (4, 8.0), (2, 16.0), (2, 8.0))), (0.30, 0.28, 0.25, 0.10), 2
    )
    second = Halved(30, 2, (names[4, 16.0], names[4, 8.0]), (0.45, 0.44), 1)
    with (folder / "metrics.jsonl").open("a") as file:
        early = Checked(10, names[4, 8.0], 0.99, 1.0, 100, True)  # a score before the rung is not a gain after it
        file.writelines(f"{event_line(event)}\n" for event in (early, first, second))
    left = {names[2, 8.0]: 20, names[2, 16.0]: 20, names[4, 8.0]: 30}
    change_results(
        folder, {id: {"steps": steps, "status": "halved"} for id, steps in left.items()}, validation_rows=100
    )
    return folder


def test_the_possible_cost_of_halving(place: Path, tmp_path: Path, one: Analysis) -> None:
    told = analyse(halved(write_study(tmp_path / "halved", place / "data")), with_texts=False)
    cost = told.savings.cost
    assert cost is not None
    assert cost.gaps == pytest.approx((0.03, 0.18, 0.01))
    assert cost.errors == pytest.approx(
        ((wilson(28, 100)[1] - wilson(28, 100)[0]) / 2,) * 2 + ((wilson(45, 100)[1] - wilson(45, 100)[0]) / 2,)
    )
    # the two runs continuing at step 20 end at 54 and 50 of 60 rows; the one continuing at step 30 ends at 54
    assert cost.gains == pytest.approx((0.9 - 0.30, 50 / 60 - 0.28, 0.9 - 0.45))
    (said,) = [sentence for sentence in told.findings if "halving" in sentence]
    assert "3 left at a rung of successive halving, which saved 110 of 300 steps" in said
    assert (
        "Possible cost of halving: the runs that left were 1.0 to 18.0 points (median 3.0) below the last run that "
        "continued; the error of a check on 100 rows is about ± 8.7 points, so for 2 of 3 the order may be due "
        "to chance. Runs that continued gained 55.3 points (median) between a rung and their best later check."
    ) in said
    assert one.savings.cost is None
    assert not any("halving" in sentence for sentence in one.findings)


def test_a_single_run_and_a_run_without_a_test_split(place: Path, tmp_path: Path) -> None:
    single = analyse(write_train(tmp_path / "single", place / "data"))
    assert single.winner == "r4 α8"
    assert single.question == "Classifier for data: apple, bird and cat <b>&"
    assert single.trends == ()
    blind = analyse(write_study(tmp_path / "blind", place / "data", test=False))
    assert blind.winner == "r4 α16"
    assert (blind.best.test, blind.section, blind.note) == (None, None, "")
    assert "no test split" in blind.answer[0]


def test_the_whole_analysis_is_written_as_json(one: Analysis, seeds: Analysis) -> None:
    for analysis in (one, seeds):
        assert json.loads(json.dumps(analysis.to_json(), allow_nan=False))["winner"] == "r4 α16"


@pytest.mark.parametrize(
    ("remove", "words"),
    [
        (("results.json",), "did not finish"),
        (("results.json", "config.toml"), "not a run folder"),
        (("metrics.jsonl",), "metrics.jsonl missing"),
        (("predictions.safetensors",), "predictions.safetensors missing"),
    ],
)
def test_folders_without_a_report_are_rejected(
    place: Path, tmp_path: Path, remove: tuple[str, ...], words: str
) -> None:
    folder = write_study(tmp_path / "broken", place / "data")
    for name in remove:
        (folder / name).unlink()
    with pytest.raises(RunError, match=words):
        analyse(folder)


def test_an_invalid_line_is_reported_with_its_number(place: Path, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "cut", place / "data")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"event": "Step')
    lines = len((folder / "metrics.jsonl").read_text().splitlines())
    with pytest.raises(RunError, match=f"line {lines} is not JSON"):
        analyse(folder)


def test_a_folder_of_schema_1_gives_the_same_report(place: Path, tmp_path: Path) -> None:
    """Results, adapters, options, events and environment as written by version 0.1. Only the backends are unknown."""
    made = write_study(tmp_path / "study", place / "data", seeds=(0, 1))
    new = analyse(halved(made))
    assert [session.backend for session in new.environment.backends] == [NATIVE]
    old = analyse(as_schema_1(made))
    assert old.environment.backends == ()
    assert old.to_json() == replace(new, environment=replace(new.environment, backends=())).to_json()
    assert json.loads((made / "results.json").read_text())["schema"] == 1
    assert "accuracy" in (made / "metrics.jsonl").read_text()


def test_a_single_run_of_schema_1(place: Path, tmp_path: Path) -> None:
    made = write_train(tmp_path / "train", place / "data")
    new = analyse(made)
    assert analyse(as_schema_1(made)).configurations == new.configurations


def test_a_study_of_schema_1_can_be_read() -> None:
    """A study of the first version, compared with parts of the analysis that it wrote."""
    folder = Path(__file__).parents[1] / "data" / "study-of-schema-1"
    published = json.loads((folder / "analysis.json").read_text())
    results = read_results(folder)
    assert (results.kind, results.task, results.selection, results.test_reads) == (
        "study",
        "single-label",
        "accuracy",
        1,
    )
    assert plain(results.data) == published["data"] | {
        "folds": None,
        "lengths": [],
        "text_columns": [],
        "label_column": "",
        "label_type": "str",
        "test_fingerprint": "",
    }
    assert {run.id for run in results.runs} == {run for row in published["configurations"] for run in row["runs"]}
    for row in published["configurations"]:
        runs = [results.run(id) for id in row["runs"]]
        assert {run.role for run in runs} == {row["role"]}
        assert fmean(run.test["accuracy"] for run in runs if run.test) == pytest.approx(row["test"]["mean"])
        assert fmean(run.validation["accuracy"] for run in runs if run.validation) == pytest.approx(row["validation"])
        if row["role"] == "lora":
            spec = AdapterSpec("lora", row["rank"], row["alpha"], row["dropout"], ("query", "value"), row["scaling"])
            assert {run.adapter for run in runs} == {spec}
            assert runs[0].trainable_parameters == row["trainable"]
        else:
            assert {run.adapter for run in runs} == {None}
    assert any(f"predict use {chosen_run(results).id}" in sentence for sentence in published["caveats"])
    assert read_options(folder / "config.toml", StudyConfig).training.target_score == published["target"]


def test_a_task_has_its_own_section(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another task needs one registry entry; its section, columns and tables are then shown."""
    folder = write_study(tmp_path / "other", place / "data")
    path = folder / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"task": "other"}))
    with pytest.raises(RunError, match="the task of this run folder is 'other'; known tasks: single-label"):
        analyse(folder)
    monkeypatch.setitem(TASKS, "other", SingleLabel)
    with pytest.raises(RunError, match="the task of this run folder is 'other'; a report supports single-label"):
        analyse(folder)
    monkeypatch.setitem(SECTIONS, "other", OtherKind())
    told = analyse(folder)
    assert told.section == OtherSection("lora-r4-a16-lr0.0015-s0", "random-s0", 4)
    assert section_of("single-label") is SingleLabelSection
    write_report(told, folder / "report.html", folder / "report.md")
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text()
        assert "Rows of another task" in text
        assert "hits" in text
        assert "confusion" not in text
    assert [line.cells[-4].text for line in tables(told)["results"].lines][-1] == "54"
    assert plain(told)["section"] == {"winner": "lora-r4-a16-lr0.0015-s0", "chance": "random-s0", "adapters": 4}


@dataclass(frozen=True)
class OtherSection:
    """A section without figures."""

    winner: str
    chance: str | None
    adapters: int

    @property
    def note(self) -> str:
        return "There are no texts."

    def drawings(self) -> tuple[()]:
        return ()

    def tables(self) -> list[ExampleTable]:
        answers = (Answer("apple", True, "90", ""),)
        rows = (ExampleRow(1, None, "apple", answers, "†"), ExampleRow(2, None, "bird", answers))
        return [ExampleTable("Rows of another task", "Two rows.", ("model",), rows)]


class OtherKind:
    """The columns and the builder of the section."""

    measures = (Measure("hits", "rows that are right", "{:.0f}"),)

    def measure(self, record: Record, runs: Sequence[RunResult]) -> dict[str, float | None]:
        return {"hits": fmean(round(run.test["accuracy"] * TEST_ROWS) for run in runs if run.test)}

    def build(self, record: Record, shown: ShownRuns, with_texts: bool) -> OtherSection:
        return OtherSection(shown.winner, shown.chance, len(shown.adapters))


def test_choosing_a_configuration_counts_diverged_seeds_first_and_then_ranks(one: Analysis) -> None:
    best, other = one.best, row(one, "r4 α8")
    assert choose([other, best]) is best
    assert best.validation is not None
    assert best.validation_loss is not None
    assert choose([other, replace(best, diverged=0.5)]) is other
    equal = replace(other, validation=best.validation)
    surer = replace(equal, validation_loss=best.validation_loss - 0.01)
    assert choose([best, surer]) is surer
    assert choose([best, replace(equal, validation_loss=None)]) is best  # a missing loss ranks last
    smaller = replace(equal, validation_loss=best.validation_loss, trainable=best.trainable - 1)
    assert choose([best, smaller]) is smaller
    assert choose([replace(best, validation=None)]) is None


def test_the_shown_seed_is_the_one_of_lower_loss_among_equals(place: Path, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "equal", place / "data", seeds=(0, 1))
    runs = {run.id: run for run in read_results(folder).runs}
    first, second = (f"lora-r4-a16-lr0.0015-s{seed}" for seed in (0, 1))
    scores = runs[second].validation
    assert scores is not None
    for loss, shown in ((0.3, first), (0.9, second)):
        change_results(folder, {first: {"validation": scores.to_json() | {"loss": loss}}})
        change_results(folder, {second: {"validation": scores.to_json() | {"loss": 0.5}}})
        assert analyse(folder, with_texts=False).shown_run == shown


def test_recommendations_if_lora_is_not_the_winner(place: Path, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "probe", place / "data")
    perfect = dict.fromkeys(("accuracy", "macro_precision", "macro_recall", "macro_f1"), 1.0) | {"loss": 0.0}
    change_results(folder, {"probe-s0": {"validation": perfect}})
    told = analyse(folder, with_texts=False)
    assert told.winner == "linear probe"
    assert told.recommendations[0] == "Rank: 4 (r4 α16). Validation chose it."
    assert told.recommendations[1].startswith("Alpha: 16, as in r4 α16; with rank 4")


def test_the_advice_to_use_more_seeds(one: Analysis, place: Path, tmp_path: Path) -> None:
    assert one.caveats[0].endswith("Repeat with --seeds 0 1 2.")
    single = analyse(write_train(tmp_path / "single", place / "data"), with_texts=False)
    assert not any("--seed " in sentence or "Repeat" in sentence for sentence in single.caveats)
    assert any(f"loralet study {place / 'data'} --seeds 0 1 2" in sentence for sentence in single.caveats)


def test_names_contain_the_settings_that_differ(place: Path, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "varied", place / "data")
    path = folder / "results.json"
    results = json.loads(path.read_text())
    results["runs"] = [run for run in results["runs"] if run["role"] == "lora"]
    settings = ({}, {"dropout": 0.1}, {"scaling": "rslora"}, {"targets": ["query", "value"]})
    for run, own in zip(results["runs"], settings, strict=True):
        run["adapter"] |= {"rank": 4, "alpha": 8.0} | own
    path.write_text(json.dumps(results))
    told = analyse(folder, with_texts=False)
    assert [r.name for r in told.configurations] == [
        "r4 α8 dropout 0 query alpha/r",
        "r4 α8 dropout 0.1 query alpha/r",
        "r4 α8 dropout 0 query rslora",
        "r4 α8 dropout 0 query+value alpha/r",
    ]
    assert [grid.title for grid in told.grids][1] == "base, lr 0.0015, dropout 0.1, query, alpha/r"


def test_the_scores_of_each_class_are_those_of_the_confusion_matrix(one: Analysis) -> None:
    """Rows by label: 18 2 0, 0 18 2, 2 0 18."""
    assert one.classes
    assert (one.classes.run, one.classes.split) == (one.shown_run, "test")
    assert [scores.label for scores in one.classes.scores] == list(LABELS)
    for scores in one.classes.scores:
        assert (scores.support, scores.predicted) == (20, 20)
        assert [scores.precision, scores.recall, scores.f1] == pytest.approx([0.9] * 3)
    table = class_table(one)
    assert table
    assert [line.cells[0].text for line in table.lines] == list(LABELS)
    assert [cell.text for cell in table.lines[0].cells[1:]] == ["0.9000", "0.9000", "0.9000", "20", "20"]


def test_the_weakest_class_is_named(place: Path, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "weak", place / "data", test=False)
    assert analyse(folder).classes is None
    path = folder / "results.json"
    scores = [
        {"label": "apple", "precision": 1.0, "recall": 0.5, "f1": 2 / 3, "support": 2, "predicted": 1},
        {"label": "bird", "precision": 0.5, "recall": 1.0, "f1": 0.7, "support": 1, "predicted": 2},
        {"label": "cat", "precision": None, "recall": None, "f1": None, "support": 0, "predicted": 0},
    ]
    classes = [{"run": "lora-r4-a16-lr0.0015-s0", "split": "validation", "scores": scores}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"classes": classes}))
    told = analyse(folder)
    assert told.classes
    assert classes_text(told.classes) == (
        "Precision, recall and F1 of lora-r4-a16-lr0.0015-s0 on 3 validation rows. – marks a class without rows or "
        "predictions. The weakest class is apple: recall 50.0\u00a0%, precision 100.0\u00a0%, 2 rows."
    )
    write_report(told, folder / "report.html", folder / "report.md")
    assert "The weakest class is apple" in (folder / "report.html").read_text()
    assert "| cat | – | – | – | 0 | 0 |" in (folder / "report.md").read_text()


def test_the_curve_of_coverage_and_the_confidences_of_wanted_accuracies(one: Analysis) -> None:
    """54 rows are right at 0.8, 6 are wrong at 0.75."""
    curve = section(one).coverage
    assert [(p.confidence, p.coverage, p.accuracy) for p in curve.points] == [
        (pytest.approx(0.8), 0.9, 1.0),
        (pytest.approx(0.75), 1.0, 0.9),
    ]
    assert [wanted for wanted, _ in curve.thresholds] == [0.95, 0.99]
    for _, at in curve.thresholds:
        assert at
        assert (at.threshold, at.rows, at.right, at.total) == (0.8, 54, 54, 60)
    text = coverage_text(curve, "a run")
    assert "Accuracy reaches 95\u00a0% at 0.8 (90.0\u00a0% of the rows) and 99\u00a0% at 0.8" in text
    unsure = np.array([[0.6, 0.4], [0.6, 0.4], [0.7, 0.3]])
    assert "No confidence gives 80\u00a0%, 90\u00a0%, 95\u00a0% and 99\u00a0%" in coverage_text(
        coverage_of(unsure, np.array([0, 1, 1])), "a run"
    )


def test_the_caption_tells_how_the_probabilities_were_calibrated(place: Path, tmp_path: Path, one: Analysis) -> None:
    folder = write_study(tmp_path / "scaled", place / "data")
    assert "temperature" not in section(one).drawings()[0].caption
    for fitted, words in (
        (
            True,
            "divided by the temperature 1.5, fitted on 150 validation rows. Calibration error without it: 0.091.",
        ),
        (False, "Its probabilities are not calibrated: 150 validation rows are fewer than 10."),
    ):
        error = {"before": 0.0912, "after": 0.0345}
        found = {"temperature": 1.5, "rows": 150, "fitted": fitted, "validation": error, "test": error}
        change_results(folder, {section(one).shown.winner: {"calibration": found}})
        assert words in section(analyse(folder)).drawings()[0].caption


@pytest.mark.parametrize("selection", ["macro_f1", "loss"])
def test_the_winner_is_chosen_by_the_recorded_selection(place: Path, tmp_path: Path, selection: str) -> None:
    """Another configuration has the best macro F1 and the lowest loss; the accuracies stay as they are."""
    folder = write_study(tmp_path / "selected", place / "data")
    path = folder / "results.json"
    other = "lora-r2-a8-lr0.0015-s0"
    assert chosen_run(read_results(folder)).id != other
    scores = read_results(folder).run(other).validation
    assert scores is not None
    best = scores.to_json() | ({"macro_f1": 0.99} if selection == "macro_f1" else {"loss": 0.001})
    path.write_text(json.dumps(json.loads(path.read_text()) | {"selection": selection}))
    change_results(folder, {other: {"validation": best}})
    assert chosen_run(read_results(folder)).id == other
    told = analyse(folder)
    assert told.best.runs == (other,)
    assert told.best.validation == scores["accuracy"] < max(row.validation or 0 for row in told.configurations)
    assert told.shown_run == other
