"""A distillation that is killed at random moments ends, once resumed, in the state of an uninterrupted one."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
from states import Whole, completed, count, differences, final_state, killed, require_clean

KILLS = count("LORALET_KILLS", 0) // 3
"""Number of distillations that are killed; tests/unit/test_distill.py interrupts some in its own process."""
MOST_TRIES = 50
TEXTS, WORDS = 400, ("market", "oil", "bank", "trade", "team", "cup", "coach", "final", "vote", "war", "treaty")
DISTIL = (
    *("distill", "tiny-en", "--text", "../texts.txt", "--layers", "1", "--width", "32", "--heads", "2"),
    *("--feed-forward", "64", "--epochs", "2", "--pooled-epochs", "1", "--batch-size", "16", "--seed", "1"),
)


@pytest.fixture(scope="module")
def distillation(tmp_path_factory: pytest.TempPathFactory, cache: None) -> tuple[Path, Whole]:
    """Texts, and a distillation that was not interrupted."""
    place = tmp_path_factory.mktemp("distillation")
    draw = random.Random(0)
    lines = (" ".join(draw.choices(WORDS, k=draw.randrange(4, 20))) for _ in range(TEXTS))
    (place / "texts.txt").write_text("\n".join(lines) + "\n")
    (place / "whole").mkdir()
    completed(place / "whole", *DISTIL, "--out", "first")  # fills the caches
    done = completed(place / "whole", *DISTIL, "--out", "student")
    assert done.status == 0, done.output
    return place, Whole(DISTIL, final_state(place / "whole" / "student"), done.seconds)


@pytest.mark.skipif(not KILLS, reason="`make faults` runs it")
def test_killed_distillations_end_in_the_same_state(
    distillation: tuple[Path, Whole], capsys: pytest.CaptureFixture[str]
) -> None:
    (place, whole), draw, kills, within = distillation, random.Random(0), 0, 0
    for i in range(MOST_TRIES * KILLS):
        if kills == KILLS:
            break
        where = place / str(i)
        where.mkdir()
        command = (*DISTIL, "--out", "student", "--checkpoint-every", draw.choice("03"))
        done = killed(where, draw.uniform(0.3, 1) * whole.seconds, *command)
        while done.status == -signal.SIGKILL:
            require_clean(done)
            kills, within = kills + 1, within + (where / "student" / "checkpoint.safetensors").exists()
            begun = (where / "student" / "config.toml").exists()
            done = completed(where, *(("resume", "student") if begun and draw.random() < 0.5 else command))
        assert done.status == 0 or "its student is complete" in done.output, done.output
        completed(where, "resume", "student")
        assert not differences(final_state(where / "student"), whole.state)
    with capsys.disabled():
        print(f"\n{kills} of {kills} killed distillations end in identical final states; {within} had a checkpoint")
    assert kills == KILLS
