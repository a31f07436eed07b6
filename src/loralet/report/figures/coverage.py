"""The accuracy of the rows above a confidence, by their share."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.ticker import FuncFormatter

from loralet.report.coverage import CoveragePoint
from loralet.report.figures.style import ACCENT, INK, Panel, panel, rules, sheet, styled

DESCRIBED = (0.25, 0.5, 0.75, 1.0)
"""Shares of the rows whose accuracy the text for screen readers gives."""


def coverage_panel(points: Sequence[CoveragePoint]) -> Panel:
    """Accuracy with its interval against coverage.

    Args:
        points: points of the curve, with rising coverage.
    """
    shares = [point.coverage for point in points]
    with styled():
        figure = sheet()
        axes = figure.add_subplot()
        rules(axes)
        axes.fill_between(
            shares, [p.low for p in points], [p.high for p in points], color=ACCENT, alpha=0.18, linewidth=0
        )
        axes.plot(shares, [point.accuracy for point in points], color=ACCENT, linewidth=1.6)
        axes.set_xlim(0, 1.005)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))
        axes.set_xlabel("share of the rows that are predicted")
        axes.set_ylabel("accuracy on them")
        axes.set_title("accuracy above a confidence", loc="left", color=INK, fontsize=10.5, pad=8)
        return panel(figure, "coverage", "Accuracy against coverage of the chosen run", _description(points))


def _description(points: Sequence[CoveragePoint]) -> str:
    near = (min(points, key=lambda point: abs(point.coverage - share)) for share in DESCRIBED)
    parts = (f"{100 * p.coverage:.0f} % of the rows: accuracy {100 * p.accuracy:.1f} %" for p in dict.fromkeys(near))
    return "; ".join(parts)
