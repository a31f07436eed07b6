"""A full and a read-only disk: one message names a file, and after that the run goes on to the same final state."""

from __future__ import annotations

import random
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from states import TRAIN, Whole, count, differences, environment, final_state

DISKS = count("LORALET_DISKS", 1)
"""Number of full disks."""
SMALLEST, LARGEST = 8, 1_400
"""Sizes of a full disk in KiB; the run folder needs more."""


def run(place: Path, script: str) -> str:
    """Run a shell script in a mount namespace of its own; returns its output. Skip if that is not allowed."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    probe = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs tmpfs "$0"', str(place)]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not allowed")
    words = ["unshare", "-m", "sh", "-c", f"exec 2>&1; cd {shlex.quote(str(place))}; {script}"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False, timeout=600)
    return done.stdout


def loralet(*arguments: str) -> str:
    """A shell command."""
    return f"{shlex.join([sys.executable, '-m', 'loralet', *arguments])}; echo status $?"


def test_a_full_disk_is_one_message_and_the_run_goes_on_after_it(
    tmp_path: Path, training: Whole, capsys: pytest.CaptureFixture[str]
) -> None:
    draw, files = random.Random(0), set[str]()
    command = loralet(*TRAIN, "--out", "disk/run", "--checkpoint-every", "0", "--quiet")
    for i in range(DISKS):
        place = tmp_path / str(i)
        (place / "disk").mkdir(parents=True)
        size = round(SMALLEST * (LARGEST / SMALLEST) ** draw.random())
        first, _, second = run(
            place,
            f"mount -t tmpfs -o size={size}k tmpfs disk; {command}; echo END; "
            f"mount -o remount,size=100M disk; {command}; cp -r disk/run kept",
        ).partition("END")
        assert "Traceback" not in first
        assert "status 1" in first, first
        messages = [line for line in first.splitlines() if line.startswith("loralet: ")]
        assert len(messages) == 1, first
        assert messages[0].endswith("No space left on device")
        files.add(messages[0].split(": ")[1])
        assert messages[0].startswith("loralet: disk/run/")
        assert "status 0" in second, second
        assert not differences(final_state(place / "kept"), training.state)
    with capsys.disabled():
        print(f"\n{DISKS} of {DISKS} full disks end in identical final states; full at {', '.join(sorted(files))}")


def test_a_read_only_folder_is_one_message(tmp_path: Path, training: Whole) -> None:
    command = shlex.join([sys.executable, "-m", "loralet", *TRAIN, "--out", "disk/run", "--checkpoint-every", "0"])
    (tmp_path / "disk").mkdir()
    wait = "while [ ! -e disk/run/checkpoint/pack-1.json ]; do sleep 0.05; done"
    resume = loralet("resume", "disk/run", "--quiet")
    output = run(
        tmp_path,
        f"mount -t tmpfs tmpfs disk; {command} 2>/dev/null >/dev/null & "
        f"{wait}; kill -TERM $!; wait $!; mount -o remount,ro disk; {resume}; mount -o remount,rw disk; {resume}; "
        "cp -r disk/run kept",
    )
    first, second = output.split("status ")[1:3]
    assert "Traceback" not in output
    assert first[0] in "12", output
    assert second[0] == "0", output
    assert "loralet: disk/run/" in output
    assert "Read-only file system" in output
    assert not differences(final_state(tmp_path / "kept"), training.state)
