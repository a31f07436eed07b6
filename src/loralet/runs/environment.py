"""Environment of a run: versions, machine, backends. The only module that reads and writes environment.json."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from loralet import __version__
from loralet.atomic import write_json
from loralet.backends.info import BackendInfo
from loralet.cpu import cpu_model
from loralet.errors import RunError
from loralet.records import plain, read_record, require_files
from loralet.runs.checkout import source_commit

NAME = "environment.json"
RENAMED = {"processor": "cpu"}
"""Fields of older run folders, and their present names."""


@dataclass(frozen=True)
class SessionBackend:
    """The backend that computed one model of a study."""

    model: str
    backend: BackendInfo


@dataclass(frozen=True)
class Resumed:
    """A process that continued an interrupted run: its start time, CPU, threads and backends."""

    started: str
    cpu: str
    threads: int
    backends: tuple[SessionBackend, ...]


@dataclass(frozen=True)
class Environment:
    """environment.json.

    Args:
        loralet, python, torch: versions.
        commit: commit of loralet, if it runs from a source checkout.
        platform, cpu, cores, threads, gpu: the machine.
        command: command line.
        started: local start time.
        backends: backend of each model; empty in folders written before backends were recorded.
        resumed: the processes that continued the run.
    """

    loralet: str
    python: str
    torch: str
    platform: str
    cpu: str
    cores: int | None
    threads: int
    gpu: str | None
    command: tuple[str, ...]
    started: str
    commit: str | None = None
    backends: tuple[SessionBackend, ...] = ()
    resumed: tuple[Resumed, ...] = ()


def environment(backends: tuple[SessionBackend, ...] = ()) -> Environment:
    """The environment of this process."""
    import torch  # takes a while, and reading a folder does without

    return Environment(
        loralet=__version__,
        python=platform.python_version(),
        torch=torch.__version__,
        platform=platform.platform(),
        cpu=cpu_model(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        command=("loralet", *sys.argv[1:]),
        started=datetime.now().astimezone().isoformat(timespec="seconds"),
        commit=source_commit(),
        backends=backends,
    )


def continued(folder: Path, now: Environment) -> Environment:
    """The environment in which a run began, with this process added; that of this process if none is readable.

    Args:
        folder: the run folder.
        now: the environment of this process.
    """
    try:
        before = read_environment(folder)
    except RunError:
        return now
    resumed = Resumed(now.started, now.cpu, now.threads, now.backends)
    return replace(before, resumed=(*before.resumed, resumed))


def write_environment(folder: Path, found: Environment) -> None:
    """Write environment.json into a run folder."""
    write_json(folder / NAME, plain(found))


def read_environment(folder: Path) -> Environment:
    """Read environment.json of a run folder.

    Raises:
        RunError: the file is missing or broken; all problems are listed.
    """
    require_files(folder)
    path, problems = folder / NAME, list[str]()
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(raw, dict):
        raise RunError(f"{path}: a JSON object is expected")
    raw = {RENAMED.get(key, key): value for key, value in raw.items()}
    found = read_record(Environment, raw, problems)
    if found is None:
        raise RunError("\n".join([f"{path}: cannot be read:", *(f"  - {problem}" for problem in problems)]))
    return found


def peak_memory(status: Path = Path("/proc/self/status")) -> int:
    """Peak resident memory of this process in bytes.

    Read from VmHWM on Linux, else from getrusage (bytes on macOS); 0 on Windows, which has neither.

    Args:
        status: Linux's status file of the process. On Linux, getrusage includes memory of the parent before a fork.
    """
    try:
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        if sys.platform == "win32":
            return 0
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
