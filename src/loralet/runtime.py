"""How this process uses the CPU: passive waiting and thread counts. Both command line and Python class go through here.

OpenMP reads its waiting policy when torch is imported. Threads that spin while they wait slow two busy programs on one
machine to a near halt (dev/LOG.md), so the policy is set to passive before that import.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from loralet.errors import ConfigError

MOST_THREADS = 1024
"""Largest number of threads that ``--threads`` takes; OpenMP fails to start far fewer than a million."""
POLICY = "OMP_WAIT_POLICY"


def prepare_runtime() -> None:
    """Make OpenMP's threads wait passively, unless the user has set a policy; a warning, once, where it is too late."""
    if os.environ.get(POLICY):
        return
    os.environ[POLICY] = "PASSIVE"
    if "torch" in sys.modules:
        warnings.warn(
            "torch was imported before loralet, so its threads spin while they wait: a busy neighbour on this machine can "
            f"slow training to a tenth. Import loralet first, or set {POLICY}=PASSIVE before Python starts.",
            RuntimeWarning,
            stacklevel=3,
        )


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Use ``count`` CPU threads inside the block; None leaves torch's choice.

    Raises:
        ConfigError: an impossible number.
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
    """What is impossible about a number of threads, in words."""
    if count is not None and not 1 <= count <= MOST_THREADS:
        yield f"threads is {count}: it must be from 1 to {MOST_THREADS}"
