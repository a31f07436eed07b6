"""What accuracy costs: rank against time and memory, and the Pareto fronts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from loralet.report.analysis import Analysis
from loralet.report.configurations import Configuration
from loralet.report.figures.labels import Label, place_labels
from loralet.report.figures.style import ACCENT, INK, MUTED, PAGE, Panel, panel, rules, series, sheet, styled

UNITS = {"trainable": "numbers trained", "bytes": "size on disk", "seconds": "training time"}
MARKS = {"lora": "o", "linear-probe": "s", "full": "D", "tfidf-svm": "^", "average": "v", "ensemble": "P"}
SHORT = {"linear-probe": "probe", "full": "full", "tfidf-svm": "TF-IDF"}


def amount(value: float, cost: str) -> str:
    """A cost as people read it."""
    if cost == "seconds":
        return f"{seconds(value)} s" if value < 600 else f"{value / 60:.0f} min"
    steps = (
        (("", 1), ("K", 1e3), ("M", 1e6), ("G", 1e9))
        if cost == "trainable"
        else ((" B", 1), (" KiB", 2**10), (" MiB", 2**20), (" GiB", 2**30))
    )
    suffix, unit = max((s for s in steps if value >= s[1]), key=lambda s: s[1], default=steps[0])
    return f"{value / unit:.3g}{suffix}"


def seconds(value: float) -> str:
    """Seconds without their unit: whole ones from ten on, two digits below."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.2g}"


def rank_panels(analysis: Analysis) -> list[Panel]:
    """Seconds and peak memory of each LoRA configuration against its rank."""
    rows = [row for row in analysis.configurations if row.role == "lora" and row.seconds is not None]
    panels = []
    for cost, field, heading in (
        ("seconds", "seconds", "training seconds of a run"),
        ("bytes", "memory", "peak memory of the process"),
    ):
        shown = [row for row in rows if getattr(row, field) is not None]
        if shown:
            panels.append(_rank_panel(analysis, shown, cost, field, heading))
    return panels


def _rank_panel(analysis: Analysis, rows: Sequence[Configuration], cost: str, field: str, heading: str) -> Panel:
    ranks, alphas = sorted({row.rank or 0 for row in rows}), sorted({row.alpha or 0.0 for row in rows})
    with styled():
        figure = sheet(height=2.7)
        axes = figure.add_subplot()
        rules(axes)
        for row in rows:
            shift = (alphas.index(row.alpha or 0.0) - (len(alphas) - 1) / 2) * 0.12
            colour = ACCENT if row.winner else series(list(ranks), row.rank)
            axes.plot(
                ranks.index(row.rank or 0) + shift,
                getattr(row, field),
                "o",
                color=colour,
                markersize=7,
                markeredgecolor=PAGE,
            )
        axes.set_xticks(range(len(ranks)), [str(rank) for rank in ranks])
        axes.set_xlim(-0.5, len(ranks) - 0.5)
        top = 1.15 * max(getattr(row, field) for row in rows)
        axes.yaxis.set_major_locator(FixedLocator(even_ticks(top, 2.0**20 if cost == "bytes" else 1.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: amount(v, cost) if v else "0"))
        axes.set_ylim(0, top)
        axes.set_xlabel("rank (alphas side by side)")
        axes.set_title(heading, loc="left", color=INK, fontsize=10.5, pad=8)
        said = "; ".join(f"{row.name}: {amount(getattr(row, field), cost)}" for row in rows)
        return panel(figure, f"rank-{field}", f"Rank against {heading}", said)


def even_ticks(top: float, unit: float) -> list[float]:
    """Three to six round ticks from 0 to ``top``: 1, 2 or 5 times a power of ten (of two, from mebibytes up) of the unit."""
    steps = (
        [unit * 2.0**i for i in range(20)]
        if unit > 1
        else [unit * f * 10.0**i for i in range(-3, 9) for f in (1, 2, 5)]
    )
    step = next((s for s in steps if top / s <= 5), top)
    return [i * step for i in range(int(top / step) + 1)]


@dataclass(frozen=True)
class Point:
    """One dot of a Pareto plot."""

    row: Configuration
    cost: float
    label: str


def pareto_points(analysis: Analysis, cost: str) -> list[Point]:
    """The dots of one plot: all that trained and was tested; chance and the majority class are left out, far below."""
    rows = [
        row
        for row in analysis.configurations
        if row.test and row.role not in ("random-head", "majority") and getattr(row, cost)
    ]
    named = {id(row) for row in rows if row.winner or row.role != "lora"}
    front = [row for row in rows if cost in row.front and row.role == "lora"]
    named |= {id(row) for row in front if len(front) <= 4}
    several = len(analysis.models) > 1
    return [Point(row, float(getattr(row, cost)), _short(row, several) if id(row) in named else "") for row in rows]


def _short(row: Configuration, several: bool) -> str:
    """A row in few letters; of several models with the last part of its model's name."""
    name = SHORT.get(row.role, row.name.split(" · ")[0])
    return f"{name} · {row.model.rpartition('/')[2]}" if several and row.model else name


def pareto_panels(analysis: Analysis) -> list[Panel]:
    """Accuracy against numbers trained, size on disk and training time."""
    plots = [(cost, pareto_points(analysis, cost)) for cost in UNITS]
    return [_pareto_panel(analysis, cost, points) for cost, points in plots if len(points) > 1]


def _pareto_panel(analysis: Analysis, cost: str, points: list[Point]) -> Panel:
    ranks = [point.row.rank for point in points if point.row.role == "lora"]
    alphas = sorted({point.row.alpha or 0.0 for point in points if point.row.role == "lora"})
    wide = max(p.cost for p in points) > 5 * min(p.cost for p in points)
    with styled():
        figure = sheet(height=3.4)
        axes = figure.add_subplot()
        rules(axes)
        if wide:
            axes.set_xscale("log")
        places: list[tuple[float, float]] = []
        labels: list[Label] = []
        span = max(p.cost for p in points) / min(p.cost for p in points)
        for point in points:
            row = point.row
            assert row.test
            step = (alphas.index(row.alpha or 0.0) - (len(alphas) - 1) / 2) if row.role == "lora" else 0.0
            x = point.cost * span ** (0.018 * step) if wide else point.cost + 0.02 * step * max(p.cost for p in points)
            colour = ACCENT if row.winner else series(ranks, row.rank) if row.role == "lora" else MUTED
            axes.plot([x, x], [row.test.low, row.test.high], color=colour, linewidth=1.0, alpha=0.55)
            axes.plot(
                x,
                row.test.mean,
                MARKS[row.role],
                color=colour,
                markersize=8.5 if row.winner else 6.5,
                markeredgecolor=PAGE,
                zorder=3,
            )
            places.append((x, row.test.mean))
            if point.label:
                labels.append(_label(x, point, points))
        _front(axes, [p for p in points if cost in p.row.front])
        _cost_axis(axes, cost, points, wide)
        axes.margins(y=0.12)
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))
        axes.set_title(f"test accuracy against {UNITS[cost]}", loc="left", color=INK, fontsize=10.5, pad=8)
        handles = [
            Line2D([], [], color=series(ranks, rank), marker="o", linestyle="", markersize=6, label=f"rank {rank}")
            for rank in sorted({r for r in ranks if r})
        ]
        handles.append(Line2D([], [], color=ACCENT, marker="o", linestyle="", markersize=8, label="chosen"))
        handles.append(Line2D([], [], color=INK, linewidth=0.9, linestyle=(0, (2, 2)), label="Pareto front"))
        figure.legend(handles=handles, loc="outside lower left", ncols=5, handletextpad=0.3)
        place_labels(axes, sorted(labels, key=lambda label: label.colour != ACCENT), places)
        said = "; ".join(
            f"{p.row.name}: {amount(p.cost, cost)}, {100 * p.row.test.mean:.1f} %" for p in points if p.row.test
        )
        return panel(figure, f"pareto-{cost}", f"Accuracy against {UNITS[cost]}", said)


def _label(x: float, point: Point, points: list[Point]) -> Label:
    """A name above its interval, or below where most points are better; it leans inwards at the ends of the axis."""
    costs, test = [p.cost for p in points], point.row.test
    assert test
    below = test.mean < median(p.row.test.mean for p in points if p.row.test)
    side = "left" if point.cost == min(costs) else "center" if point.row.winner and point.cost < max(costs) else "right"
    return Label(point.label, x, test.low, test.high, ACCENT if point.row.winner else MUTED, below, side)


def _front(axes: Axes, points: list[Point]) -> None:
    ordered = sorted(points, key=lambda point: point.cost)
    heights = [point.row.test.mean for point in ordered if point.row.test]
    axes.plot(
        [p.cost for p in ordered],
        heights,
        drawstyle="steps-post",
        color=INK,
        linewidth=0.9,
        linestyle=(0, (2, 2)),
        zorder=1,
    )


def _cost_axis(axes: Axes, cost: str, points: list[Point], wide: bool) -> None:
    axes.set_xlabel(UNITS[cost])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: amount(v, cost) if v else "0"))
    if not wide:
        axes.set_xlim(0, 1.1 * max(p.cost for p in points))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        return
    base = 2.0**10 if cost == "bytes" else 1000.0
    low, high = min(p.cost for p in points), max(p.cost for p in points)
    ticks = [unit * step for unit in (1 / base, 1.0, base, base**2, base**3) for step in (1, 3, 10, 30, 100, 300)]
    axes.xaxis.set_major_locator(FixedLocator([t for t in ticks if low / 1.6 <= t <= high * 1.6]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(low / 1.6, high * 1.6)
