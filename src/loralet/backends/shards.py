"""Two halves of the work at once, each on its own thread with its own half of the processor threads.

For tensors this small, splitting every operation over the cores costs more in waiting than it saves, and waits badly on a busy machine; splitting the
rows costs one wait a step (measured in dev/LOG.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

SHARDS = 2
"""Parts of a batch on a processor, where torch does the work. Fixed, so that a run's dropout masks do not depend on the number of cores."""

Result = TypeVar("Result")


def shard_count(device: torch.device) -> int:
    """Parts that a batch is split into: one on a GPU, which is bound by the number of launches."""
    return SHARDS if device.type == "cpu" else 1


def together(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Results of all tasks, in their order; at once where torch has threads for that. Gradient mode is the caller's in every task."""
    threads = torch.get_num_threads()
    if threads == 1 or len(tasks) == 1:
        return [task() for task in tasks]
    each, mode = max(1, threads // len(tasks)), torch.is_grad_enabled()

    def limited(task: Callable[[], Result]) -> Result:
        torch.set_num_threads(each)
        with torch.set_grad_enabled(mode):
            return task()

    futures = [_pool().submit(limited, task) for task in tasks[1:]]
    try:
        torch.set_num_threads(each)
        return [tasks[0](), *(future.result() for future in futures)]
    finally:
        for future in futures:
            future.exception()  # wait: no task outlives the call
        torch.set_num_threads(threads)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(SHARDS - 1, thread_name_prefix="loralet-shard")
