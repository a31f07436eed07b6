"""CPU settings of this process: OpenMP wait policy and thread count, for the command line and the Python class.

OpenMP reads its wait policy when torch or the kernels are loaded. Spinning threads slow down other programs on the same
machine severely (dev/LOG.md), so the policy is set to passive before that.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from loralet.errors import ConfigError

MOST_THREADS = 1024
"""Largest value of ``--threads``. OpenMP fails to start far fewer than a million threads."""
POLICY = "OMP_WAIT_POLICY"


NO_TELEMETRY = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")
"""Environment variables with which onnxruntime and huggingface_hub send no usage data, read when they are imported."""


def prevent_telemetry() -> None:
    """Keep dependencies that are imported later from sending usage data, unless the user has set their variables."""
    for name in NO_TELEMETRY:
        os.environ.setdefault(name, "1")


def prepare_runtime() -> None:
    """Set OpenMP's wait policy to passive, unless the user has set one. Warn once if torch is already imported.

    Also keep dependencies from sending usage data, and limit ``OMP_NUM_THREADS`` to what OpenMP can start.
    """
    prevent_telemetry()
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if given.isdecimal() and int(given) > MOST_THREADS:  # torch and the kernels would end the process
        os.environ["OMP_NUM_THREADS"] = str(MOST_THREADS)
    if os.environ.get(POLICY):
        return
    os.environ[POLICY] = "PASSIVE"
    if "torch" in sys.modules:
        warnings.warn(
            "torch was imported before loralet, so its threads spin while they wait. Other programs on this machine "
            "can slow training down tenfold. "
            f"Import loralet first, or set {POLICY}=PASSIVE before Python starts.",
            RuntimeWarning,
            stacklevel=3,
        )


_without_torch: int | None = None
"""Number of threads set by the user in a process that has not imported torch."""


_forked = False
"""Whether this process is a fork of another. GNU OpenMP does not start its threads again in such a process."""


def _mark_as_forked() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_as_forked)


def thread_count() -> int:
    """Number of CPU threads: torch's setting if it is imported, else the user's, else one per available core.

    One in a forked process, as those of joblib and multiprocessing, because a second thread would never start there.
    """
    if _forked:
        return 1
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        return int(torch.get_num_threads())
    if _without_torch is not None:
        return _without_torch
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return min(int(given), MOST_THREADS) if given.isdecimal() and int(given) else available_cores()


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Use ``count`` CPU threads inside the block; None leaves the present setting. Does not import torch.

    Raises:
        ConfigError: ``count`` is out of range.
    """
    global _without_torch
    if problems := list(thread_problems(count)):
        raise ConfigError.listing(problems)
    torch = sys.modules.get("torch")
    before, outer = torch.get_num_threads() if torch else thread_count(), _without_torch
    wanted = 1 if _forked else count  # torch uses OpenMP too
    try:
        if wanted is not None:
            _without_torch = wanted
            apply_threads()
        yield
    finally:
        _without_torch = outer
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(before)


def apply_threads() -> None:
    """Give torch, if it is imported, the number of threads set by the user."""
    if _without_torch is not None and (torch := sys.modules.get("torch")):
        torch.set_num_threads(_without_torch)


def thread_problems(count: int | None) -> Iterator[str]:
    """Messages for an invalid number of threads."""
    if count is not None and not 1 <= count <= MOST_THREADS:
        yield f"threads is {count}: it must be from 1 to {MOST_THREADS}"
