"""The confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

from loralet.report.figures.matrix import draw_square, label_axes, level
from loralet.report.figures.style import INK, WIDTH, Panel, panel, sheet, styled

MOST_COUNTS = 12
"""With more labels, the matrix shows no counts. Also the maximum number of characters of a label."""
MOST_SHARES = 6
"""With more labels, the matrix shows no shares below the counts, and names are rotated."""
WIDEST_NAMES = 40
"""If the names have more characters in total, they are rotated."""


def confusion_panel(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Panel:
    """Test rows by label (down) and predicted label (across), shaded by their share of the label's rows.

    Args:
        labels: label names.
        counts: rows of each label, by predicted label.
    """
    short = [label if len(label) <= MOST_COUNTS else label[: MOST_COUNTS - 1] + "…" for label in labels]
    with styled():
        figure = sheet(WIDTH, min(6.0, 1.2 + 0.62 * len(labels)))
        axes = figure.add_subplot()
        for y, line in enumerate(counts):
            for x, count in enumerate(line):
                share = count / max(1, sum(line))
                # The square root makes a few per cent of errors visible next to 90 % of correct rows.
                draw_square(axes, (x, y), level(share**0.5, 0.0, 1.0), _text(count, share, len(labels)), 1)
        label_axes(axes, short, short, "predicted", "label")
        if len(labels) > MOST_SHARES or max(map(len, short)) * len(labels) > WIDEST_NAMES:
            axes.tick_params(axis="x", rotation=90)
        axes.set_title("test rows by label and prediction", loc="left", color=INK, fontsize=10.5, pad=8)
        return panel(figure, "confusion", "Confusion matrix of the chosen run", _description(labels, counts))


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
