"""The plan of a study, before training: as one line, and as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from loralet.events import Planned

GIB = 2**30
HEADINGS = ("pack", "runs", "steps", "rows", "trained", "memory", "time")


def plan_text(plan: Planned) -> str:
    """The plan in one line."""
    runs = sum(len(pack.runs) for pack in plan.packs)
    first = plan.packs[0]
    bound = "at most about" if plan.stopping else "about"
    notes = ["runs stopped by --halving count up to their last rung"] * plan.halving
    notes += ["runs that stop at the target score or by --patience take less time"] * plan.stopping
    remark = f" ({'; '.join(notes)})" if notes else ""
    seconds, memory = sum(pack.seconds for pack in plan.packs), max(pack.memory_bytes for pack in plan.packs)
    return (
        f"plan: {counted(runs, 'run')} in {counted(len(plan.packs), 'pack')}, {first.steps:,} steps of "
        f"{first.batch_size} rows, {plan.train_rows:,} training rows; {bound} {duration(seconds)} of training{remark}, "
        f"and {size(memory)} of memory out of {size(plan.budget_bytes)}"
    )


def plan_cells(plan: Planned) -> list[tuple[str, ...]]:
    """One row per pack, under :data:`HEADINGS`; ``trained`` is the range of trained parameters per run."""
    cells: list[tuple[str, ...]] = []
    for i, pack in enumerate(plan.packs, 1):
        low, high = min(pack.trainable), max(pack.trainable)
        trained = f"{low:,}" if low == high else f"{low:,} – {high:,}"
        steps, rows = f"{pack.steps:,}", f"{pack.steps * pack.batch_size:,}"
        memory, time = size(pack.memory_bytes), duration(pack.seconds)
        cells.append((str(i), str(len(pack.runs)), steps, rows, trained, memory, time))
    return cells


def plan_table(plan: Planned, backends: Sequence[str] = ()) -> RenderableType:
    """The output of ``--dry-run``: packs, runs per pack, totals, and backends.

    Args:
        plan: the plan.
        backends: one line per backend, such as ``native, AVX-512 BF16, bf16, 2 threads``.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in plan_cells(plan):
        table.add_row(*row)
    lines = [f"pack {i}: {', '.join(pack.runs)}" for i, pack in enumerate(plan.packs, 1)]
    lines += [plan_text(plan), *(f"backend: {line}" for line in backends), "nothing was trained or written (--dry-run)"]
    return Group(table, *(Text(line, overflow="fold") for line in lines))


def counted(count: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size(count: int) -> str:
    """Bytes in GiB, or in MiB below 0.1 GiB."""
    return f"{count / GIB:,.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:,.0f} MiB"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, rounded as an estimate."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
