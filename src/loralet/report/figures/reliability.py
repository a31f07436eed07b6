"""The reliability diagram."""

from __future__ import annotations

from matplotlib.ticker import FuncFormatter

from loralet.report.figures.style import ACCENT, INK, MUTED, Panel, panel, rules, sheet, styled
from loralet.report.statistics import Calibration


def reliability_panel(calibration: Calibration) -> Panel:
    """Accuracy with its interval per confidence bin, above the number of rows per bin.

    Args:
        calibration: calibration on held-out rows.
    """
    bins = calibration.bins
    start = bins[0].start
    with styled():
        figure = sheet(height=3.7)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
        for axes in (upper, lower):
            rules(axes)
            axes.set_xlim(start, 1.005)
        upper.plot([start, 1], [start, 1], color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
        for b in bins:
            upper.plot([b.confidence, b.confidence], [b.low, b.high], color=ACCENT, linewidth=1.0, alpha=0.55)
        confidences, accuracies = [b.confidence for b in bins], [b.accuracy for b in bins]
        upper.plot(confidences, accuracies, "o-", color=ACCENT, linewidth=1.4, markersize=5)
        middles, widths = [(b.start + b.end) / 2 for b in bins], [0.9 * (b.end - b.start) for b in bins]
        lower.bar(middles, [b.rows for b in bins], width=widths, color=MUTED)
        upper.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))
        lower.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
        lower.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))
        upper.set_ylabel("accuracy")
        lower.set_ylabel("rows")
        lower.set_xlabel("probability of the predicted label")
        title = f"reliability: calibration error {calibration.ece:.3f}"
        upper.set_title(title, loc="left", color=INK, fontsize=10.5, pad=8)
        description = "; ".join(
            f"confidence {100 * b.confidence:.0f} %: accuracy {100 * b.accuracy:.0f} % ({b.rows} rows)" for b in bins
        )
        return panel(figure, "reliability", "Reliability diagram of the chosen run", description)
