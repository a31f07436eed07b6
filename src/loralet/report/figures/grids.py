"""Maps of rank and alpha: convergence and accuracy of each cell."""

from __future__ import annotations

from collections.abc import Callable

from loralet.report.analysis import Analysis
from loralet.report.figures.matrix import draw_square, label_axes, level
from loralet.report.figures.style import INK, RAMP, WIDTH, Panel, panel, sheet, styled
from loralet.report.grids import Cell, Grid


def convergence_panels(analysis: Analysis) -> list[Panel]:
    """Steps to the target accuracy for each rank and alpha; earlier is stronger in colour."""
    known = [cell.converged for grid in analysis.grids for cell in grid.cells if cell.converged is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)

    def shade(cell: Cell) -> int | None:
        return None if cell.converged is None else len(RAMP) - 1 - level(cell.converged, low, high)

    def write(cell: Cell) -> tuple[str, ...]:
        return (cell.text, f"scale×lr {cell.effective:.3g}")

    heading = f"steps to {100 * analysis.target:g} % (stronger colour: earlier)"
    return [_map(analysis, "convergence", i, heading, shade, write) for i in range(len(analysis.grids))]


def accuracy_panels(analysis: Analysis) -> list[Panel]:
    """Accuracy with its interval for each rank and alpha; higher is stronger in colour."""
    known = [cell.accuracy for grid in analysis.grids for cell in grid.cells if cell.accuracy is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)

    def shade(cell: Cell) -> int | None:
        return None if cell.accuracy is None else level(cell.accuracy, low, high)

    def write(cell: Cell) -> tuple[str, ...]:
        if cell.accuracy is None:
            return ("–",)
        interval = () if cell.low is None or cell.high is None else (f"{100 * cell.low:.1f}–{100 * cell.high:.1f}",)
        return (f"{100 * cell.accuracy:.1f}{' ≈' if cell.tied else ''}", *interval)

    heading = f"{'test' if analysis.best.test else 'validation'} accuracy, % (stronger colour: higher)"
    return [_map(analysis, "accuracy", i, heading, shade, write) for i in range(len(analysis.grids))]


def _map(
    analysis: Analysis,
    kind: str,
    number: int,
    heading: str,
    shade: Callable[[Cell], int | None],
    write: Callable[[Cell], tuple[str, ...]],
) -> Panel:
    grid: Grid = analysis.grids[number]
    several = len(analysis.grids) > 1
    with styled():
        figure = sheet(WIDTH, (1.45 if several else 1.25) + 0.62 * len(grid.ranks))
        axes = figure.add_subplot()
        for cell in grid.cells:
            place = grid.alphas.index(cell.alpha), grid.ranks.index(cell.rank)
            draw_square(axes, place, shade(cell), write(cell), len(grid.alphas), cell.winner)
        label_axes(axes, [f"{a:g}" for a in grid.alphas], [str(r) for r in grid.ranks], "alpha", "rank")
        title = f"{grid.title}\n{heading}" if several else heading
        axes.set_title(title, loc="left", color=INK, fontsize=10.5, pad=8)
        description = "; ".join(f"rank {c.rank}, alpha {c.alpha:g}: {' '.join(write(c))}" for c in grid.cells)
        name = f"{kind.capitalize()} by rank and alpha, {grid.title}"
        return panel(figure, f"{kind}-map-{number + 1}", name, description)
