"""Checks shared by several option classes; each yields one message per problem."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise

from loralet.records import MOST, shown

LARGEST_RATE = 1e30
"""Largest learning rate; fp32, in which optimisers compute, ends at 3.4e38."""


def choice_problems(given: dict[str, tuple[object, Sequence[object]]]) -> Iterator[str]:
    """Report values that are not allowed; ``given`` maps a name to its value and the allowed values."""
    for name, (value, known) in given.items():
        if value not in known:
            yield f"{name} is {value!r}: it must be one of {', '.join(map(str, known))}"


def size_problems(options: object) -> Iterator[str]:
    """Report whole numbers of more than 64 bits, in options, their groups and their lists."""
    for field in fields(options):  # type: ignore[arg-type]  # a dataclass
        value = getattr(options, field.name)
        if is_dataclass(value):
            yield from size_problems(value)
        given = value if isinstance(value, tuple) else (value,)
        if any(isinstance(one, int) and not -MOST <= one < MOST for one in given):
            yield f"{field.name} is {shown(value)}: a whole number of at most 64 bits is expected"


MOST_EPOCHS = 1e6
"""Largest number of passes over the rows."""
MOST_GIB = 2.0**30
"""Largest memory limit in GiB."""
LARGEST_STUDENT = {"layers": 1000, "width": 2**16, "heads": 2**16, "feed_forward": 2**18}
"""Largest sizes of a student."""


def seed_problems(name: str, seed: int) -> Iterator[str]:
    """Check a seed."""
    if seed < 0:
        yield f"{name} is {seed}: it must not be negative"


def rate_problems(name: str, rate: float) -> Iterator[str]:
    """Check a learning rate or another positive factor."""
    if not 0 < rate <= LARGEST_RATE:
        yield f"{name} is {rate}: it must be above 0 and at most {LARGEST_RATE:g}"


def interval_problems(seconds: float) -> Iterator[str]:
    """Check the time between checkpoints."""
    if not 0 <= seconds < float("inf"):
        yield f"checkpoint_every is {seconds}: it must be finite and not negative (0: after each step)"


def twice(values: Sequence[object]) -> str:
    """The values, joined, if one of them occurs twice; else an empty string."""
    return ", ".join(map(str, values)) if len(set(values)) != len(values) else ""


def student_problems(layers: int, width: int, heads: int, feed_forward: int, match: tuple[int, ...]) -> Iterator[str]:
    """Check the sizes of a student and the teacher layers that it matches."""
    for name, value in {"layers": layers, "width": width, "heads": heads, "feed_forward": feed_forward}.items():
        if not 1 <= value <= LARGEST_STUDENT[name]:
            yield f"{name} is {value}: it must be at least 1 and at most {LARGEST_STUDENT[name]}"
    if heads > 0 and width % heads:
        yield f"width is {width} and heads is {heads}: width must be a multiple of heads"
    if match and len(match) != layers:
        yield f"match has {len(match)} teacher layers for {layers} student layers: give one for each"
    if any(layer < 1 for layer in match) or any(a >= b for a, b in pairwise(match)):
        yield f"match is {' '.join(map(str, match))}: teacher layers count from 1 and must increase"


def sets_of_targets(joined: tuple[str, ...], targets: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The target sets of a grid: the names of ``joined`` split at +, or ``targets`` if ``joined`` is empty."""
    return [tuple(names.split("+")) for names in joined] or [targets]
