"""Names next to dots, placed so that they do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

SHIFTS = {"right": 8.0, "left": -6.0, "center": 0.0}
"""Horizontal offset of a name in points, by alignment."""
LINE, GAP, LETTERS = 12.0, 3.0, 10.0
"""Height of a line, distance from the interval, and size of the letters, in points."""
DOT = 4.0
"""Half the side of the square around a dot that is kept free of names, in pixels."""


@dataclass(frozen=True)
class Label:
    """A name at an interval.

    Args:
        text: the name.
        x, low, high: position of the interval, in data coordinates.
        colour: text colour.
        below: whether the name is at the lower end of the interval instead of the upper one.
        side: its horizontal alignment; a key of :data:`SHIFTS`.
    """

    text: str
    x: float
    low: float
    high: float
    colour: str
    below: bool
    side: str


def place_labels(axes: Axes, labels: Sequence[Label], dots: Sequence[tuple[float, float]]) -> list[Annotation]:
    """Place names at their intervals. A name that would overlap another name or a dot is moved.

    Args:
        axes: axes with everything else drawn and the limits set.
        labels: the names; earlier ones have priority.
        dots: positions to keep free, in data coordinates.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # type: ignore[union-attr]  # a figure's axes, not a subfigure's
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[arg-type, no-untyped-call]
    frame = axes.get_window_extent(renderer)
    taken = [
        Bbox.from_bounds(x - DOT, y - DOT, 2 * DOT, 2 * DOT)
        for x, y in axes.transData.transform(list(dots) or [(0.0, 0.0)])
    ]
    written: list[Annotation] = []
    for label in labels:
        note = axes.annotate(
            label.text,
            (label.x, label.high),
            xytext=(0, 0),
            textcoords="offset points",
            color=label.colour,
            fontsize=LETTERS,
        )
        note.set_in_layout(False)  # otherwise the name would change the layout it is placed in
        spots = [
            (lift, below, side)
            for lift, below, side in product(range(4), (label.below, not label.below), _sides(label.side))
        ]
        boxes = []
        for spot in spots:
            _put(note, label, *spot)
            boxes.append(note.get_window_extent(renderer))
        best = min(range(len(spots)), key=lambda i: _overlap(boxes[i], taken, frame))
        _put(note, label, *spots[best])
        taken.append(boxes[best])
        written.append(note)
    return written


def _sides(first: str) -> list[str]:
    return [first, *(side for side in SHIFTS if side != first)]


def _put(note: Annotation, label: Label, lift: int, below: bool, side: str) -> None:
    away = GAP + lift * LINE
    note.xy = (label.x, label.low if below else label.high)
    note.set_position((SHIFTS[side], -away if below else away))
    note.set(ha=side, va="top" if below else "bottom")


def _overlap(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> float:
    """Area of a name that overlaps something or lies outside the frame, in square pixels."""
    inside = Bbox.intersection(box, frame)
    over = [Bbox.intersection(box, other) for other in taken]
    return _area(box) - (_area(inside) if inside else 0.0) + sum(_area(part) for part in over if part)


def _area(box: Bbox) -> float:
    return float(box.width * box.height)
