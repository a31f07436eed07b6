"""Heat maps of rank and alpha, and the confusion matrix: squares whose colour says how good, with the numbers in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from loralet.report.analysis import Analysis, Cell
from loralet.report.figures.style import ACCENT, INK, MUTED, PAGE, RAMP, WIDTH, Panel, panel, sheet, styled

GAP = 0.04
LARGEST_MATRIX = 12
"""Most classes whose counts are written into the confusion matrix."""


def level(value: float, low: float, high: float) -> int:
    """Where a value lies between two others, as a step of the colour ramp."""
    return len(RAMP) // 2 if high <= low else min(len(RAMP) - 1, max(0, int((value - low) / (high - low) * len(RAMP))))


def convergence_panels(analysis: Analysis) -> list[Panel]:
    """Steps to the target accuracy for each rank and alpha; stronger is sooner."""
    known = [cell.converged for grid in analysis.grids for cell in grid.cells if cell.converged is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)

    def shade(cell: Cell) -> int | None:
        return None if cell.converged is None else len(RAMP) - 1 - level(cell.converged, low, high)

    def write(cell: Cell) -> tuple[str, ...]:
        return (cell.text, f"scale×lr {cell.effective:.3g}")

    return _maps(analysis, "convergence", f"steps to {100 * analysis.target:g} % (stronger: sooner)", shade, write)


def accuracy_panels(analysis: Analysis) -> list[Panel]:
    """Accuracy with its interval for each rank and alpha; stronger is better."""
    known = [cell.accuracy for grid in analysis.grids for cell in grid.cells if cell.accuracy is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)

    def shade(cell: Cell) -> int | None:
        return None if cell.accuracy is None else level(cell.accuracy, low, high)

    def write(cell: Cell) -> tuple[str, ...]:
        if cell.accuracy is None:
            return ("–",)
        interval = () if cell.low is None or cell.high is None else (f"{100 * cell.low:.1f}–{100 * cell.high:.1f}",)
        return (f"{100 * cell.accuracy:.1f}{' ≈' if cell.tied else ''}", *interval)

    split = "test" if analysis.data["test_rows"] else "validation"
    return _maps(analysis, "accuracy", f"{split} accuracy, % (stronger: better)", shade, write)


def _maps(
    analysis: Analysis,
    kind: str,
    heading: str,
    shade: Callable[[Cell], int | None],
    write: Callable[[Cell], tuple[str, ...]],
) -> list[Panel]:
    panels = []
    for number, grid in enumerate(analysis.grids):
        with styled():
            several = len(analysis.grids) > 1
            figure = sheet(WIDTH, (1.45 if several else 1.25) + 0.62 * len(grid.ranks))
            axes = figure.add_subplot()
            for cell in grid.cells:
                x, y = grid.alphas.index(cell.alpha), grid.ranks.index(cell.rank)
                _square(axes, x, y, shade(cell), write(cell), cell.winner, len(grid.alphas))
            _labels(axes, [f"{a:g}" for a in grid.alphas], [str(r) for r in grid.ranks], "alpha", "rank")
            axes.set_title(
                f"{grid.title}\n{heading}" if several else heading, loc="left", color=INK, fontsize=10.5, pad=8
            )
            said = "; ".join(f"rank {c.rank}, alpha {c.alpha:g}: {' '.join(write(c))}" for c in grid.cells)
            name = "Convergence" if kind == "convergence" else "Accuracy"
            panels.append(panel(figure, f"{kind}-map-{number + 1}", f"{name} by rank and alpha, {grid.title}", said))
    return panels


def _square(axes: Axes, x: int, y: int, shade: int | None, lines: Sequence[str], marked: bool, columns: int) -> None:
    side = 1 - 2 * GAP
    colour = RAMP[shade] if shade is not None else "none"
    edge = ACCENT if marked else (MUTED if shade is None else "none")
    axes.add_patch(
        Rectangle((x - side / 2, y - side / 2), side, side, facecolor=colour, edgecolor=edge, linewidth=3.0 if marked else 0.8,
                  linestyle="-" if shade is not None or marked else (0, (3, 3)))
    )  # fmt: skip
    ink = PAGE if shade is not None and shade >= 5 else INK
    shown = lines if columns <= 5 else lines[:1]
    offsets = (0.0,) if len(shown) == 1 else (-0.14, 0.22)
    for line, offset, size in zip(shown, offsets, (12, 8.5), strict=False):
        axes.text(x, y + offset, line, ha="center", va="center", color=ink, fontsize=size)


def _labels(axes: Axes, across: Sequence[str], down: Sequence[str], x: str, y: str) -> None:
    axes.set_xlim(-0.5, len(across) - 0.5)
    axes.set_ylim(len(down) - 0.5, -0.5)
    axes.set_xticks(range(len(across)), across)
    axes.set_yticks(range(len(down)), down)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def confusion_panel(analysis: Analysis) -> Panel:
    """Rows by their label (down) and the predicted label (across), shaded by the share of the label's rows."""
    labels, counts = analysis.data["labels"], analysis.confusion
    short = [label if len(label) <= LARGEST_MATRIX else label[: LARGEST_MATRIX - 1] + "…" for label in labels]
    with styled():
        figure = sheet(WIDTH, min(6.0, 1.2 + 0.62 * len(labels)))
        axes = figure.add_subplot()
        for y, line in enumerate(counts):
            for x, count in enumerate(line):
                share = count / max(1, sum(line))
                # A square root, so that a few per cent of confusion can be seen beside nine tenths of right answers.
                text = (f"{count:,}", f"{100 * share:.1f} %") if len(labels) <= 6 else (f"{count:,}",)
                _square(
                    axes, x, y, level(share**0.5, 0.0, 1.0), text if len(labels) <= LARGEST_MATRIX else (), False, 1
                )
        turned = len(labels) > 6 or max(map(len, short)) * len(labels) > 40
        _labels(axes, short, short, "predicted", "label")
        if turned:
            axes.tick_params(axis="x", rotation=90)
        axes.set_title("test rows by label and prediction", loc="left", color=INK, fontsize=10.5, pad=8)
        right = sum(counts[i][i] for i in range(len(labels)))
        worst = max(
            ((counts[i][j], labels[i], labels[j]) for i in range(len(labels)) for j in range(len(labels)) if i != j),
            default=(0, "", ""),
        )
        said = f"{right:,} of {sum(map(sum, counts)):,} rows right; most often {worst[1]} was taken for {worst[2]}, {worst[0]:,} times"
        return panel(figure, "confusion", "Confusion matrix of the chosen run", said)
