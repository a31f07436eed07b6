"""The figures of a report, with headings and captions."""

from __future__ import annotations

from itertools import chain

from loralet.report.analysis import Analysis
from loralet.report.configurations import grid_rows
from loralet.report.figures import curves, grids
from loralet.report.figures.pareto import pareto_panels
from loralet.report.figures.rank_cost import rank_panels
from loralet.report.figures.style import Drawing
from loralet.report.run.drawings import draw_run


def draw(analysis: Analysis) -> list[Drawing]:
    """Draw all figures that the run folder has data for."""
    if analysis.run is not None:
        return draw_run(analysis, analysis.run)
    lora = grid_rows(analysis.configurations)
    panels = (*curves.loss_panels(analysis), *curves.accuracy_panels(analysis))
    drawn = [Drawing("course", "Training curves", _course(analysis), panels)]
    if any(len(grid.cells) > 1 for grid in analysis.grids):
        pairs = zip(grids.convergence_panels(analysis), grids.accuracy_panels(analysis), strict=True)
        drawn.append(Drawing("grid", "Rank and alpha", _grid(analysis), tuple(chain.from_iterable(pairs))))
    if len(lora) > 1:
        drawn.append(Drawing("rank", "Cost of rank", _rank(analysis), tuple(rank_panels(analysis))))
    fronts = tuple(pareto_panels(analysis))
    drawn.append(Drawing("pareto", "Accuracy against cost", PARETO, fronts))
    if analysis.section:
        drawn += analysis.section.drawings()
    return [drawing for drawing in drawn if drawing.panels]


PARETO = (
    "Bars are 95 % intervals. The dotted line is the Pareto front: no other configuration is better in both cost and "
    "accuracy. The accuracy axis does not start at zero; chance and the majority class lie far below it. Alphas of one "
    "rank have the same cost and are drawn side by side."
)


def _course(analysis: Analysis) -> str:
    rates = {(row.learning_rate, row.lr_ratio) for row in analysis.configurations if row.role == "lora"}
    alike = ""
    if len(rates) > 1 or len(analysis.best.seeds) > 1:
        alike = " Runs that differ only in learning rate or seed have the same style."
    return (
        "One line per run. Colour shows rank, dashes show alpha, and the thick line is the chosen run. Losses are "
        f"smoothed batch means. Accuracies are those of the checks on the {analysis.data.held_out} sample; their axis "
        f"does not start at zero. The dotted line is the target of {100 * analysis.target:g} %.{alike}"
    )


def _grid(analysis: Analysis) -> str:
    marked = ""
    if any(cell.tied for grid in analysis.grids for cell in grid.cells):
        marked = " ≈ marks cells that cannot be distinguished from the winner."
    return (
        "Step maps show the first check at the target accuracy (>N: not reached within N steps) and, below it, the "
        "effective scale alpha/r × learning rate, which also differs between cells. Accuracy maps show accuracy with "
        f"its 95 % interval. The frame marks the winner, chosen on validation.{marked}"
    )


def _rank(analysis: Analysis) -> str:
    lora = [row for row in grid_rows(analysis.configurations) if row.seconds]
    flat = ""
    if len({round(row.seconds or 0.0, 2) for row in lora}) == 1:
        flat = " All times are equal because these runs shared one pack; its time and memory cannot be split by rank."
    return f"Time is an equal share of the pack's time; memory is the peak of the whole process during training.{flat}"
