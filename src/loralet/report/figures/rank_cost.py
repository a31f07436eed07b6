"""Training time and peak memory of each adapter configuration by its rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import FixedLocator, FuncFormatter

from loralet.report.analysis import Analysis
from loralet.report.configurations import Configuration, grid_rows
from loralet.report.figures.style import ACCENT, INK, PAGE, Panel, panel, rules, series, sheet, styled
from loralet.report.wording import amount

SHIFT = 0.12
"""Distance between two alphas of one rank, in units of the distance between two ranks."""


@dataclass(frozen=True)
class Cost:
    """A cost of a configuration.

    Args:
        name: suffix of the panel's name.
        heading: heading of the panel.
        unit: ``seconds`` or ``bytes``; see :func:`loralet.report.wording.amount`.
        values: one per configuration.
    """

    name: str
    heading: str
    unit: str
    values: Sequence[float]


def rank_panels(analysis: Analysis) -> list[Panel]:
    """Seconds and peak memory of each adapter configuration. Panels without measurements are omitted."""
    rows = [row for row in grid_rows(analysis.configurations) if row.seconds is not None]
    weighed = [row for row in rows if row.memory is not None]
    seconds = Cost("seconds", "training seconds per run", "seconds", [row.seconds or 0.0 for row in rows])
    memory = Cost("memory", "peak memory of the process", "bytes", [float(row.memory or 0) for row in weighed])
    return [_panel(shown, cost) for shown, cost in ((rows, seconds), (weighed, memory)) if shown]


def _panel(rows: Sequence[Configuration], cost: Cost) -> Panel:
    ranks, alphas = sorted({row.rank or 0 for row in rows}), sorted({row.alpha or 0.0 for row in rows})
    with styled():
        figure = sheet(height=2.7)
        axes = figure.add_subplot()
        rules(axes)
        for row, value in zip(rows, cost.values, strict=True):
            x = ranks.index(row.rank or 0) + SHIFT * (alphas.index(row.alpha or 0.0) - (len(alphas) - 1) / 2)
            colour = ACCENT if row.winner else series(list(ranks), row.rank)
            axes.plot(x, value, "o", color=colour, markersize=7, markeredgecolor=PAGE)
        axes.set_xticks(range(len(ranks)), [str(rank) for rank in ranks])
        axes.set_xlim(-0.5, len(ranks) - 0.5)
        top = 1.15 * max(cost.values)
        axes.yaxis.set_major_locator(FixedLocator(even_ticks(top, 2.0**20 if cost.unit == "bytes" else 1.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: amount(v, cost.unit) if v else "0"))
        axes.set_ylim(0, top)
        axes.set_xlabel("rank (alphas side by side)")
        axes.set_title(cost.heading, loc="left", color=INK, fontsize=10.5, pad=8)
        pairs = zip(rows, cost.values, strict=True)
        description = "; ".join(f"{row.name}: {amount(value, cost.unit)}" for row, value in pairs)
        return panel(figure, f"rank-{cost.name}", f"Rank against {cost.heading}", description)


def even_ticks(top: float, unit: float) -> list[float]:
    """Round ticks from 0 to ``top``, at most five above 0.

    Args:
        top: end of the axis.
        unit: if 1, the distance is 1, 2 or 5 times a power of ten; if above 1 (bytes), the unit times a power of two.
    """
    steps = [2.0**i for i in range(20)] if unit > 1 else [f * 10.0**i for i in range(-3, 9) for f in (1, 2, 5)]
    distances = [unit * step for step in steps]
    distance = next((d for d in distances if top / d <= 5), top)
    return [i * distance for i in range(int(top / distance) + 1)]
