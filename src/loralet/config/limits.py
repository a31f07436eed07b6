"""What is impossible about a value, in words; the options share these."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import inf

TARGETS = ("query", "key", "value", "attention-output", "intermediate", "output")
"""The linear maps of one encoder layer, by the names ``--targets`` takes."""

ALL_LINEAR = "all-linear"


def lora_problems(rank: int, alpha: float, dropout: float, lr: float) -> Iterator[str]:
    """What is impossible about one LoRA configuration, in words."""
    if rank < 0:
        yield f"rank is {rank}: it must be 0 (head only) or more"
    if not 0 < alpha < inf:
        yield f"alpha is {alpha}: it must be above 0, and finite"
    if not 0 <= dropout < 1:
        yield f"dropout is {dropout}: it must be at least 0 and below 1"
    if not 0 < lr < inf:
        yield f"lr is {lr}: it must be above 0, and finite"


def choice_problems(given: dict[str, tuple[str, tuple[str, ...]]]) -> Iterator[str]:
    """What is no choice, in words: for each name the value given, and those that there are."""
    for name, (value, known) in given.items():
        if value not in known:
            yield f"{name} is {value!r}: it must be one of {', '.join(known)}"


def seed_problems(name: str, seed: int) -> Iterator[str]:
    """What is impossible about a seed, in words."""
    if seed < 0:
        yield f"{name} is {seed}: it must not be negative"


def thread_problems(threads: int | None) -> Iterator[str]:
    """What is impossible about a number of threads, in words."""
    if threads is not None and threads < 1:
        yield f"threads is {threads}: it must be at least 1"


def several_problems(run: str, runs: tuple[str, ...]) -> Iterator[str]:
    """What is impossible about one run and several of them, in words."""
    if run and runs:
        yield "give run or runs, not both"


def student_problems(layers: int, width: int, heads: int, feed_forward: int, match: tuple[int, ...]) -> Iterator[str]:
    """What is impossible about a student's sizes and the teacher's layers that it matches, in words."""
    for name, value in {"layers": layers, "width": width, "heads": heads, "feed_forward": feed_forward}.items():
        if value < 1:
            yield f"{name} is {value}: it must be at least 1"
    if heads > 0 and width % heads:
        yield f"width is {width} and heads is {heads}: the width must divide evenly among the heads"
    if match and len(match) != layers:
        yield f"match names {len(match)} of the teacher's layers for a student of {layers}: name one for each"
    if any(layer < 1 for layer in match) or any(a >= b for a, b in pairwise(match)):
        yield f"match is {' '.join(map(str, match))}: the teacher's layers count from 1 and must rise"


def target_problems(targets: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with a list of target names, in words."""
    if not targets:
        yield "targets is empty: name at least one linear map, or give rank 0 to train the head alone"
    unknown = [t for t in targets if t not in (*TARGETS, ALL_LINEAR)]
    if unknown:
        yield f"targets has {', '.join(unknown)}: the model has {', '.join(TARGETS)} (or {ALL_LINEAR} for all of them)"
    if ALL_LINEAR in targets and len(targets) > 1:
        yield f"targets mixes {ALL_LINEAR} with other names: {ALL_LINEAR} already is every linear map"


def resolve_targets(targets: tuple[str, ...]) -> tuple[str, ...]:
    """The plain target names, in the order of :data:`TARGETS`."""
    return TARGETS if ALL_LINEAR in targets else tuple(t for t in TARGETS if t in targets)


def sets_of_targets(joined: tuple[str, ...], targets: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The sets of targets of a grid: each name of ``joined`` parted at its +, or ``targets`` alone where there is none."""
    return [tuple(names.split("+")) for names in joined] or [targets]
