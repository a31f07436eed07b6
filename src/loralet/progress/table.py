"""Where training stands, in numbers, from the events alone; and as a table that fits the terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loralet.events import Checked, Event, Halved, PackStarted, Planned, PlannedPack, RunEnded, Stepped
from loralet.progress.plan import counted, duration

WINDOW = 50
"""Steps that the pace is taken from: enough to be steady, few enough to follow when runs leave the pack."""
MOST_RUNS = 12
"""Runs shown at most; of more the best are shown."""


@dataclass
class RunLine:
    """Where one run stands. Accuracies are on the validation sample, None before the first check."""

    id: str
    step: int = 0
    loss: float | None = None
    last: float | None = None
    best: float | None = None
    best_step: int = 0
    ended: str = ""


@dataclass
class Board:
    """The present pack, and how many came before it. Times are seconds of one clock, given with each event."""

    runs: dict[str, RunLine] = field(default_factory=dict)
    step: int = 0
    steps: int = 0
    pack: int = 0
    packs: int = 0
    planned: tuple[PlannedPack, ...] = ()
    pace: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=WINDOW + 1))
    started: float = 0.0

    def hear(self, event: Event, now: float) -> None:
        """Take an event in."""
        if isinstance(event, Planned):
            self.packs, self.planned = len(event.packs), event.packs
        elif isinstance(event, PackStarted):
            self.runs = {run: RunLine(run) for run in event.runs}
            self.step, self.steps, self.pack, self.started = 0, event.steps, self.pack + 1, now
            self.pace.clear()
            self.pace.append((now, 0))
        elif isinstance(event, Stepped):
            self.step = event.step
            self.pace.append((now, event.rows * len(event.runs)))
            for run, loss in zip(event.runs, event.losses, strict=True):
                self.runs[run].step, self.runs[run].loss = event.step, loss
        elif isinstance(event, Checked):
            line = self.runs[event.run]
            line.last = event.accuracy
            if event.best:
                line.best, line.best_step = event.accuracy, event.step
        elif isinstance(event, RunEnded):
            self.runs[event.run].ended = event.status

    @property
    def rows_per_second(self) -> float:
        """Rows times runs a second over the last steps, the checks between them included."""
        rows = sum(rows for _, rows in list(self.pace)[1:])
        return rows / max(1e-9, self.pace[-1][0] - self.pace[0][0]) if rows else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the present pack still takes at its last pace, steps after a rung to come at less of it; None before its first step."""
        taken = len(self.pace) - 1
        if taken < 1:
            return None
        shares = self.planned[self.pack - 1].shares if 0 < self.pack <= len(self.planned) else ((0, 1.0),)
        ends = [start for start, _ in shares[1:]] + [self.steps]
        now = next(share for (_, share), end in zip(shares, ends, strict=True) if self.step <= end)
        ahead = sum(
            share * max(0, end - max(start, self.step)) for (start, share), end in zip(shares, ends, strict=True)
        )
        return ahead / now * (self.pace[-1][0] - self.pace[0][0]) / taken

    @property
    def all_seconds_left(self) -> float | None:
        """The same with all packs to come, whose estimates are put right by what this pack's turned out to be; None where no plan was heard."""
        left = self.seconds_left
        if left is None or not 0 < self.pack <= len(self.planned):
            return None
        own = self.pace[-1][0] - self.started + left
        return left + sum(pack.seconds for pack in self.planned[self.pack :]) * own / max(
            1e-9, self.planned[self.pack - 1].seconds
        )

    def lines(self, most: int = MOST_RUNS) -> list[RunLine]:
        """The runs in the order of the pack, or where they are more than ``most`` the best of them, best first."""
        lines = list(self.runs.values())
        if len(lines) <= most:
            return lines
        return sorted(
            lines, key=lambda line: (-(line.best if line.best is not None else -1.0), line.loss or float("inf"))
        )[:most]


HEADINGS = ("run", "step", "loss", "last", "best", "at", "")


def cells(line: RunLine) -> tuple[str, ...]:
    """One run as the cells under :data:`HEADINGS`."""
    return (
        line.id,
        f"{line.step:,}",
        f"{line.loss:.3f}" if line.loss is not None else "–",
        f"{line.last:.3f}" if line.last is not None else "–",
        f"{line.best:.3f}" if line.best is not None else "–",
        f"{line.best_step:,}" if line.best is not None else "",
        "" if line.ended in ("", "finished") else line.ended,
    )


def head_line(board: Board) -> str:
    """Pack, step, pace and time left, in words."""
    pack = f"pack {board.pack} of {board.packs} · " if board.packs > 1 else ""
    left, whole = board.seconds_left, board.all_seconds_left
    words = f"{pack}step {board.step:,}/{board.steps:,} · {board.rows_per_second:,.0f} rows x runs/s"
    if left is not None:
        words += f" · {duration(left)} left" + (
            f", {duration(whole)} in all" if board.packs > board.pack and whole is not None else ""
        )
    return words


def draw(board: Board, height: int) -> RenderableType:
    """The board as a table of at most ``height`` lines."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for heading in HEADINGS:
        table.add_column(
            heading, justify="left" if heading in ("run", "") else "right", no_wrap=True, overflow="ellipsis"
        )
    shown = board.lines(max(3, min(MOST_RUNS, height - 6)))
    top = max((line.best for line in board.runs.values() if line.best is not None), default=None)
    for line in shown:
        style = (
            "dim"
            if line.ended not in ("", "finished")
            else "bold green"
            if top is not None and line.best == top
            else ""
        )
        table.add_row(*cells(line), style=style)
    rest = len(board.runs) - len(shown)
    more: Sequence[RenderableType] = (
        [Text(f"and {counted(rest, 'run')} below the best {len(shown)}", style="dim")] if rest else []
    )
    bar = ProgressBar(total=max(1, board.steps), completed=board.step, width=40)
    return Group(Text(head_line(board)), bar, table, *more)


def halved_words(event: Halved) -> str:
    """A rung in one line."""
    leaving = ", ".join(event.runs[event.kept :])
    return (
        f"rung {event.rung} at step {event.step:,}: {event.kept} of {counted(len(event.runs), 'LoRA run')} go on, "
        f"best {event.runs[0]} ({event.accuracies[0]:.3f}); halved: {leaving}"
    )
