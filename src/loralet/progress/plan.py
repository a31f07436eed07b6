"""The plan of a study, before anything is trained: first the words and cells, then the ink."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loralet.events import Planned

GIB = 2**30
HEADINGS = ("pack", "runs", "steps", "rows", "trained", "memory", "time")


def plan_words(plan: Planned) -> str:
    """The plan in one line."""
    runs = sum(len(pack.runs) for pack in plan.packs)
    first = plan.packs[0]
    bound = "at most about" if plan.stopping else "about"
    said = ["runs that leave at the rungs of --halving counted until then"] * plan.halving
    said += ["runs that stop at their target or out of patience need less"] * plan.stopping
    notes = f" ({'; '.join(said)})" if said else ""
    return (
        f"plan: {counted(runs, 'run')} in {counted(len(plan.packs), 'pack')}, {first.steps:,} steps of {first.batch_size} rows, "
        f"{plan.train_rows:,} training rows; {bound} {duration(sum(pack.seconds for pack in plan.packs))} of training{notes}, "
        f"and {size(max(pack.memory_bytes for pack in plan.packs))} of memory out of {size(plan.budget_bytes)}"
    )


def plan_cells(plan: Planned) -> list[tuple[str, ...]]:
    """One row a pack, under :data:`HEADINGS`; ``trained`` spans the runs of the pack."""
    cells: list[tuple[str, ...]] = []
    for i, pack in enumerate(plan.packs, 1):
        low, high = min(pack.trainable), max(pack.trainable)
        trained = f"{low:,}" if low == high else f"{low:,} – {high:,}"
        rows = f"{pack.steps * pack.batch_size:,}"
        cells.append(
            (
                str(i),
                str(len(pack.runs)),
                f"{pack.steps:,}",
                rows,
                trained,
                size(pack.memory_bytes),
                duration(pack.seconds),
            )
        )
    return cells


def plan_table(plan: Planned) -> RenderableType:
    """What ``--dry-run`` prints: the packs, the runs in each, and the sum."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in plan_cells(plan):
        table.add_row(*row)
    members = [Text(f"pack {i}: {', '.join(pack.runs)}", overflow="fold") for i, pack in enumerate(plan.packs, 1)]
    return Group(table, *members, Text(plan_words(plan)), Text("nothing was trained or written (--dry-run)"))


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(count: int) -> str:
    """Bytes in GiB, or in MiB below a tenth of one."""
    return f"{count / GIB:,.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:,.0f} MiB"


def duration(seconds: float) -> str:
    """Seconds in words that are as exact as an estimate is."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
