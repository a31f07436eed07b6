"""A leaderboard for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loralet.report.leaderboard import Leaderboard, Standing
from loralet.report.wording import amount, signed

HEADINGS = ("run", "accuracy (95 %)", "F1", "vs best", "p", "ms/text", "size")
MISSING = "–"
BEST, TIED = "★", "≈"


def cells(standing: Standing, metric: str) -> tuple[str, ...]:
    """The cells of one run, in the order of :data:`HEADINGS`; the size is that of all parameters of the model."""
    one, scores, versus = standing.contender, standing.scores, standing.versus
    mark = TIED if standing.tied else BEST if versus is None else ""
    low, high = scores.intervals.get(metric, (None, None))
    interval = "" if low is None or high is None else f" ({low:.3f}–{high:.3f})"
    f1 = scores.values.get("macro_f1")
    return (
        f"{one.name} {mark}".rstrip(),
        f"{scores[metric]:.4f}{interval}",
        MISSING if f1 is None else f"{f1:.4f}",
        MISSING if versus is None else signed(-100 * versus.difference),
        MISSING if versus is None else p_text(versus.p_holm),
        MISSING if one.seconds is None else f"{1000 * one.seconds:.2g}",
        MISSING if one.parameters is None else amount(one.parameters, "trainable"),
    )


def p_text(p: float) -> str:
    """A p-value with three decimals."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def leaderboard_table(found: Leaderboard) -> RenderableType:
    """The leaderboard, followed by what its columns mean."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, header_style="bold")
    for heading in HEADINGS:
        name = heading == "run"
        table.add_column(heading, justify="left" if name else "right", no_wrap=not name, overflow="fold")
    for standing in found.standings:
        style = "bold green" if standing.versus is None else ""
        table.add_row(*map(Text, cells(standing, found.metric)), style=style)
    return Group("", table, "", *(Text(line, overflow="fold") for line in notes(found)))


def notes(found: Leaderboard) -> Iterator[str]:
    """What was measured, and what the columns mean."""
    yield f"{found.source}: {found.rows:,} rows"
    names = ", ".join(f"{s.contender.name}: {s.contender.run} on {s.contender.model}" for s in found.standings)
    yield names
    marks = f"; {TIED} not distinguishable from {BEST}" if any(s.tied for s in found.standings) else ""
    yield (
        f"vs best: points of accuracy, on the same rows; p: {found.pairs[0].method}, corrected for "
        f"{len(found.pairs)} pair{'s' * (len(found.pairs) > 1)} (Holm){marks}"
    )
    yield f"{found.timing}; size: parameters of the whole model"
