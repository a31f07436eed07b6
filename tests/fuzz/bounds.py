"""What holds for every generated input: a value or a message for the user, within bounded time and memory."""

from __future__ import annotations

import faulthandler
import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings

from loralet.errors import UserError

Value = TypeVar("Value")

CASES = int(os.environ.get("LORALET_CASES", "0"))
"""Number of inputs of each test; 0: the few of the default run, which are the same every time."""
SECONDS = 20
"""Time for one input. The slowest takes less than one second on a quiet machine."""
STUCK = 120
"""Seconds until a process that does not react to the timer, such as a loop in C, is ended with its tracebacks."""
MEMORY = 2 << 30
"""Bytes that the process may take for the inputs of one test."""
LONGEST_MESSAGE = 20_000
"""Characters of a message."""


@dataclass
class Counts:
    """What came of the inputs of one test.

    Args:
        accepted, refused: number of calls with a value, and with a message.
        slowest: seconds of the slowest call.
    """

    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0


COUNTS = Counts()


class TooSlowError(BaseException):
    """An input takes too long. No handler of the program may catch it."""


def fuzzed(few: int, share: float = 1.0) -> settings:
    """Settings of a test.

    Args:
        few: number of inputs of the default run.
        share: fraction of LORALET_CASES, if one test has several parts.
    """
    return settings(
        max_examples=max(1, round(CASES * share)) if CASES else few,
        derandomize=not CASES,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.filter_too_much,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
            HealthCheck.function_scoped_fixture,
        ],
    )


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Limit the address space to what the process has and :data:`MEMORY`; larger allocations fail."""
    if sys.platform != "linux":
        yield
        return
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def bounded_time() -> Iterator[None]:
    """End an input that takes longer than :data:`SECONDS`."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlowError(f"longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    faulthandler.dump_traceback_later(STUCK, exit=True, file=sys.__stderr__)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def outcome(function: Callable[..., Value], *arguments: Any) -> Value | None:
    """The value of a call; None if it refuses its input with a message. Other exceptions fail the test."""
    begin = time.perf_counter()
    with bounded_time():
        try:
            value = function(*arguments)
            COUNTS.accepted += 1
            return value
        except UserError as error:
            message = str(error)
            COUNTS.refused += 1
        finally:
            COUNTS.slowest = max(COUNTS.slowest, time.perf_counter() - begin)
    assert message.strip(), "an error without a message"
    assert "Traceback" not in message
    assert len(message) < LONGEST_MESSAGE, f"a message of {len(message)} characters: {message[:200]}"
    return None
