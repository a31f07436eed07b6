"""From options to runs: the cells of a grid, and ids that stay short and never collide."""

from __future__ import annotations

from loralet.config import ALL_LINEAR, TARGETS, GridOptions, StudyConfig
from loralet.engine.packs import Run
from loralet.studies.plan import plan_study


def planned(**grid: object) -> list[Run]:
    return list(plan_study(StudyConfig(grid=GridOptions(**grid))).runs)  # type: ignore[arg-type]


def test_ids_of_a_plain_grid_are_what_they_were() -> None:
    runs = planned(ranks=(0, 4), alphas=(64.0,), lrs=(1e-3, 0.002), seeds=(0, 7), full=True)
    assert [run.id for run in runs] == [
        "probe-s0", "lora-r4-a64-lr0.001-s0", "lora-r4-a64-lr0.002-s0", "full-lr0.0003-s0",
        "probe-s7", "lora-r4-a64-lr0.001-s7", "lora-r4-a64-lr0.002-s7", "full-lr0.0003-s7",
    ]  # fmt: skip
    assert [run.id for run in planned(ranks=(4,), alphas=(64.0,), dropouts=(0.1,), scalings=("rslora",), target_sets=("query",))] == [
        "probe-s0",
        "lora-r4-a64-lr0.001-s0",
    ]


def test_an_id_names_what_varies_and_nothing_else() -> None:
    runs = planned(ranks=(4,), alphas=(8.0,), dropouts=(0.0, 0.1), scalings=("alpha/r", "rslora"), target_sets=("query+value", "all-linear"))
    assert [run.id for run in runs[1:4]] == [
        "lora-r4-a8-lr0.001-d0-alphar-q+v-s0",
        "lora-r4-a8-lr0.001-d0-alphar-all-s0",
        "lora-r4-a8-lr0.001-d0-rslora-q+v-s0",
    ]
    assert len(runs) == 9
    assert {(run.dropout, run.scaling, run.targets) for run in runs[1:]} == {
        (d, s, t) for d in (0.0, 0.1) for s in ("alpha/r", "rslora") for t in (("query", "value"), TARGETS)
    }
    assert planned(ranks=(4,), alphas=(8.0,), dropouts=(0.0, 0.1))[2].id == "lora-r4-a8-lr0.001-d0.1-s0"


def test_ids_never_collide() -> None:
    runs = planned(
        models=("a/m", "b/m", "n"), ranks=(4, 8), alphas=(1.0, 1.0000001), lrs=(0.001, 0.0010000001), dropouts=(0.1, 0.10000001),
        scalings=("alpha/r", "rslora"), target_sets=("query", "key", "query+key", ALL_LINEAR), seeds=(0, 1), full=True,
    )  # fmt: skip
    assert len({run.id for run in runs}) == len(runs) == 3 * 2 * (2 * 2 * 2 * 2 * 2 * 4 + 2)
    assert not any(character in run.id for run in runs for character in '/\\: "')


def test_targets_stand_where_no_sets_are_given() -> None:
    assert {run.targets for run in planned(targets=("value", "query"))[1:]} == {("query", "value")}
    assert {run.targets for run in planned(targets=("value",), target_sets=("output",))[1:]} == {("output",)}
