"""The style of all figures: sizes, lines, and colours that follow the light or dark theme of the page.

Matplotlib draws with placeholder colours. They are replaced in the SVG by ``currentColor`` and CSS variables.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loralet.terminal import visible

INK, MUTED, RULE, PAGE, ACCENT = "#010203", "#040506", "#070809", "#0a0b0c", "#0d0e0f"
SERIES = tuple(f"#1112{i:02x}" for i in range(6))
RAMP = tuple(f"#1314{i:02x}" for i in range(9))
VARIABLES = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    PAGE: "var(--page)",
    ACCENT: "var(--accent)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)},
    **{colour: f"var(--ramp-{i})" for i, colour in enumerate(RAMP)},
}
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.8), (6, 2, 1.5, 2), (9, 3), (1, 3))
WIDTH, HEIGHT = 5.0, 3.4
"""Size of a panel in inches. Its width of 360 units is about that of a phone, where 10-unit text has about 10 pixels.

The page draws no panel smaller than this; on narrower screens, it scrolls."""
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10.0,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10.0,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 10.0,
    "legend.labelcolor": MUTED,
    "legend.handlelength": 1.9,
    "legend.columnspacing": 1.3,
    "legend.borderaxespad": 0.0,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True)
class Panel:
    """One part of a figure.

    Args:
        name: unique name in the report, and file name.
        title, description: text for screen readers.
        svg: inline SVG for HTML.
    """

    name: str
    title: str
    description: str
    svg: str


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Args:
        name: id of its section in the page.
        heading: heading of its section.
        caption: what it shows.
        panels: its parts.
    """

    name: str
    heading: str
    caption: str
    panels: tuple[Panel, ...]


def sheet(width: float = WIDTH, height: float = HEIGHT) -> Figure:
    """Create an empty figure in this style. Call it within :func:`styled`."""
    return Figure(figsize=(width, height), layout="constrained")


def styled() -> AbstractContextManager[None]:
    """Context manager that applies the settings of this module."""
    return mpl.rc_context(SETTINGS)


def rules(axes: Axes, axis: str = "y") -> None:
    """Draw light grid lines behind the plot, across one axis."""
    axes.grid(True, axis=axis)  # type: ignore[arg-type]  # matplotlib's stub wants a literal
    axes.spines["left"].set_visible(False)


def series(ranks: Sequence[int | None], rank: int | None) -> str:
    """The colour of a rank, the same in every figure.

    Args:
        ranks: all ranks of the figure.
        rank: the rank; None: a run without an adapter.
    """
    known = sorted({r for r in ranks if r})
    return SERIES[known.index(rank) % len(SERIES)] if rank in known else MUTED


def panel(figure: Figure, name: str, title: str, description: str) -> Panel:
    """Convert a figure to inline SVG with text as text, the page's colours, and ids prefixed with the panel's name.

    Args:
        figure: the figure.
        name, title, description: see :class:`Panel`.
    """
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the page's fonts draw the text
        figure.savefig(
            stream,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    return Panel(name, title, description, _inline(visible(stream.getvalue()), name, title, description))


def _inline(svg: str, name: str, title: str, description: str) -> str:
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL).replace("xlink:href", "href")
    body = _own_ids(body, name)
    for stand_in, colour in VARIABLES.items():
        body = body.replace(stand_in, colour)
    body = re.sub(r"font-family: [^;\"]*(;|(?=\"))", "", body)
    body = re.sub(r"font: ((?:[a-z]+ |\d+ )*)([\d.]+)px [^;\"]*", r"font: \1\2px var(--sans, sans-serif)", body)
    opening, rest = body[: body.index(">")], body[body.index(">") + 1 :]
    view_box = opening.split('viewBox="')[1].split('"')[0]
    # Round coordinates to 0.01, which halves the page size. Only within tags, because texts contain numbers too.
    rest = re.sub(r"<[^>]*>", lambda tag: re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}", tag[0]), rest)
    least = float(view_box.split()[2])
    head = (
        f'<svg viewBox="{view_box}" role="img" aria-labelledby="{name}-title {name}-desc" stroke-linejoin="round" '
        f'style="min-width:{least:.0f}px" '
        'xmlns="http://www.w3.org/2000/svg">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
    )
    return head + re.sub(r"\s*\n\s*", "\n", rest).strip()


def _own_ids(body: str, name: str) -> str:
    """Prefix the ids in use with the panel's name, which makes them unique in the page. Remove all other ids."""
    used = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", body))
    body = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", body)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
