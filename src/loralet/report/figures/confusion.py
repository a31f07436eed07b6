"""The confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

from loralet.report.figures.matrix import draw_square, label_axes, level, wrapped
from loralet.report.figures.style import INK, WIDTH, Panel, panel, sheet, styled

MOST_COUNTS = 12
"""With more labels, the matrix shows no counts."""
MOST_SHARES = 6
"""With more labels, the matrix shows no shares below the counts."""
MOST_LABELS = 30
"""With more labels, names and numbers of a matrix of this size would overlap."""
WIDEST_NAMES = 36
"""If the names have more characters in total, the columns are numbered."""
SQUARE = 0.26
"""Least side of a square in inches, for numbers of two digits."""


def confusion_panel(labels: Sequence[str], counts: Sequence[Sequence[int]], rows: str = "test rows") -> Panel:
    """Rows by label (down) and predicted label (across), shaded by their share of the label's rows.

    If the names have no space below the columns, rows and columns are numbered.

    Args:
        labels: label names.
        counts: rows of each label, by predicted label.
        rows: the counted rows.
    """
    count = len(labels)
    numbered = sum(map(len, labels)) > WIDEST_NAMES or count > MOST_SHARES
    down = [wrapped(f"{label} · {i}" if numbered else label) for i, label in enumerate(labels, 1)]
    across = [str(i) for i in range(1, count + 1)] if numbered else list(labels)
    names = 0.09 * max(len(line) for name in down for line in name.split("\n"))
    square = SQUARE if count > MOST_COUNTS else 0.36 if count > MOST_SHARES else 0.5
    lines = sum(max(square if numbered else 0.62, 0.18 * (1 + name.count("\n"))) for name in down)
    with styled():
        figure = sheet(max(WIDTH, 0.5 + names + square * count), 1.1 + lines)
        axes = figure.add_subplot()
        for y, line in enumerate(counts):
            for x, number in enumerate(line):
                share = number / max(1, sum(line))
                # The square root makes a few per cent of errors visible next to 90 % of correct rows.
                draw_square(
                    axes, (x, y), level(share**0.5, 0.0, 1.0), _text(number, share, count), 1, size=_size(count)
                )
        label_axes(axes, across, down, "predicted label, by number" if numbered else "predicted", "label")
        axes.set_title(f"{rows} by label and prediction", loc="left", color=INK, fontsize=10.5, pad=8)
        return panel(figure, "confusion", "Confusion matrix of the chosen run", _description(labels, counts))


def _size(labels: int) -> float:
    """Size of the letters in the squares."""
    return 12 if labels <= MOST_SHARES else 10


def _text(count: int, share: float, labels: int) -> tuple[str, ...]:
    if labels > MOST_COUNTS:
        return ()
    return (f"{count:,}", f"{100 * share:.1f} %") if labels <= MOST_SHARES else (f"{count:,}",)


def _description(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    right = sum(line[i] for i, line in enumerate(counts))
    errors = [(n, labels[i], labels[j]) for i, line in enumerate(counts) for j, n in enumerate(line) if i != j]
    count, true, predicted = max(errors, default=(0, "", ""))
    return (
        f"{right:,} of {sum(map(sum, counts)):,} rows are classified correctly; the most frequent error is {true} "
        f"classified as {predicted}, {count:,} times"
    )
