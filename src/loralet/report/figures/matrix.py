"""Matrices of coloured squares with text, for the rank and alpha maps and the confusion matrix."""

from __future__ import annotations

import re
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from loralet.report.figures.style import ACCENT, INK, MUTED, PAGE, RAMP

GAP = 0.04
DARK = 5
"""From this step of the colour ramp on, text has the colour of the page."""
NAME_WIDTH = 22
"""Characters of a label on one line next to an axis; longer labels continue on the next line."""
WIDEST_WITH_DETAILS = 5
"""With more columns, only the first line of text of a square is shown."""


def level(value: float, low: float, high: float) -> int:
    """The step of the colour ramp for a value between ``low`` and ``high``."""
    return len(RAMP) // 2 if high <= low else min(len(RAMP) - 1, max(0, int((value - low) / (high - low) * len(RAMP))))


def draw_square(
    axes: Axes,
    place: tuple[int, int],
    shade: int | None,
    lines: Sequence[str],
    columns: int,
    marked: bool = False,
    size: float = 12,
) -> None:
    """Draw one square.

    Args:
        axes: see :func:`label_axes`.
        place: column and row.
        shade: step of the colour ramp; None: an empty square.
        lines: at most two lines of text.
        columns: number of columns of the matrix.
        marked: whether the square has a frame.
        size: size of the letters of the first line.
    """
    x, y = place
    side = 1 - 2 * GAP
    outline = {
        "facecolor": RAMP[shade] if shade is not None else "none",
        "edgecolor": ACCENT if marked else (MUTED if shade is None else "none"),
        "linewidth": 3.0 if marked else 0.8,
        "linestyle": "-" if shade is not None or marked else (0, (3, 3)),
    }
    axes.add_patch(Rectangle((x - side / 2, y - side / 2), side, side, **outline))  # type: ignore[arg-type]
    ink = PAGE if shade is not None and shade >= DARK else INK
    shown = lines if columns <= WIDEST_WITH_DETAILS else lines[:1]
    offsets = (0.0,) if len(shown) == 1 else (-0.14, 0.22)
    for line, offset, letters in zip(shown, offsets, (size, 10), strict=False):
        axes.text(x, y + offset, line, ha="center", va="center", color=ink, fontsize=letters)


def wrapped(label: str, width: int = NAME_WIDTH) -> str:
    """A label over several lines of at most ``width`` characters; no character is left out."""
    spaced = re.sub(r"(?<=[_/\-])", "\u200b", " ".join(label.split()))
    lines: list[str] = []
    for part in re.split(r"(?<=[ \u200b])", spaced):
        if lines and len(lines[-1]) + len(part.rstrip(" \u200b")) <= width:
            lines[-1] += part
        else:
            lines += [part[i : i + width] for i in range(0, len(part), width)]
    return "\n".join(line.replace("\u200b", "").strip() for line in lines)


def label_axes(axes: Axes, columns: Sequence[str], rows: Sequence[str], x: str, y: str) -> None:
    """Label the columns, the rows and both axes. The first row is at the top."""
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
