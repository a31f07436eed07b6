"""Run two tasks in parallel, each with half of the CPU threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Result = TypeVar("Result")


def together(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Results of one or two tasks, in order. Tasks run in parallel if torch has more than one thread.

    Every task uses the caller's gradient mode.
    """
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
            future.exception()  # wait until every task has ended
        torch.set_num_threads(threads)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="loralet-shard")
