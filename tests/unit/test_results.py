"""results.json: round trip, older schemas, and messages for invalid files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from loralet.adapters.spec import HEAD_ALONE, AdapterSpec
from loralet.errors import RunError
from loralet.runs.results import NAME, DataFacts, Results, RunResult, read_results, write_results
from loralet.runs.selection import chosen_run, chosen_seeds, with_test_read
from loralet.tasks.base import Scores

FIRST_SCHEMA = Path(__file__).parents[1] / "data" / "study-of-schema-1"
SCORES = Scores({"accuracy": 0.75, "macro_f1": 0.5}, {"accuracy": (0.5, 0.875)}, 0.25)
WITHOUT_LOSS = Scores({"accuracy": 0.5}, {}, None)
RESULTS = Results(
    kind="study",
    data=DataFacts("data.csv", 10, 5, 4, ("no", "yes"), "f" * 8),
    runs=(
        RunResult("majority", None, "majority", validation=WITHOUT_LOSS, test=WITHOUT_LOSS),
        RunResult(
            id="lora-r4-a8-lr0.001-s0",
            model="tiny-en",
            role="lora",
            adapter=AdapterSpec(rank=4, alpha=8.0, dropout=0.1, targets=("query", "value"), scaling="rslora"),
            learning_rate=0.001,
            seed=0,
            lr_ratio=16.0,
            trainable_parameters=100,
            total_parameters=1000,
            steps=30,
            converged_step=10,
            train_seconds=1.5,
            peak_memory_bytes=2**20,
            status="early-stopped",
            validation=SCORES,
            test=SCORES,
        ),
        RunResult("probe-s0", "tiny-en", "linear-probe", HEAD_ALONE, 0.01, 0, 1.0, status="diverged"),
        RunResult("ensemble", "tiny-en", "ensemble", members=("a", "b"), validation=SCORES),
    ),
    test_reads=1,
)


def change(folder: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """An edited results.json of the results above."""
    write_results(folder, RESULTS)
    raw = json.loads((folder / NAME).read_text(encoding="utf-8"))
    edit(raw)
    (folder / NAME).write_text(json.dumps(raw), encoding="utf-8")
    return folder


def refusal(folder: Path) -> list[str]:
    with pytest.raises(RunError) as caught:
        read_results(folder)
    title, *problems = str(caught.value).splitlines()
    assert title.startswith(f"{folder / NAME}: ")
    return [title.removeprefix(f"{folder / NAME}: "), *(problem.removeprefix("  - ") for problem in problems)]


def test_results_round_trip(tmp_path: Path) -> None:
    write_results(tmp_path, RESULTS)
    assert read_results(tmp_path) == RESULTS
    raw = json.loads((tmp_path / NAME).read_text(encoding="utf-8"))
    assert (raw["schema"], raw["selection"], raw["task"]) == (2, "accuracy", "single-label")
    lora = raw["runs"][1]
    assert lora["adapter"] == {
        "method": "lora",
        "rank": 4,
        "alpha": 8.0,
        "dropout": 0.1,
        "targets": ["query", "value"],
        "scaling": "rslora",
    }
    assert lora["validation"] == {
        "accuracy": 0.75,
        "accuracy_low": 0.5,
        "accuracy_high": 0.875,
        "macro_f1": 0.5,
        "loss": 0.25,
    }
    assert lora.keys() == {field.name for field in fields(RunResult)}
    assert all(row.keys() == lora.keys() for row in raw["runs"]), "each row has all fields"
    write_results(tmp_path, replace(RESULTS, test_reads=2))
    assert read_results(tmp_path) == with_test_read(RESULTS) != RESULTS


def test_files_without_a_ratio_of_learning_rates_are_read_as_1(tmp_path: Path) -> None:
    write_results(tmp_path, RESULTS)
    change(tmp_path, lambda raw: [row.pop("lr_ratio") for row in raw["runs"]])
    assert [run.lr_ratio for run in read_results(tmp_path).runs] == [None, 1.0, 1.0, None]


def test_seeds_are_those_of_one_ratio(tmp_path: Path) -> None:
    first = RESULTS.runs[1]
    runs = [replace(first, id=f"{ratio}-{seed}", seed=seed, lr_ratio=ratio) for ratio in (1.0, 16.0) for seed in (0, 1)]
    better = [replace(run, validation=replace(SCORES, values={"accuracy": 0.9})) for run in runs[2:]]
    assert chosen_seeds(replace(RESULTS, runs=(*runs[:2], *better))) == ["16.0-0", "16.0-1"]


def test_seeds_are_chosen_like_the_winner_of_a_report() -> None:
    """Diverged seeds count first, then the mean score, the mean loss, and the number of parameters."""
    first = RESULTS.runs[1]

    def group(name: str, scores: Scores, rank: int, status: str = "finished", parameters: int = 100) -> list[RunResult]:
        adapter = AdapterSpec(rank=rank)
        runs = [
            replace(first, id=f"{name}{seed}", adapter=adapter, seed=seed, validation=scores, status="finished")
            for seed in range(3)
        ]
        return [replace(run, trainable_parameters=parameters) for run in (*runs[:2], replace(runs[2], status=status))]

    def chosen(*groups: list[RunResult]) -> list[str]:
        return chosen_seeds(replace(RESULTS, runs=tuple(run for runs in groups for run in runs)))

    good, better = Scores({"accuracy": 0.8}, {}, 0.5), Scores({"accuracy": 0.9}, {}, 0.5)
    assert chosen(group("a", good, 4), group("b", better, 8)) == ["b0", "b1", "b2"]
    assert chosen(group("a", good, 4), group("b", better, 8, "diverged")) == ["a0", "a1", "a2"]
    assert chosen(group("b", better, 8, "diverged")) == ["b0", "b1"]
    assert chosen(group("b", better, 8, "halved"), group("a", good, 4)) == ["b0", "b1"]
    surer = replace(good, loss=0.4)
    assert chosen(group("a", good, 4), group("b", surer, 8)) == ["b0", "b1", "b2"]
    assert chosen(group("a", good, 4), group("b", replace(good, loss=None), 8)) == ["a0", "a1", "a2"]
    assert chosen(group("a", good, 4), group("b", good, 8, parameters=99)) == ["b0", "b1", "b2"]


def test_results_of_the_first_schema_are_read() -> None:
    raw = json.loads((FIRST_SCHEMA / NAME).read_text(encoding="utf-8"))
    assert raw["schema"] == 1
    results = read_results(FIRST_SCHEMA)
    assert (results.kind, results.task, results.selection, results.test_reads) == (
        "study",
        "single-label",
        "accuracy",
        1,
    )
    assert (results.data.train_rows, results.data.labels[0]) == (23761, "World")
    assert [run.id for run in results.runs] == [row["id"] for row in raw["runs"]]
    run, row = (
        results.run("lora-r32-a512-lr0.001-s2"),
        next(r for r in raw["runs"] if r["id"] == "lora-r32-a512-lr0.001-s2"),
    )
    assert run.adapter == AdapterSpec(rank=32, alpha=512.0, dropout=0.0, targets=("query", "value"), scaling="alpha/r")
    assert (run.learning_rate, run.seed, run.steps) == (row["learning_rate"], row["seed"], row["steps"])
    assert run.test is not None
    assert run.test.to_json() == row["test"]
    assert run.test.intervals["accuracy"] == (row["test"]["accuracy_low"], row["test"]["accuracy_high"])
    assert all(r.adapter is None for r in results.runs if r.role in ("majority", "tfidf-svm", "random-head"))
    assert all(r.members for r in results.runs if r.role in ("average", "ensemble"))
    assert {"average", "ensemble", "majority", "tfidf-svm", "random-head"} < {r.role for r in results.runs}
    chosen = chosen_run(results)
    best = max(r["validation"]["accuracy"] for r in raw["runs"] if r["role"] in ("lora", "linear-probe"))
    assert chosen.validation is not None
    assert chosen.validation["accuracy"] == best
    assert len(chosen_seeds(results)) == 3


def test_results_of_the_first_schema_are_written_in_the_newest_schema(tmp_path: Path) -> None:
    first = read_results(FIRST_SCHEMA)
    write_results(tmp_path, first)
    assert json.loads((tmp_path / NAME).read_text(encoding="utf-8"))["schema"] == 2
    assert read_results(tmp_path) == first


@pytest.mark.parametrize("schema", [3, 0, -1, "2", None, True, 2.0])
def test_an_unknown_schema_is_rejected(tmp_path: Path, schema: object) -> None:
    (title,) = refusal(change(tmp_path, lambda raw: raw.update(schema=schema)))
    assert title.startswith("not results of schema 1 to 2, which loralet ")


@pytest.mark.parametrize("content", ["[]", "3", '"text"', "null", "{}"])
def test_a_file_with_another_structure_is_rejected(tmp_path: Path, content: str) -> None:
    (tmp_path / NAME).write_text(content)
    assert refusal(tmp_path)[0].startswith("not results of schema 1 to 2")


@pytest.mark.parametrize("content", [b"{", b"", b'{"schema": 2', b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_not_json_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    assert refusal(tmp_path)[0].startswith("not valid JSON (")


def test_all_problems_of_an_invalid_file_are_listed(tmp_path: Path) -> None:
    def edit(raw: dict[str, Any]) -> None:
        del raw["test_reads"]
        raw["data"]["train_rows"] = "many"
        raw["data"]["labels"] = ["no", 1]
        raw["note"] = "mine"
        lora, probe, ensemble = raw["runs"][1:]
        lora["adapter"]["rank"] = 4.5
        lora["validation"]["accuracy"] = "high"
        lora["test"] = 0.5
        del probe["id"]
        del ensemble["validation"]["accuracy_low"]

    title, *problems = refusal(change(tmp_path, edit))
    assert title == "cannot be read; train again, or copy the run folder again:"
    assert sorted(problems) == sorted(
        [
            "test_reads is missing",
            "data.train_rows is 'many': a whole number is expected",
            "data.labels is ['no', 1]: a string is expected",
            f"note is not known; known here: {', '.join(field.name for field in fields(Results))}",
            "runs[1].adapter.rank is 4.5: a whole number is expected",
            "runs[1].validation: accuracy: a finite number is expected",
            "runs[1].test is not an object",
            "runs[2].id is missing",
            "runs[3].validation: the interval of accuracy has one end",
        ]
    )


def test_an_adapter_that_cannot_be_is_refused(tmp_path: Path) -> None:
    folder = change(tmp_path, lambda raw: raw["runs"][1]["adapter"].update(rank=-1, alpha=0.0))
    assert sorted(refusal(folder)[1:]) == [
        "runs[1].adapter.alpha is 0.0: it must be above 0 and finite",
        "runs[1].adapter.rank is -1: it must be 0 (head only) or more",
    ]


def test_a_long_list_of_problems_is_shortened_with_a_count(tmp_path: Path) -> None:
    wrong = [{"id": i, "model": None, "role": "lora"} for i in range(23)]
    problems = refusal(change(tmp_path, lambda raw: raw.update(runs=wrong)))[1:]
    assert len(problems) == 21
    assert problems[:2] == [f"runs[{i}].id is {i}: a string is expected" for i in range(2)]
    assert problems[-1].strip() == "... and 3 more"


@pytest.mark.parametrize("runs", [None, {}, "runs", [1], [{}, []]])
def test_runs_must_be_a_list_of_objects(tmp_path: Path, runs: object) -> None:
    assert "runs is not a list of objects" in refusal(change(tmp_path, lambda raw: raw.update(runs=runs)))


@pytest.mark.parametrize("value", [None, "0.5", True, [0.5], float("nan"), float("inf")])
def test_a_score_is_a_finite_number(tmp_path: Path, value: object) -> None:
    folder = change(tmp_path, lambda raw: raw["runs"][1]["validation"].update(macro_f1=value))
    words = "macro_f1 has no value" if value is None else "macro_f1: a finite number is expected"
    assert refusal(folder)[1:] == [f"runs[1].validation: {words}"]


def test_a_loss_may_be_missing(tmp_path: Path) -> None:
    folder = change(tmp_path, lambda raw: raw["runs"][1]["validation"].update(loss=None))
    validation = read_results(folder).runs[1].validation
    assert validation is not None
    assert validation.loss is None


def test_a_folder_without_results_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not a run folder \(no results\.json and no config\.toml\)"):
        read_results(tmp_path)
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(RunError, match=r"the run did not finish \(no results\.json\)"):
        read_results(tmp_path)
