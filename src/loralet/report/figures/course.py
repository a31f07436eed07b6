"""Loss and accuracy of a single run over its steps."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.ticker import FuncFormatter, MaxNLocator

from loralet.report.analysis import Analysis
from loralet.report.curves import Curve
from loralet.report.figures.curves import loss_axis
from loralet.report.figures.style import ACCENT, INK, Panel, panel, rules, sheet, styled

HEIGHT = 2.9


def course_panels(analysis: Analysis) -> list[Panel]:
    """The loss of the batches, and the accuracy on the checked sample; without those of which nothing is recorded."""
    sample = f"{analysis.data.held_out} sample"
    panels = [
        _panel("course-loss", "training loss, smoothed", "Training loss", curve, False)
        for curve in analysis.losses
        if curve.best
    ]
    return panels + [
        _panel("course-accuracy", f"accuracy on the {sample}", f"Accuracy on the {sample}", curve, True)
        for curve in analysis.accuracies
        if curve.best
    ]


def accuracy_limits(y: Sequence[float | None]) -> tuple[float, float]:
    """Ends of the accuracy axis: a tenth of the spread of the values, and at least half a point, around them."""
    known = [value for value in y if value is not None] or [0.0, 1.0]
    room = max(0.005, 0.1 * (max(known) - min(known)))
    return max(0.0, min(known) - room), min(1.0, max(known) + room)


def _panel(name: str, heading: str, title: str, curve: Curve, share: bool) -> Panel:
    y = [float("nan") if value is None else value for value in curve.y]
    with styled():
        figure = sheet(height=HEIGHT)
        axes = figure.add_subplot()
        rules(axes)
        axes.plot(curve.steps, y, "o-" if share else "-", color=ACCENT, linewidth=2.0, markersize=4, clip_on=False)
        if share:
            axes.set_ylim(*accuracy_limits(curve.y))
            axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{round(100 * v, 2):g} %"))
        else:
            loss_axis(axes, [curve])
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        axes.set_xlabel("optimiser step")
        axes.margins(x=0.02)
        axes.set_title(heading, loc="left", color=INK, fontsize=10.5, pad=8)
        last = "" if curve.y[-1] is None else f", {curve.y[-1]:.3f} at the end"
        return panel(figure, name, f"{title} over the steps", f"{curve.steps[-1]:,} steps{last}")
