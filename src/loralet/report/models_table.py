"""The table of known backbones, for the terminal and for the docs."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loralet.hub.models import KnownModel

MISSING = "–"
LEFT = ("name", "hub id", "languages", "licence")
"""Headings of left-aligned columns."""


def headings(models: Sequence[KnownModel]) -> tuple[str, ...]:
    """The headings of the table; figures that no model has are left out."""
    measured = [any(figure is not None for figure in figures) for figures in zip(*map(_figures, models), strict=True)]
    names = ("rows/s", "league")
    return (
        "name", "hub id", "parameters", "length", "languages", "licence",
        *(name for name, known in zip(names, measured, strict=True) if known),
    )  # fmt: skip


def cells(model: KnownModel, shown: Sequence[str]) -> tuple[str, ...]:
    """The cells of one model.

    Args:
        model: the model.
        shown: the headings.
    """
    rows, league = _figures(model)
    values = {
        "name": model.name,
        "hub id": "bundled" if model.bundled else model.source,
        "parameters": f"{model.parameters:.3g} M",
        "length": f"{model.longest:,}",
        "languages": model.languages,
        "licence": model.licence,
        "rows/s": MISSING if rows is None else f"{rows:,}",
        "league": MISSING if league is None else f"{100 * league:.1f} %",
    }
    return tuple(values[name] for name in shown)


def _figures(model: KnownModel) -> tuple[int | None, float | None]:
    return model.rows_per_second, model.league


def models_table(models: Sequence[KnownModel]) -> RenderableType:
    """The table for the terminal, with an explanation of its columns."""
    shown = headings(models)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for heading in shown:
        table.add_column(heading, justify="left" if heading in LEFT else "right", no_wrap=heading != "hub id")
    for model in models:
        table.add_row(*map(Text, cells(model, shown)))
    notes = ["--model takes the names, and any hub id or folder. Length is the longest text in tokens."]
    if "rows/s" in shown:
        notes.append(
            "rows/s: training rows per second on two CPU cores. league: mean test accuracy (docs/benchmarks.md)."
        )
    return Group(table, *(Text(note) for note in notes))
