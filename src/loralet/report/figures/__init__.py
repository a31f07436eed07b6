"""Figures of a report. The numbers are in :mod:`loralet.report.analysis`; here is the ink."""

from __future__ import annotations

from dataclasses import dataclass

from loralet.report.analysis import Analysis
from loralet.report.figures import curves, grids, tradeoffs
from loralet.report.figures.reliability import reliability_panel
from loralet.report.figures.style import Panel
from loralet.report.text import points


@dataclass(frozen=True)
class Drawing:
    """A figure: its heading, its panels, and a caption that says what one sees."""

    name: str
    heading: str
    caption: str
    panels: tuple[Panel, ...]


def draw(analysis: Analysis) -> list[Drawing]:
    """Every figure that the run folder has numbers for."""
    floor = min((curves.accuracy_floor([c], analysis.target) for c in analysis.accuracies), default=0.0)
    drawn = [
        Drawing(
            "course",
            "How training went",
            _course(analysis, floor),
            (*curves.loss_panels(analysis), *curves.accuracy_panels(analysis)),
        ),
    ]
    if any(len(grid.cells) > 1 for grid in analysis.grids):
        maps = tuple(
            p
            for pair in zip(grids.convergence_panels(analysis), grids.accuracy_panels(analysis), strict=True)
            for p in pair
        )
        drawn.append(Drawing("grid", "Rank and alpha", _grid(analysis), maps))
    if len([row for row in analysis.configurations if row.role == "lora"]) > 1:
        drawn.append(Drawing("rank", "What a rank costs", _rank(analysis), tuple(tradeoffs.rank_panels(analysis))))
    drawn.append(
        Drawing("pareto", "Efficiency against accuracy", _pareto(analysis), tuple(tradeoffs.pareto_panels(analysis)))
    )
    if analysis.calibration:
        drawn.append(
            Drawing(
                "errors",
                "Where it errs",
                _errors(analysis),
                (grids.confusion_panel(analysis), reliability_panel(analysis)),
            )
        )
    return [drawing for drawing in drawn if drawing.panels]


def _course(analysis: Analysis, floor: float) -> str:
    rates = {row.learning_rate for row in analysis.configurations if row.role == "lora"}
    alike = (
        " Runs that differ in learning rate or seed alone look alike."
        if len(rates) > 1 or len(analysis.best.seeds) > 1
        else ""
    )
    return (
        f"Every run, one line each: colour is rank, dash is alpha, the run that validation chose is thick. Losses are batch means, smoothed. "
        f"Accuracies are those of the frequent checks; their axis does not start at zero, and the dotted line is the target "
        f"of {100 * analysis.target:g} %.{alike}"
    )


def _grid(analysis: Analysis) -> str:
    marked = (
        " ≈ marks cells not distinguishable from the winner."
        if any(c.tied for g in analysis.grids for c in g.cells)
        else ""
    )
    return (
        "In the maps of steps stands the first check at the target; >N was not reached within N steps; below it "
        "alpha/r × learning rate, by which cells differ as much "
        f"as by rank and alpha. In the maps of accuracy, its 95 % interval. The frame marks the winner, chosen on validation.{marked}"
    )


def _rank(analysis: Analysis) -> str:
    lora = [row for row in analysis.configurations if row.role == "lora" and row.seconds]
    even = len({round(row.seconds or 0.0, 2) for row in lora}) == 1
    flat = (
        " They lie on one line because these runs shared one pass, whose time and memory cannot be told apart by rank."
        if even
        else ""
    )
    return f"Time is a run's even share of its pack; memory is the peak of the whole process while it trained.{flat}"


def _pareto(analysis: Analysis) -> str:
    return (
        "Bars are 95 % intervals. The dotted line joins what nothing else beats in both respects. The accuracy axis does not start at "
        "zero: chance and the majority class lie far below it. Alphas of one rank cost the same and are drawn side by side."
    )


def _errors(analysis: Analysis) -> str:
    assert analysis.calibration
    bins = analysis.calibration.bins
    over = sum(b.rows * (b.confidence - b.accuracy) for b in bins) / sum(b.rows for b in bins)
    side = (
        "surer than it is right"
        if over > 0.005
        else "less sure than it is right"
        if over < -0.005
        else "about as sure as it is right"
    )
    return (
        f"In the matrix each line adds up to the rows of one label; shading is the square root of their share. "
        f"In the diagram, if probabilities were exact, the dots "
        f"would lie on the dotted line; bars are 95 % intervals. On average {analysis.shown_run} is {side} ({points(over)})."
    )
