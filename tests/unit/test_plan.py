"""From options to runs and packs: grid cells, unique ids, presets, and the estimate of a plan."""

from __future__ import annotations

import csv
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import options
from models import make_pair

from loralet.adapters.spec import ALL_LINEAR, TARGETS
from loralet.config import GridOptions, StudyConfig, TrainingOptions
from loralet.config.toml import options_text
from loralet.events import Checked, Event, Stepped
from loralet.runs.environment import environment
from loralet.runs.folder import RunFolder
from loralet.runs.results import RunResult
from loralet.runs.run import Run
from loralet.studies.estimate import Pace, course, probe, survey, training_seconds
from loralet.studies.plan import plan_study
from loralet.studies.study import Prepared, carry_out, prepare
from loralet.training.memory import GIB, pack_work


def planned(**grid: object) -> list[Run]:
    return list(plan_study(StudyConfig(grid=GridOptions(**({"default": False} | grid)))).runs)  # type: ignore[arg-type]


def resolved_targets(run: Run) -> tuple[str, ...]:
    """The linear layers that a run adapts in an encoder with all of them, in encoder order."""
    return run.adapter.on(TARGETS).targets


def test_ids_of_a_plain_grid_are_unchanged() -> None:
    runs = planned(ranks=(0, 4), alphas=(64.0,), lrs=(1e-3, 0.002), seeds=(0, 7), full=True)
    assert [run.id for run in runs] == [
        "probe-s0", "lora-r4-a64-lr0.001-s0", "lora-r4-a64-lr0.002-s0", "full-lr0.0003-s0",
        "probe-s7", "lora-r4-a64-lr0.001-s7", "lora-r4-a64-lr0.002-s7", "full-lr0.0003-s7",
    ]  # fmt: skip
    assert [
        run.id
        for run in planned(ranks=(4,), alphas=(64.0,), dropouts=(0.1,), scalings=("rslora",), target_sets=("query",))
    ] == [
        "probe-s0",
        "lora-r4-a64-lr0.001-s0",
    ]


def test_an_id_contains_only_varied_settings() -> None:
    runs = planned(
        ranks=(4,),
        alphas=(8.0,),
        dropouts=(0.0, 0.1),
        scalings=("alpha/r", "rslora"),
        target_sets=("query+value", "all-linear"),
    )
    assert [run.id for run in runs[1:4]] == [
        "lora-r4-a8-lr0.001-d0-alphar-q+v-s0",
        "lora-r4-a8-lr0.001-d0-alphar-all-s0",
        "lora-r4-a8-lr0.001-d0-rslora-q+v-s0",
    ]
    assert len(runs) == 9
    assert {(run.adapter.dropout, run.adapter.scaling, resolved_targets(run)) for run in runs[1:]} == {
        (d, s, t) for d in (0.0, 0.1) for s in ("alpha/r", "rslora") for t in (("query", "value"), TARGETS)
    }
    runs = planned(ranks=(4,), alphas=(8.0,), lr_ratios=(1.0, 16.0), dropouts=(0.0, 0.1))
    assert [(run.id, run.lr_ratio) for run in runs[:3]] == [
        ("probe-s0", 1.0),
        ("lora-r4-a8-lr0.001-ratio1-d0-s0", 1.0),
        ("lora-r4-a8-lr0.001-ratio16-d0-s0", 16.0),
    ]
    assert planned(ranks=(4,), alphas=(8.0,), dropouts=(0.0, 0.1))[2].id == "lora-r4-a8-lr0.001-d0.1-s0"


def test_ids_are_unique() -> None:
    runs = planned(
        models=("a/m", "b/m", "n", "c/m-1", "d/m-3"),
        ranks=(4, 8),
        alphas=(1.0, 1.0000001),
        lrs=(0.001, 0.0010000001),
        lr_ratios=(16.0, 16.000001),
        methods=("lora", "dora"),
        dropouts=(0.1, 0.10000001),
        scalings=("alpha/r", "rslora"),
        target_sets=("query", "key", "query+key", ALL_LINEAR),
        seeds=(0, 1),
        full=True,
    )
    assert len({run.id for run in runs}) == len(runs) == 5 * 2 * (2 * 2 * 2 * 2 * 2 * 2 * 2 * 4 + 2)
    assert not any(character in run.id for run in runs for character in '/\\: "')


def test_targets_are_used_without_target_sets() -> None:
    assert {resolved_targets(run) for run in planned(targets=("value", "query"))[1:]} == {("query", "value")}
    assert {resolved_targets(run) for run in planned(targets=("value",), target_sets=("output",))[1:]} == {("output",)}


def chosen(*arguments: str) -> StudyConfig:
    """The options of ``loralet study`` with these arguments."""
    found: StudyConfig = options("study", *arguments)
    return found


BERTS = ("google/bert_uncased_L-2_H-128_A-2", "prajjwal1/bert-tiny")


def test_a_preset_sets_only_its_grid() -> None:
    config = chosen("--preset", "base-vs-lora")
    assert config.grid == GridOptions(models=BERTS, ranks=(16,), alphas=(64.0,), dropouts=(0.1,))
    assert (config.training, config.data) == (StudyConfig().training, StudyConfig().data)
    assert [run.id for run in plan_study(config).runs] == [
        f"{name}-{run}"
        for name in ("bert_uncased_L-2_H-128_A-2", "bert-tiny")
        for run in ("probe-s0", "lora-r16-a64-lr0.001-s0", "default-s0")
    ]
    grid = chosen("--preset=rank-alpha").grid
    assert (grid.ranks, grid.alphas, grid.dropouts) == ((4, 16, 32), (64.0, 256.0, 512.0), (0.0,))


def test_flags_override_only_their_options_of_a_preset() -> None:
    for arguments in (
        ["--preset", "base-vs-lora", "--ranks", "8", "--steps", "7"],
        ["--ranks", "8", "--steps", "7", "--preset", "base-vs-lora"],
    ):
        config = chosen("rows.csv", *arguments)
        assert (config.grid.ranks, config.grid.alphas, config.grid.models) == ((8,), (64.0,), BERTS)
        assert (config.data, config.training.steps) == ("rows.csv", 7)
    # a flag set to its default value counts as given
    assert chosen("--preset", "base-vs-lora", "--dropouts", "0").grid.dropouts == (0.0,)
    assert chosen("--preset", "base-vs-lora", "--dropout", "0.2").grid.dropouts == (0.2,)


def test_a_preset_overrides_the_file_and_flags_override_the_preset(tmp_path: Path) -> None:
    given = StudyConfig(data="x", grid=GridOptions(ranks=(2,), lrs=(0.5,)), halving=True)
    (tmp_path / "a.toml").write_text(options_text(given))
    config = chosen("--config", str(tmp_path / "a.toml"), "--preset", "base-vs-lora", "--alphas", "9")
    assert (config.data, config.halving, config.grid.lrs, config.grid.ranks, config.grid.alphas) == (
        "x",
        True,
        (0.5,),
        (16,),
        (9.0,),
    )
    assert chosen("--config", str(tmp_path / "a.toml")).grid.ranks == (2,)


def test_an_unknown_preset_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        chosen("--preset", "rank-alfa")
    assert caught.value.code == 2
    assert "rank-alpha" in "".join(capsys.readouterr())


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    """A small study whose dropout would reveal random numbers drawn by the probe."""
    folder = tmp_path_factory.mktemp("plan")
    make_pair(folder / "model")
    (folder / "data").mkdir()
    generator = np.random.default_rng(0)
    for name, count in (("train", 120), ("test", 30)):
        with (folder / "data" / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            rows = [
                (" ".join(generator.choice([*"abcd"] if i % 2 else [*"pqrs"], generator.integers(2, 9))), "ab"[i % 2])
                for i in range(count)
            ]
            csv.writer(file).writerows([("text", "label"), *rows])
    grid = GridOptions(
        models=(str(folder / "model"),),
        ranks=(2, 4),
        alphas=(8.0,),
        lrs=(1e-2,),
        dropouts=(0.0, 0.2),
        seeds=(0, 1),
        full=True,
        default=False,
    )
    return StudyConfig(
        data=str(folder / "data"), grid=grid, training=TrainingOptions(steps=12, batch_size=16, eval_every=6)
    )


def new_folder(path: Path, prepared: Prepared) -> RunFolder:
    return RunFolder(path, options_text(StudyConfig()), environment(prepared.backends))


def outcome(prepared: Prepared, folder: Path) -> list[RunResult]:
    """The results of a plan, without times and memory."""
    with closing(new_folder(folder, prepared)) as run_folder:
        results = carry_out(prepared, run_folder, lambda event: None)
    return [replace(run, train_seconds=None, peak_memory_bytes=None) for run in results.runs]


def test_the_estimate_does_not_change_the_results(config: StudyConfig, tmp_path: Path) -> None:
    plan = plan_study(config)
    prepared = prepare(plan, lambda event: None)
    without = outcome(prepared, tmp_path / "without")
    before = torch.get_rng_state()
    surveyed = survey(prepared.packs, prepared.sessions, prepared.plan)
    assert torch.equal(torch.get_rng_state(), before)
    assert outcome(prepared, tmp_path / "with") == without
    assert [[run.id for run in pack] for pack in prepared.packs.packs] == [list(pack.runs) for pack in surveyed.packs]
    assert [run.id for run in without if run.role in ("lora", "linear-probe", "full")] == [run.id for run in plan.runs]


def test_runs_stop_at_their_target_only_on_request(config: StudyConfig, tmp_path: Path) -> None:
    easy = replace(config, training=replace(config.training, target_score=0.1))
    plain, stopping = plan_study(easy), plan_study(replace(easy, stop_at_target=True))
    ends = [
        {(run.status, run.steps) for run in outcome(prepare(plan, lambda event: None), tmp_path / str(i)) if run.steps}
        for i, plan in enumerate((plain, stopping))
    ]
    assert ends == [{("finished", 12)}, {("early-stopped", 6)}]


def test_the_plan_has_steps_parameters_memory_and_time_of_every_pack(config: StudyConfig) -> None:
    plan = plan_study(config)
    prepared = prepare(plan, lambda event: None)
    surveyed = survey(prepared.packs, prepared.sessions, prepared.plan)
    assert sorted(len(pack.runs) for pack in surveyed.packs) == [1, 1, 5, 5]
    assert [pack.seconds for pack in surveyed.packs] == sorted((pack.seconds for pack in surveyed.packs), reverse=True)
    assert all(
        pack.steps == 12 and pack.batch_size == 16 and pack.memory_bytes > 0 and pack.seconds > 0
        for pack in surveyed.packs
    )
    first = next(pack for pack in surveyed.packs if len(pack.runs) == 5)
    # two layers of query and value, width 32: rank x (32 + 32) each; the head has 2 x 32 + 2 parameters
    assert first.trainable == (66, *(66 + 4 * rank * 64 for rank in (2, 2, 4, 4)))
    session = next(iter(prepared.sessions.values()))
    pace = probe(session, prepared.packs.packs[0])
    phases = course(prepared.packs.packs[0], session.load, 12, 6)
    assert 12 * pace.step < training_seconds(pace, session, phases) < 12 * pace.step + 10 * pace.check
    assert session.load.batch_size == 16
    assert all(pack.shares == ((0, 1.0),) for pack in surveyed.packs)
    assert (surveyed.halving, surveyed.stopping) == (False, False)


def test_the_plan_matches_the_steps_of_halving(config: StudyConfig, tmp_path: Path) -> None:
    """The same number of runs per step, and of checks, as training with --halving."""
    plan = plan_study(replace(config, halving=True, grid=replace(config.grid, seeds=(0,), full=False)))
    prepared = prepare(plan, lambda event: None)
    heard: list[Event] = []
    with closing(new_folder(tmp_path / "halved", prepared)) as folder:
        carry_out(prepared, folder, heard.append)
    (runs,), session = prepared.packs.packs, next(iter(prepared.sessions.values()))
    phases = course(runs, session.load, 12, 6, plan.exits(120).rungs)
    assert [(s.start, s.end, len(s.runs)) for s in phases] == [(0, 2, 5), (2, 3, 3), (3, 6, 2), (6, 12, 2)]
    foreseen = [len(s.runs) for s in phases for _ in range(s.start, s.end)]
    assert foreseen == [len(event.runs) for event in heard if isinstance(event, Stepped)]
    looked = [event.step for event in heard if isinstance(event, Checked)]
    assert [(s.checks, len(s.runs)) for s in phases] == [
        (len({step for step in looked if s.start < step <= s.end}), looked.count(s.end)) for s in phases
    ]
    # the survivors are unknown, so the most expensive runs are assumed: those of rank 4, then the first of them
    assert [{run.adapter.rank for run in s.runs if run.role == "lora"} for s in phases] == [{2, 4}, {4}, {4}, {4}]


def test_the_estimate_of_halving_is_the_sum_of_its_phases(config: StudyConfig) -> None:
    plan = plan_study(config)
    prepared = prepare(plan, lambda event: None)
    runs = next(pack for pack in prepared.packs.packs if len(pack) == 5)
    session = next(iter(prepared.sessions.values()))
    load = session.load
    pace, whole = Pace(step=1.0, check=10.0), pack_work(runs, load)
    phases = course(runs, load, 12, 6, (2, 3, 6))
    shares = [pack_work(s.runs, load) / whole for s in phases]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1.0 > shares[1] > shares[2] == shares[3]
    measuring = 2 * len(session.rows.validation) / len(session.rows.sample) * 10.0
    expected = (2 + 10) + (1 + 10) * shares[1] + (3 + 10) * shares[2] + (6 + 10) * shares[3] + measuring
    assert training_seconds(pace, session, phases) == pytest.approx(expected)
    assert training_seconds(pace, session, course(runs, load, 12, 6)) == pytest.approx(12 + 20 + measuring)
    surveyed = survey(prepared.packs, prepared.sessions, replace(prepared.plan, halving=True))
    assert surveyed.halving
    assert next(pack for pack in surveyed.packs if len(pack.runs) == 5).shares == tuple(
        zip((0, 2, 3, 6), shares, strict=True)
    )
    assert next(pack for pack in surveyed.packs if len(pack.runs) == 1).shares == tuple(
        (start, 1.0) for start in (0, 2, 3, 6)
    )


@pytest.mark.parametrize(
    ("patience", "at_target", "stopping"), [(None, False, False), (3, False, True), (None, True, True)]
)
def test_the_plan_states_that_runs_may_stop(
    config: StudyConfig, patience: int | None, at_target: bool, stopping: bool
) -> None:
    plan = plan_study(replace(config, stop_at_target=at_target, training=replace(config.training, patience=patience)))
    prepared = prepare(plan, lambda event: None)
    assert survey(prepared.packs, prepared.sessions, prepared.plan).stopping == stopping


def test_a_small_budget_splits_packs_without_changing_results(config: StudyConfig, tmp_path: Path) -> None:
    plan = plan_study(config)
    whole = prepare(plan, lambda event: None)
    tight = replace(plan, memory=1 / GIB)
    parted = prepare(tight, lambda event: None)
    assert len(whole.packs.packs) == 4
    assert len(parted.packs.packs) == len(plan.runs)
    assert parted.packs.budget == 1
    together, alone = outcome(whole, tmp_path / "whole"), outcome(parted, tmp_path / "parted")
    assert [(run.id, run.role, run.trainable_parameters) for run in together] == [
        (run.id, run.role, run.trainable_parameters) for run in alone
    ]
