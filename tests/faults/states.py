"""Interrupt the command line in a process of its own, and compare the final states of run folders."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMED = ("seconds", "train_seconds", "peak_memory_bytes", "memory_bytes", "budget_bytes")
"""Fields that depend on time and on the memory of the process."""
FREE = (b"out = ", b"checkpoint_every = ")
"""Lines of config.toml that may differ."""
SOURCE = Path(__file__).parents[2] / "src"
ENDED = 600
"""Timeout of a process in seconds."""


STUDY = (
    *("study", "news-mini", "--steps", "40", "--eval-every", "10", "--batch-size", "16", "--memory", "0.02"),
    *(
        "--ranks",
        "2",
        "4",
        "--alphas",
        "8",
        "--dropouts",
        "0.1",
        "--seeds",
        "0",
        "1",
        "--halving",
        "--combine",
        "--no-default",
    ),
)
"""Several packs, with dropout, runs that leave early, an average and an ensemble."""
TRAIN = (
    "train",
    "news-mini",
    "--steps",
    "60",
    "--eval-every",
    "10",
    "--rank",
    "4",
    "--dropout",
    "0.1",
    "--folds",
    "2",
    "--hybrid",
    "off",
)


@dataclass(frozen=True)
class Whole:
    """A command that was not interrupted: its arguments, its final state, and its seconds."""

    arguments: tuple[str, ...]
    state: dict[str, str]
    seconds: float


def count(name: str, default: int) -> int:
    """A number of repetitions from the environment; ``make faults`` sets larger ones."""
    return int(os.environ.get(name, default))


@dataclass(frozen=True)
class Ended:
    """A process that has ended: its status (negative for a signal), and its output."""

    status: int
    output: str
    seconds: float


def environment() -> dict[str, str]:
    """The environment of a process: this source, one thread, no colours, and the caches of the test."""
    return os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}


def started(place: Path, arguments: Sequence[str], prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start ``loralet`` with these arguments in a folder; output and errors come in one stream."""
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "loralet", *arguments],
        cwd=place,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> Ended:
    """Wait for a process."""
    began = time.monotonic()
    output, _ = process.communicate(timeout=ENDED)
    return Ended(process.returncode, output, time.monotonic() - began)


def completed(place: Path, *arguments: str, prefix: Sequence[str] = ()) -> Ended:
    """Run ``loralet`` to its end."""
    return ended(started(place, arguments, prefix))


def killed(place: Path, seconds: float, *arguments: str, after: Path | None = None) -> Ended:
    """Run ``loralet`` and kill it some seconds after a file exists, if it has not ended before."""
    process = started(place, arguments)
    while after is not None and not after.exists() and process.poll() is None:
        time.sleep(0.01)
    try:
        output, _ = process.communicate(timeout=seconds)
        return Ended(process.returncode, output, seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    return ended(process)


def wait_for(path: Path, content: bytes = b"") -> None:
    """Wait until a file exists and contains some bytes."""
    until = time.monotonic() + ENDED
    while not (path.exists() and content in path.read_bytes()):
        assert time.monotonic() < until, f"{path} does not appear, or does not contain {content!r}"
        time.sleep(0.01)


def final_state(folder: Path) -> dict[str, str]:
    """Hash of every file of a finished run folder but environment.json; times and memory are left out."""
    state: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name == "environment.json":
            continue
        content = path.read_bytes()
        if name == "metrics.jsonl":
            content = json.dumps([_untimed(json.loads(line)) for line in content.splitlines()]).encode()
        elif name == "results.json":
            content = json.dumps(_untimed(json.loads(content))).encode()
        elif name == "config.toml":
            content = b"".join(line for line in content.splitlines() if not line.startswith(FREE))
        state[name] = hashlib.sha256(content).hexdigest()
    return state


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Names of the files that differ, or that only one of two states has."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def require_clean(done: Ended) -> None:
    """Check that a process showed no traceback, and left nothing but a message and its status."""
    assert "Traceback" not in done.output, done.output
    assert done.status in (0, 1, 2, 130, 143, -signal.SIGKILL, -signal.SIGINT, -signal.SIGTERM), (
        f"status {done.status}: {done.output}"
    )


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(inner) for key, inner in value.items() if key not in TIMED}
    return [_untimed(inner) for inner in value] if isinstance(value, list) else value
