"""What was found at a path, as tables: first the cells, then the ink."""

from __future__ import annotations

from dataclasses import asdict
from itertools import combinations
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loralet.report.inspection import Comparison, Inspection, compare


def comparisons(found: list[Inspection]) -> list[Comparison]:
    """Every two of the models."""
    models = [inspection for inspection in found if inspection.weights is not None]
    return [compare(first, second) for first, second in combinations(models, 2)]


def inspection_json(found: list[Inspection]) -> dict[str, Any]:
    """All that was found, as JSON."""
    return {
        "found": [{"path": i.path, "kind": i.kind} | i.facts for i in found],
        "comparisons": [asdict(c) | {"encoders_equal": c.encoders_equal} for c in comparisons(found)],
    }


def cell(value: object) -> str:
    """A value as the table shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "–" if value is None else " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def inspection_view(inspection: Inspection) -> RenderableType:
    """One path's facts, a table under each heading."""
    parts: list[RenderableType] = [Text(f"{inspection.path}: {inspection.kind}", style="bold")]
    for heading, facts in inspection.facts.items():
        table = Table(
            box=box.SIMPLE, pad_edge=False, show_header=False, title=heading, title_justify="left", title_style=""
        )
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in facts.items():
            table.add_row(Text(str(name)), Text(cell(value)))
        parts += [table] if facts else []
    return Group(*parts)


def comparison_view(comparison: Comparison) -> RenderableType:
    """Whether two models' weights are equal, and a table of the tensors that are not."""
    verdict = "the encoders' weights are equal" if comparison.encoders_equal else "the encoders' weights differ"
    total = comparison.equal + len(comparison.differing)
    title = Text(
        f"{comparison.first} and {comparison.second}: {verdict} ({comparison.equal} of {total} tensors equal bit for bit)",
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
