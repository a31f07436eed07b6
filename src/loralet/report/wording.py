"""Number and list formatting of the report."""

from __future__ import annotations

from collections.abc import Sequence

NO_BREAK = "\u00a0"
"""Keeps a number and its unit on one line."""
PARAMETERS = (("", 1.0), ("K", 1e3), ("M", 1e6), ("G", 1e9))
BYTES = ((" B", 1.0), (" KiB", 2.0**10), (" MiB", 2.0**20), (" GiB", 2.0**30))


def percent(share: float, digits: int = 1) -> str:
    """A fraction in per cent: ``90.0 %``."""
    return f"{100 * share:.{digits}f}{NO_BREAK}%"


def points(difference: float) -> str:
    """A difference of two fractions in percentage points, with its sign: ``+3.1 points``."""
    return f"{signed(100 * difference)} points"


def signed(number: float) -> str:
    """One decimal with its sign. A number that rounds to zero has a plus sign."""
    return f"{round(number, 1) + 0.0:+.1f}".replace("-", "−")


def p_value(p: float) -> str:
    """``p = 0.012``, or ``p < 0.001``."""
    return f"p{NO_BREAK}<{NO_BREAK}0.001" if p < 0.001 else f"p{NO_BREAK}={NO_BREAK}{p:.3f}"


def listed(items: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def plural(count: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def capitalised(sentence: str) -> str:
    """The sentence with its first letter in upper case."""
    return sentence[0].upper() + sentence[1:]


def amount(value: float, cost: str) -> str:
    """A cost with its unit and at most three digits.

    Args:
        value: parameters, bytes or seconds.
        cost: ``trainable``, ``bytes`` or ``seconds``.
    """
    if cost == "seconds":
        return f"{seconds(value)} s" if value < 600 else f"{value / 60:.0f} min"
    units = PARAMETERS if cost == "trainable" else BYTES
    suffix, unit = max((u for u in units if value >= u[1]), key=lambda u: u[1], default=units[0])
    return f"{value / unit:.3g}{suffix}"


def seconds(value: float) -> str:
    """Seconds without a unit: rounded to whole seconds from 10 on, to two digits below."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.2g}"
