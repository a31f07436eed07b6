"""A study that is killed at a random moment ends, once resumed, in the final state of an uninterrupted one."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest
from states import (
    Whole,
    completed,
    count,
    differences,
    ended,
    final_state,
    killed,
    require_clean,
    started,
    wait_for,
)

from loralet.atomic import TEMPORARY

KILLS = count("LORALET_KILLS", 1)
"""Number of studies that are killed."""
MOST_TRIES = 50


def in_a_save(folder: Path) -> bool:
    """Whether the process that wrote a folder was killed while it wrote a file."""
    return any(TEMPORARY.fullmatch(path.name) for path in folder.rglob(".*"))


def test_killed_studies_end_in_the_same_state(tmp_path: Path, study: Whole, capsys: pytest.CaptureFixture[str]) -> None:
    """Half of the studies write a checkpoint after each step; some are killed again after that."""
    draw, kills, again, early, saves = random.Random(0), 0, 0, 0, 0
    for _ in range(KILLS * MOST_TRIES):
        if kills == KILLS:
            break
        folder, command = tmp_path / "run", (*study.arguments, "--out", "run", "--checkpoint-every", draw.choice("03"))
        # One in six at any moment of the start, the others while it trains, which takes less than half of the time.
        after = None if draw.random() < 1 / 6 else folder / "checkpoint" / "run.json"
        done = killed(tmp_path, draw.uniform(0, 0.5) * study.seconds, *command, after=after)
        if done.status == -signal.SIGKILL:
            kills, saves, early = kills + 1, saves + in_a_save(folder), early + (not begun(folder))
        while done.status == -signal.SIGKILL:
            require_clean(done)
            # The same command and `resume` do the same, but nothing can be resumed before the first step.
            can_resume = (folder / "checkpoint" / "run.json").exists()
            command = ("resume", "run") if can_resume and draw.random() < 0.5 else command
            if draw.random() < 0.2:
                done = killed(tmp_path, draw.uniform(0.1, 1) * study.seconds, *command)
                again += done.status == -signal.SIGKILL
            else:
                done = completed(tmp_path, *command)
        # A process that is killed while it prints its table has finished the study.
        assert done.status == 0 or "it holds a finished run" in done.output, done.output
        assert not differences(final_state(folder), study.state)
        shutil.rmtree(folder)
        with capsys.disabled():
            print(f"\n{kills} killed: {early} before the first checkpoint, {saves} in a save, {again} again", end="")
    with capsys.disabled():
        print(
            f"\n{kills} of {kills} killed studies end in identical final states: {early} killed before the first "
            f"checkpoint, {saves} while a file was written; {again} more kills of continued studies"
        )
    assert kills == KILLS


def begun(folder: Path) -> bool:
    """Whether there is a checkpoint of a pack."""
    return any(folder.glob("checkpoint/pack-*.json"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_a_checkpoint_and_names_the_command_that_resumes(
    tmp_path: Path, training: Whole, number: signal.Signals
) -> None:
    process = started(tmp_path, (*training.arguments, "--out", "run"))
    wait_for(tmp_path / "run" / "metrics.jsonl", b'"Checked"')  # in mid-training
    process.send_signal(number)
    done = ended(process)
    require_clean(done)
    assert done.status == 128 + number
    assert "to go on from the last checkpoint: loralet resume run" in done.output
    assert (tmp_path / "run" / "checkpoint" / "pack-1.json").exists()
    resumed = completed(tmp_path, "resume", "run")
    assert resumed.status == 0, resumed.output
    assert "resuming after step" in resumed.output
    assert not differences(final_state(tmp_path / "run"), training.state)


def test_a_second_process_is_refused_and_writes_nothing(tmp_path: Path, training: Whole) -> None:
    command = (*training.arguments, "--out", "run", "--checkpoint-every", "0")
    first = started(tmp_path, command)
    try:
        wait_for(tmp_path / "run" / "checkpoint" / "lock")
        before = sorted(path.name for path in (tmp_path / "run").iterdir())
        second = completed(tmp_path, *command)
        assert second.status == 2
        assert "another process is training into this folder" in second.output
        assert len(second.output.splitlines()) == 1
        assert set(before) <= {path.name for path in (tmp_path / "run").iterdir()}
    finally:
        output, _ = first.communicate(timeout=600)
    assert first.returncode == 0, output
    assert not differences(final_state(tmp_path / "run"), training.state)
