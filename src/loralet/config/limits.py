"""Checks that several option classes share; each yields what is wrong, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise


def choice_problems(given: dict[str, tuple[object, Sequence[object]]]) -> Iterator[str]:
    """For each name the value given and the values allowed."""
    for name, (value, known) in given.items():
        if value not in known:
            yield f"{name} is {value!r}: it must be one of {', '.join(map(str, known))}"


def seed_problems(name: str, seed: int) -> Iterator[str]:
    """What is impossible about a seed."""
    if seed < 0:
        yield f"{name} is {seed}: it must not be negative"


def rate_problems(name: str, rate: float) -> Iterator[str]:
    """What is impossible about a learning rate or another positive factor."""
    if not 0 < rate < float("inf"):
        yield f"{name} is {rate}: it must be above 0 and finite"


def twice(values: Sequence[object]) -> str:
    """The values, if one of them occurs twice; else nothing."""
    return ", ".join(map(str, values)) if len(set(values)) != len(values) else ""


def student_problems(layers: int, width: int, heads: int, feed_forward: int, match: tuple[int, ...]) -> Iterator[str]:
    """What is impossible about a student's sizes and the teacher's layers that it matches."""
    for name, value in {"layers": layers, "width": width, "heads": heads, "feed_forward": feed_forward}.items():
        if value < 1:
            yield f"{name} is {value}: it must be at least 1"
    if heads > 0 and width % heads:
        yield f"width is {width} and heads is {heads}: the heads must divide the width"
    if match and len(match) != layers:
        yield f"match names {len(match)} of the teacher's layers for a student of {layers}: name one for each"
    if any(layer < 1 for layer in match) or any(a >= b for a, b in pairwise(match)):
        yield f"match is {' '.join(map(str, match))}: the teacher's layers count from 1 and must rise"


def sets_of_targets(joined: tuple[str, ...], targets: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The target sets of a grid: each name of ``joined`` split at its +, or ``targets`` alone where there is none."""
    return [tuple(names.split("+")) for names in joined] or [targets]
