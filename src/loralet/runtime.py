"""CPU settings of this process: OpenMP wait policy and thread count, for the command line and the Python class.

OpenMP reads its wait policy when torch is imported. Spinning threads slow down other programs on the same machine
severely (dev/LOG.md), so the policy is set to passive before that import.
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


def prepare_runtime() -> None:
    """Set OpenMP's wait policy to passive, unless the user has set one. Warn once if torch is already imported."""
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


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Use ``count`` CPU threads inside the block; None leaves torch's choice.

    Raises:
        ConfigError: ``count`` is out of range.
    """
    import torch

    if problems := list(thread_problems(count)):
        raise ConfigError.listing(problems)
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def thread_problems(count: int | None) -> Iterator[str]:
    """Messages for an invalid number of threads."""
    if count is not None and not 1 <= count <= MOST_THREADS:
        yield f"threads is {count}: it must be from 1 to {MOST_THREADS}"
