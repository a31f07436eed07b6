"""The progress output: state of the runs, lines, and JSON."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from rich.console import Console

from loralet.events import (
    Advanced,
    Checked,
    EpochEnded,
    Event,
    Finished,
    Halved,
    PackStarted,
    Planned,
    PlannedPack,
    RunEnded,
    Stage,
    Stepped,
)
from loralet.progress.plan import duration, plan_cells, plan_table, plan_text, size
from loralet.progress.table import Progress, RunLine, cells, draw, head_line
from loralet.progress.view import LINE_EVERY, ProgressView, open_view
from loralet.report.results_table import columns_that_fit

PLAN = Planned(
    (
        PlannedPack(("a", "b"), (516, 4_612), 100, 32, 300 * 2**20, 50.0),
        PlannedPack(("c",), (516,), 100, 32, 2**20, 30.0),
    ),
    432,
    4 * 2**30,
)


def events(steps: int = 10) -> Iterator[tuple[Event, float]]:
    """A pack of two runs, one second per step, a check every five steps, and the events before it."""
    yield PLAN, 0.0
    yield PackStarted(("a", "b"), 100, 32, 432), 0.0
    for step in range(1, steps + 1):
        yield Stepped(step, ("a", "b"), (1.0 / step, 2.0 / step), 1.0, 32), float(step)
        if step % 5 == 0:
            yield Checked(step, "a", 0.5 + step / 100, 1.0, 100, True), float(step)
            yield Checked(step, "b", 0.6 if step == 5 else 0.4, 1.0, 100, step == 5), float(step)


def progress(steps: int = 10) -> Progress:
    made = Progress()
    for event, now in events(steps):
        made.update(event, now)
    return made


def test_the_state_contains_loss_and_scores_of_every_run() -> None:
    a, b = progress().lines()
    assert (a.id, a.step, a.loss, a.last, a.best, a.best_step) == ("a", 10, 0.1, 0.6, 0.6, 10)
    assert (b.loss, b.last, b.best, b.best_step) == (0.2, 0.4, 0.6, 5)
    assert cells(a) == ("a", "10", "0.100", "0.600", "0.600", "10", "")
    assert cells(RunLine("x")) == ("x", "0", "–", "–", "–", "", "")


def test_pace_and_time_left_follow_the_last_steps() -> None:
    made = progress(10)
    assert made.rows_per_second == pytest.approx(64)
    assert made.seconds_left == pytest.approx(90)
    # this pack takes 100 s instead of 50, so the estimate of the next one rises from 30 to 60
    assert made.all_seconds_left == pytest.approx(150)
    assert head_line(made) == "pack 1 of 2 · step 10/100 · 64 rows x runs/s · 2 min left, 2 min in total"
    for step in range(11, 71):  # one run has left, and a step takes 0.1 s
        made.update(Stepped(step, ("a",), (0.1,), 1.0, 32), 10 + (step - 10) / 10)
    assert made.rows_per_second == pytest.approx(320)
    assert made.seconds_left == pytest.approx(3)
    made.update(PackStarted(("c",), 100, 32, 432), 20.0)
    assert (made.pack, made.packs, made.seconds_left, list(made.runs)) == (2, 2, None, ["c"])


def test_time_left_accounts_for_the_rungs() -> None:
    made = Progress()
    # 200 steps, those after 50 at a quarter of the cost: planned as 87.5 s, the same for the second pack
    packs = tuple(PlannedPack((name,), (1,), 200, 32, 1, 87.5, ((0, 1.0), (50, 0.25))) for name in "ab")
    made.update(Planned(packs, 432, 1, True), 0.0)
    made.update(PackStarted(("a",), 200, 32, 432), 0.0)
    left = {}
    for step in range(1, 201):
        made.update(Stepped(step, ("a",), (1.0,), 1.0, 32), 2.0 * min(step, 50) + 0.5 * max(0, step - 50))
        left[step] = (made.seconds_left, made.all_seconds_left)
    # twice as slow as planned; step 50 still has the pace before the rung, step 120 the pace after it
    for step, own in {10: 40 * 2 + 150 * 0.5, 50: 75.0, 120: 40.0, 200: 0.0}.items():
        assert left[step] == (pytest.approx(own), pytest.approx(own + 175)), step


def test_a_stopped_run_shows_its_status() -> None:
    made = progress()
    made.update(RunEnded(10, "b", "halved", None, 1.0), 10.0)
    assert cells(made.runs["b"])[-1] == "halved"
    made.update(RunEnded(10, "a", "finished", None, 1.0), 10.0)
    assert cells(made.runs["a"])[-1] == ""


def test_the_best_of_many_runs_are_shown() -> None:
    made, names = Progress(), tuple(f"run{i}" for i in range(30))
    made.update(PackStarted(names, 100, 32, 432), 0.0)
    made.update(Stepped(1, names, (1.0,) * 30, 1.0, 32), 1.0)
    for i, name in enumerate(names):
        made.update(Checked(1, name, i / 100, 1.0, 100, True), 1.0)
    assert [line.id for line in made.lines()] == [f"run{i}" for i in range(29, 17, -1)]
    assert [line.id for line in made.lines(30)] == list(names)
    console = Console(file=io.StringIO(), width=90, height=15)
    console.print(draw(made, console.height))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "run29" in text
    assert "and 21 runs below the best 9" in text
    assert len(text.splitlines()) <= 15


def test_equal_scores_are_ordered_by_validation_loss() -> None:
    made, names = Progress(), ("a", "b", "c", "d")
    made.update(PackStarted(names, 100, 32, 432), 0.0)
    made.update(Stepped(1, names, (0.1, 0.2, 0.3, 0.4), 1.0, 32), 1.0)
    for name, score, loss in (("a", 0.5, 0.9), ("b", 0.5, 0.7), ("c", 0.4, 0.1)):
        made.update(Checked(1, name, score, loss, 100, True), 1.0)
    assert [line.id for line in made.lines(3)] == ["b", "a", "c"]
    shown, file = view(terminal=False)
    shown.progress = made
    assert "validation 0.500 (b)" in shown._step_line()
    assert file.getvalue() == ""


def view(terminal: bool, quiet: bool = False, clock: list[float] | None = None) -> tuple[ProgressView, io.StringIO]:
    file = io.StringIO()
    times = clock if clock is not None else [0.0]
    console = Console(file=file, force_terminal=terminal, width=100, height=30, color_system=None, _environ={})
    return ProgressView(console, quiet, lambda: times[0]), file


def test_without_a_terminal_there_are_plain_lines() -> None:
    clock = [0.0]
    shown, file = view(terminal=False, clock=clock)
    with shown:
        shown(Stage("reading [data]"))
        for event, now in events(25):
            clock[0] = now
            shown(event)
        shown(Halved(25, 1, ("a", "b"), (0.75, 0.4), 1))
        shown(RunEnded(25, "b", "halved", None, 1.0))
        shown(RunEnded(25, "a", "early-stopped", 25, 1.0))
        shown(Finished("runs/x"))
    lines = file.getvalue().splitlines()
    assert lines == [
        "· reading [data]",
        f"· {plan_text(PLAN)}",
        "· training pack 1 of 2, 2 runs: 100 steps of 32 rows, 432 training rows",
        "· step 11/100 · loss 0.136 · 64 rows x runs/s · validation 0.600 (a) · 89 s left",
        "· step 22/100 · loss 0.068 · 64 rows x runs/s · validation 0.700 (a) · 78 s left",
        "· rung 1 at step 25: 1 of 2 LoRA runs continue, best a (0.750); halved: b",
        "· a early-stopped at step 25",
    ]
    assert LINE_EVERY == 10


def test_on_a_terminal_the_table_is_transient() -> None:
    clock = [0.0]
    shown, file = view(terminal=True, clock=clock)
    with shown:
        for event, now in events(10):
            clock[0] = now
            shown(event)
        assert "step 10/100" in file.getvalue()
        assert "best" in file.getvalue()
        shown(Stage("measuring"))
    assert "\x1b[" in file.getvalue()


def test_long_lines_wrap_on_a_terminal_only() -> None:
    words = " ".join(["seventeen-letters"] * 12)
    for terminal in (True, False):
        shown, file = view(terminal)
        with shown:
            shown(Stage(words))
        lines = [
            line
            for line in re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", file.getvalue()).replace("\r", "").split("\n")
            if line.strip()
        ]
        assert [line for line in lines if len(line) > 100] == ([] if terminal else [f"· {words}"])
        assert " ".join(line.strip() for line in lines) == f"· {words}"


def test_quiet_prints_nothing() -> None:
    for terminal in (True, False):
        shown, file = view(terminal, quiet=True)
        with shown:
            for event, _ in events():
                shown(event)
        assert file.getvalue() == ""


def test_progress_of_other_tasks_is_shown() -> None:
    clock = [0.0]
    shown, file = view(terminal=False, clock=clock)
    with shown:
        for done in range(0, 41, 10):
            clock[0] = float(done)
            shown(Advanced("teaching", done, 100, "loss 0.5"))
        shown(EpochEnded(1, 2, 40, {"total": 0.5}, {"token_states": 0.25}, 1.0))
    assert file.getvalue().splitlines() == [
        "· teaching 20/100 · loss 0.5 · 80 s left",
        "· teaching 40/100 · loss 0.5 · 60 s left",
        "· epoch 1/2 · loss 0.5000 · held out: token states 0.2500",
    ]


def test_json_events_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    with open_view(quiet=False, json_events=True) as listen:
        listen(PLAN)
        listen(Stepped(1, ("a",), (float("nan"),), 1.0, 32))
        listen(Finished("runs/x"))
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert lines[0]["packs"][0]["runs"] == ["a", "b"]
    assert lines[1] == {"event": "Stepped", "step": 1, "runs": ["a"], "losses": [None], "lr_share": 1.0, "rows": 32}
    assert lines[2] == {"event": "Finished", "folder": "runs/x"}
    assert captured.err == ""


def test_the_plan_as_text_and_cells() -> None:
    assert plan_text(PLAN) == (
        "plan: 3 runs in 2 packs, 100 steps of 32 rows, 432 training rows; about 80 s of training, and 0.3 GiB of "
        "memory out of 4.0 GiB"
    )
    assert "; about 80 s of training (runs stopped by --halving count up to their last rung), and" in plan_text(
        replace(PLAN, halving=True)
    )
    assert (
        "; at most about 80 s of training (runs that stop at the target score or by --patience take less time), and"
        in plan_text(replace(PLAN, stopping=True))
    )
    assert "at most about 80 s of training (runs stopped by --halving" in plan_text(
        replace(PLAN, halving=True, stopping=True)
    )
    assert plan_cells(PLAN) == [
        ("1", "2", "100", "3,200", "516 – 4,612", "0.3 GiB", "50 s"),
        ("2", "1", "100", "3,200", "516", "1 MiB", "30 s"),
    ]
    console = Console(file=io.StringIO(), width=100)
    console.print(plan_table(PLAN))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "pack 1: a, b" in text
    assert "nothing was trained or written" in text
    assert "backend" not in text


def test_the_plan_names_the_backends() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(plan_table(PLAN, ("native, AVX-512 BF16, bf16, 2 threads",)))
    assert "backend: native, AVX-512 BF16, bf16, 2 threads\n" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (9000, "2 h 30 min")]
)
def test_durations_are_rounded(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_sizes() -> None:
    assert (size(5 * 2**20), size(2**30), size(2**40)) == ("5 MiB", "1.0 GiB", "1,024.0 GiB")


def test_a_narrow_terminal_omits_columns_without_truncation() -> None:
    rows = [
        ("LoRA", "lora-r4-a64-lr0.001-s0", "0.9123", "0.9000 (0.850–0.940)", "0.9000", ">60", "4,612", "12", "halved")
    ]
    assert columns_that_fit(rows, None) == columns_that_fit(rows, 94) == list(range(9))
    assert columns_that_fit(rows, 93) == [0, 1, 2, 3, 4, 6, 7, 8]
    assert columns_that_fit(rows, 86) == [1, 2, 3, 4, 6, 7, 8]
    assert columns_that_fit(rows, 80) == [1, 2, 3, 4, 7, 8], "F1 and seconds stay"
    assert columns_that_fit(rows, 10) == [1, 2, 3]
    finished = [(*rows[0][:-1], "")]
    assert columns_that_fit(finished, 80) == [0, 1, 2, 3, 4, 6, 7]
