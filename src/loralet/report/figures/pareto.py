"""Accuracy against cost, with the Pareto fronts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from loralet.report.analysis import Analysis
from loralet.report.configurations import Accuracy, Configuration
from loralet.report.figures.labels import Label, place_labels
from loralet.report.figures.style import ACCENT, INK, MUTED, PAGE, Panel, panel, rules, series, sheet, styled
from loralet.report.wording import amount

COSTS = {"trainable": "trained parameters", "bytes": "size on disk", "seconds": "training time"}
MARKS = {"lora": "o", "linear-probe": "s", "full": "D", "average": "v", "ensemble": "P", "hybrid": "X"}
"""Markers by role."""
BASELINE = "^"
"""Marker of a baseline without an encoder."""
SHORT = {"linear-probe": "probe", "full": "full", "tfidf-svm": "TF-IDF", "tfidf-lr": "TF-IDF + LR"}
"""Names in the plots, by role."""
MOST_NAMED = 4
"""With more adapter configurations on the front, none of them is labelled."""
MOST_COLUMNS = 4
"""Entries of a row of the legend."""
WIDE = 5
"""The cost axis is logarithmic if costs differ by more than this factor."""


@dataclass(frozen=True)
class Point:
    """One dot of a plot.

    Args:
        row: the configuration.
        cost: its cost.
        test: its accuracy.
        label: its name; empty for a dot without a name.
    """

    row: Configuration
    cost: float
    test: Accuracy
    label: str


def pareto_points(analysis: Analysis, cost: str) -> list[Point]:
    """The dots of one plot: all tested configurations except chance and the majority class, which lie far below.

    The winner, the baselines, and up to four configurations on the front have names.

    Args:
        analysis: values of the report.
        cost: one of :data:`COSTS`.
    """
    left_out = ("random-head", "majority")
    rows = [row for row in analysis.configurations if row.role not in left_out and getattr(row, cost)]
    front = [row for row in rows if cost in row.front and row.role == "lora" and row.test]
    several = len(analysis.models) > 1
    points: list[Point] = []
    for row in rows:
        named = row.winner or row.role != "lora" or (row in front and len(front) <= MOST_NAMED)
        if row.test:
            points.append(Point(row, float(getattr(row, cost)), row.test, _short(row, several) if named else ""))
    return points


def _short(row: Configuration, several: bool) -> str:
    """A short name, with the last part of the model's name if there are several models."""
    name = SHORT.get(row.role, row.name.split(" · ")[0])
    return f"{name} · {row.model.rpartition('/')[2]}" if several and row.model else name


def pareto_panels(analysis: Analysis) -> list[Panel]:
    """Accuracy against each cost. Plots with fewer than two dots are omitted."""
    plots = {cost: pareto_points(analysis, cost) for cost in COSTS}
    return [pareto_panel(cost, points) for cost, points in plots.items() if len(points) > 1]


def pareto_panel(cost: str, points: Sequence[Point]) -> Panel:
    """Accuracy against one cost."""
    with styled():
        figure = sheet(height=3.6)
        axes = figure.add_subplot()
        rules(axes)
        wide = max(p.cost for p in points) > WIDE * min(p.cost for p in points)
        if wide:
            axes.set_xscale("log")
        places = _dots(axes, points, wide)
        _front(axes, [p for p in points if cost in p.row.front])
        _cost_axis(axes, cost, points, wide)
        axes.margins(y=0.12)
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))
        axes.set_title(f"test accuracy against {COSTS[cost]}", loc="left", color=INK, fontsize=10.5, pad=8)
        handles = _legend(points)
        figure.legend(handles=handles, loc="outside lower left", ncols=_columns(len(handles)), handletextpad=0.3)
        named = [(x, p) for (x, _), p in zip(places, points, strict=True) if p.label]
        labels = [_label(x, point, points) for x, point in sorted(named, key=lambda pair: not pair[1].row.winner)]
        place_labels(axes, labels, places)
        description = "; ".join(f"{p.row.name}: {amount(p.cost, cost)}, {100 * p.test.mean:.1f} %" for p in points)
        return panel(figure, f"pareto-{cost}", f"Accuracy against {COSTS[cost]}", description)


def _ranks(points: Sequence[Point]) -> list[int | None]:
    return [point.row.rank for point in points if point.row.role == "lora"]


def _dots(axes: Axes, points: Sequence[Point], wide: bool) -> list[tuple[float, float]]:
    """Draw the dots and their intervals, with alphas of one rank side by side. Returns the positions of the dots."""
    ranks = _ranks(points)
    alphas = sorted({point.row.alpha or 0.0 for point in points if point.row.role == "lora"})
    low, high = min(p.cost for p in points), max(p.cost for p in points)
    places: list[tuple[float, float]] = []
    for point in points:
        row, test, lora = point.row, point.test, point.row.role == "lora"
        step = alphas.index(row.alpha or 0.0) - (len(alphas) - 1) / 2 if lora else 0.0
        x = point.cost * (high / low) ** (0.018 * step) if wide else point.cost + 0.02 * step * high
        colour = ACCENT if row.winner else series(ranks, row.rank) if lora else MUTED
        axes.plot([x, x], [test.low, test.high], color=colour, linewidth=1.0, alpha=0.55)
        size, marker = 8.5 if row.winner else 6.5, MARKS.get(row.role, BASELINE)
        axes.plot(x, test.mean, marker, color=colour, markersize=size, markeredgecolor=PAGE, zorder=3)
        places.append((x, test.mean))
    return places


def _columns(entries: int) -> int:
    """Columns of the legend: browsers draw its text wider than matplotlib, which clips rows of five entries."""
    return entries if entries <= MOST_COLUMNS else -(-entries // 2) if entries <= 2 * MOST_COLUMNS else MOST_COLUMNS


def _legend(points: Sequence[Point]) -> list[Line2D]:
    ranks = _ranks(points)
    handles = [
        Line2D([], [], color=series(ranks, rank), marker="o", linestyle="", markersize=6, label=f"rank {rank}")
        for rank in sorted({r for r in ranks if r})
    ]
    handles.append(Line2D([], [], color=ACCENT, marker="o", linestyle="", markersize=8, label="chosen"))
    handles.append(Line2D([], [], color=INK, linewidth=0.9, linestyle=(0, (2, 2)), label="Pareto front"))
    return handles


def _label(x: float, point: Point, points: Sequence[Point]) -> Label:
    """A name above its interval, or below it if most points are better. At the ends of the axis it is inside."""
    costs, test, winner = [p.cost for p in points], point.test, point.row.winner
    below = test.mean < median(p.test.mean for p in points)
    side = "left" if point.cost == min(costs) else "center" if winner and point.cost < max(costs) else "right"
    return Label(point.label, x, test.low, test.high, ACCENT if winner else MUTED, below, side)


def _front(axes: Axes, points: Sequence[Point]) -> None:
    ordered = sorted(points, key=lambda point: point.cost)
    costs, heights = [p.cost for p in ordered], [p.test.mean for p in ordered]
    axes.plot(costs, heights, drawstyle="steps-post", color=INK, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)


def _cost_axis(axes: Axes, cost: str, points: Sequence[Point], wide: bool) -> None:
    axes.set_xlabel(COSTS[cost])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: amount(v, cost) if v else "0"))
    low, high = min(p.cost for p in points), max(p.cost for p in points)
    if not wide:
        axes.set_xlim(0, 1.1 * high)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        return
    base = 2.0**10 if cost == "bytes" else 1000.0
    ticks = [unit * step for unit in (1 / base, 1.0, base, base**2, base**3) for step in (1, 3, 10, 30, 100, 300)]
    axes.xaxis.set_major_locator(FixedLocator([t for t in ticks if low / 1.6 <= t <= high * 1.6]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(low / 1.6, high * 1.6)
