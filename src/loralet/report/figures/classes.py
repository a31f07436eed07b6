"""Rows of each class, and how many of them are classified correctly."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.ticker import FuncFormatter, MaxNLocator

from loralet.report.figures.matrix import wrapped
from loralet.report.figures.style import INK, MUTED, SERIES, WIDTH, Panel, panel, rules, sheet, styled
from loralet.tasks.classes import ClassScores

MOST_CLASSES = 30
"""With more classes, those with the lowest F1 are shown."""
BAR = 0.3
"""Height of a bar with its gap, in inches."""


def shown_classes(classes: Sequence[ClassScores]) -> list[ClassScores]:
    """The classes of the figure, the largest first."""
    worst = sorted(classes, key=lambda scores: 1.0 if scores.f1 is None else scores.f1)[:MOST_CLASSES]
    return sorted(worst, key=lambda scores: -scores.support)


def class_panel(classes: Sequence[ClassScores], rows: str) -> Panel:
    """A bar for each class: its rows, and in another colour those that are classified correctly.

    Args:
        classes: the classes.
        rows: the measured rows, such as ``1,500 out-of-fold rows``.
    """
    shown = shown_classes(classes)
    names = [wrapped(scores.label) for scores in shown]
    lines = sum(max(1.0, 0.62 * (1 + name.count("\n"))) for name in names)
    with styled():
        figure = sheet(WIDTH, 0.9 + BAR * lines)
        axes = figure.add_subplot()
        rules(axes, "x")
        places, totals = range(len(shown)), [scores.support for scores in shown]
        right = [round((scores.recall or 0.0) * scores.support) for scores in shown]
        axes.barh(places, totals, color=MUTED, alpha=0.35, height=0.72)
        axes.barh(places, right, color=SERIES[0], height=0.72)
        for place, scores in enumerate(shown):
            recall = "–" if scores.recall is None else f"{100 * scores.recall:.0f} %"
            axes.text(scores.support, place, f" {recall}", va="center", color=INK, fontsize=10)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.margins(y=0.02)
        axes.set_xlim(0, 1.17 * max([*totals, 1]))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        axes.set_title("rows of each class, and recall", loc="left", color=INK, fontsize=10.5, pad=8)
        text = "; ".join(f"{s.label}: {s.support:,} rows, {r:,} correct" for s, r in zip(shown, right, strict=True))
        return panel(figure, "class-rows", f"Classes of the {rows}", text)
