"""Markdown of all benchmark tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Report = Mapping[str, Any]
"""JSON of a benchmark."""


def table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


def machine(report: Report) -> str:
    """The machine and versions of a benchmark in one line."""
    found = report["machine"]
    parts = [f"{found['cores']} cores of {found['cpu']}", found.get("instructions"), found.get("gpu"), found["dtype"]]
    parts += [f"torch {found['torch']}", f"commit {found['commit']}"]
    return ", ".join(part for part in parts if part)


def source(name: str, report: Report) -> str:
    """The line that states the source of a table."""
    return f"Measured by `benchmarks/{name}.py` on {machine(report)}.\n"
