"""A study that is killed at random moments ends, once resumed, in the final state of an uninterrupted one."""

from __future__ import annotations

import random
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

KILLS = count("LORALET_KILLS", 2)
"""Number of kills."""
MOST_TRIES = 50


def test_killed_studies_end_in_the_same_state(tmp_path: Path, study: Whole, capsys: pytest.CaptureFixture[str]) -> None:
    """Every study is killed until all kills are spent, half of them while every step writes a checkpoint."""
    draw, kills, studies, saves, most = random.Random(0), 0, 0, 0, 0
    while kills < KILLS and studies < MOST_TRIES:
        out, every = f"run-{studies}", draw.choice(("0", "1000"))
        command = (*study.arguments, "--out", out, "--checkpoint-every", every)
        done, own = killed(tmp_path, draw.uniform(0.3, 1) * study.seconds, *command), 0
        while done.status == -signal.SIGKILL:
            own, saves = own + 1, saves + (every == "0")
            require_clean(done)
            # The same command and `resume` do the same, but nothing can be resumed before the first step.
            begun = (tmp_path / out / "checkpoint" / "run.json").exists()
            again = ("resume", out) if begun and draw.random() < 0.5 else command
            if kills + own < KILLS:
                done = killed(tmp_path, draw.uniform(0.3, 1) * study.seconds, *again)
            else:
                done = completed(tmp_path, *again)
        # A process that is killed while it prints its table has finished the study.
        assert done.status == 0 or "it holds a finished run" in done.output, done.output
        assert not differences(final_state(tmp_path / out), study.state)
        kills, studies, most = kills + own, studies + 1, max(most, own)
    with capsys.disabled():
        print(
            f"\n{kills} kills of {studies} studies ({saves} with a checkpoint at each step, at most {most} of one "
            f"study): {studies} of {studies} final states are identical"
        )
    assert kills >= KILLS


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
