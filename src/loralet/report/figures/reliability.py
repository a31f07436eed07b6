"""Whether a probability means what it says."""

from __future__ import annotations

from matplotlib.ticker import FuncFormatter

from loralet.report.analysis import Analysis
from loralet.report.figures.style import ACCENT, INK, MUTED, Panel, panel, rules, sheet, styled


def reliability_panel(analysis: Analysis) -> Panel:
    """Accuracy of the rows in each bin of confidence, with intervals, over how many rows there are."""
    assert analysis.calibration
    bins = analysis.calibration.bins
    with styled():
        figure = sheet(height=3.7)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
        rules(upper)
        rules(lower)
        start = bins[0].start
        upper.plot([start, 1], [start, 1], color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
        for b in bins:
            upper.plot([b.confidence, b.confidence], [b.low, b.high], color=ACCENT, linewidth=1.0, alpha=0.55)
        upper.plot(
            [b.confidence for b in bins], [b.accuracy for b in bins], "o-", color=ACCENT, linewidth=1.4, markersize=5
        )
        lower.bar(
            [(b.start + b.end) / 2 for b in bins],
            [b.rows for b in bins],
            width=[0.9 * (b.end - b.start) for b in bins],
            color=MUTED,
        )
        for axes in (upper, lower):
            axes.set_xlim(start, 1.005)
        upper.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))
        lower.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        lower.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))
        upper.set_ylabel("right")
        lower.set_ylabel("rows")
        lower.set_xlabel("probability of the predicted label")
        upper.set_title(
            f"reliability: calibration error {100 * analysis.calibration.ece:.1f} points",
            loc="left",
            color=INK,
            fontsize=10.5,
            pad=8,
        )
        said = "; ".join(
            f"at {100 * b.confidence:.0f} % sure, {100 * b.accuracy:.0f} % right ({b.rows} rows)" for b in bins
        )
        return panel(figure, "reliability", "Reliability diagram of the chosen run", said)
