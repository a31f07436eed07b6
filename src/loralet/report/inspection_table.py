"""Inspections as tables and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loralet.records import plain
from loralet.report.inspection import Comparison, Inspection, compare


def comparisons(found: Sequence[Inspection]) -> list[Comparison]:
    """Compare each pair of models among the inspections."""
    models = [inspection for inspection in found if inspection.weights is not None]
    return [compare(first, second) for first, second in combinations(models, 2)]


def inspection_json(found: Sequence[Inspection]) -> dict[str, object]:
    """All inspections and comparisons as JSON."""
    return {
        "found": [{"path": i.path, "kind": i.kind} | i.facts for i in found],
        "comparisons": [plain(c) | {"encoders_equal": c.encoders_equal} for c in comparisons(found)],
    }


def cell(value: object) -> str:
    """Format a value for the table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return "–" if value is None else str(value)


def inspection_view(inspection: Inspection) -> RenderableType:
    """The facts of one path, one table per heading."""
    parts: list[RenderableType] = [Text(f"{inspection.path}: {inspection.kind}", style="bold")]
    for heading, facts in inspection.facts.items():
        if not facts:
            continue
        table = Table(
            box=box.SIMPLE, pad_edge=False, show_header=False, title=heading, title_justify="left", title_style=""
        )
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in facts.items():
            table.add_row(Text(name), Text(cell(value)))
        parts.append(table)
    return Group(*parts)


def comparison_view(comparison: Comparison) -> RenderableType:
    """Whether the weights of two models are equal, and a table of the tensors that differ."""
    verdict = "the encoders' weights are equal" if comparison.encoders_equal else "the encoders' weights differ"
    total = comparison.equal + len(comparison.differing)
    title = Text(
        f"{comparison.first} and {comparison.second}: {verdict} ({comparison.equal} of {total} tensors bitwise equal)",
        style="bold",
    )
    if not comparison.differing:
        return title
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for heading in ("tensor", comparison.first, comparison.second, "largest difference"):
        table.add_column(Text(heading), justify="left" if heading == "tensor" else "right")
    for d in comparison.differing:
        table.add_row(d.tensor, d.first, d.second, "–" if d.largest is None else f"{d.largest:.3g}")
    return Group(title, table)
