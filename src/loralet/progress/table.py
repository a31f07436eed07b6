"""The state of training, computed from events, and its table for the terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loralet.events import Checked, Event, Halved, PackResumed, PackStarted, Planned, PlannedPack, RunEnded, Stepped
from loralet.progress.plan import counted, duration
from loralet.ranking import Rank, rank_of

WINDOW = 50
"""Number of steps over which the pace is averaged. A larger value reacts more slowly when runs leave the pack."""
MOST_RUNS = 12
"""Maximum number of runs shown. If there are more, the best ones are shown."""
OTHER_LINES = 6
"""Lines of the table other than runs."""


@dataclass
class RunLine:
    """The state of one run.

    Args:
        id: id of the run.
        step: optimiser steps taken.
        loss: batch loss of the last step.
        last, best: scores of the last and the best check on the validation sample; None before the first check.
        last_loss, best_loss: losses of the same checks.
        best_value: value of the best check that selects.
        best_step: step of the best check.
        ended: how the run ended; empty while it trains.
    """

    id: str
    step: int = 0
    loss: float | None = None
    last: float | None = None
    best: float | None = None
    last_loss: float | None = None
    best_loss: float | None = None
    best_value: float = 0.0
    best_step: int = 0
    ended: str = ""


@dataclass
class Progress:
    """The state of training. Times are in seconds of one clock and are passed with each event.

    Args:
        runs: runs of the current pack.
        step, steps: steps taken and planned in the current pack.
        pack, packs: number of the current pack, from 1, and number of all packs.
        planned: the packs of the plan; empty without a plan.
        pace: for each of the last steps, its time, and its rows times runs.
        started: start time of the current pack.
    """

    runs: dict[str, RunLine] = field(default_factory=dict)
    step: int = 0
    steps: int = 0
    pack: int = 0
    packs: int = 0
    planned: tuple[PlannedPack, ...] = ()
    pace: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=WINDOW + 1))
    started: float = 0.0

    def update(self, event: Event, now: float) -> None:
        """Update the state with an event.

        Args:
            event: what happened.
            now: when it happened.
        """
        if isinstance(event, Planned):
            self.packs, self.planned = len(event.packs), event.packs
        elif isinstance(event, PackStarted):
            self._begin(event.runs, 0, event.steps, now)
        elif isinstance(event, PackResumed):
            self._begin(event.runs, event.step, event.steps, now)
        elif isinstance(event, Stepped):
            self.step = event.step
            self.pace.append((now, event.rows * len(event.runs)))
            for run, loss in zip(event.runs, event.losses, strict=True):
                self.runs[run].step, self.runs[run].loss = event.step, loss
        elif isinstance(event, Checked):
            line = self.runs[event.run]
            line.last, line.last_loss = event.score, event.loss
            if event.best:
                line.best, line.best_loss, line.best_step = event.score, event.loss, event.step
                line.best_value = event.value
        elif isinstance(event, RunEnded):
            self.runs[event.run].ended = event.status

    def _begin(self, runs: Sequence[str], step: int, steps: int, now: float) -> None:
        """Begin or resume a pack. Its number is that in the plan; a resumed study does not train all of them."""
        self.runs = {run: RunLine(run) for run in runs}
        planned = (i for i, pack in enumerate(self.planned, 1) if set(runs) <= set(pack.runs))
        self.pack = next(planned, self.pack + 1)
        self.step, self.steps, self.started = step, steps, now
        self.pace.clear()
        self.pace.append((now, 0))

    @property
    def rows_per_second(self) -> float:
        """Rows times runs per second over the last steps, including the checks between them."""
        rows = sum(rows for _, rows in list(self.pace)[1:])
        return rows / max(1e-9, self.pace[-1][0] - self.pace[0][0]) if rows else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the end of the current pack at its current pace; None before its first step.

        Steps after a later rung of successive halving are assumed to cost their planned share.
        """
        taken = len(self.pace) - 1
        if taken < 1:
            return None
        shares = self.planned[self.pack - 1].shares if 0 < self.pack <= len(self.planned) else ((0, 1.0),)
        ends = [start for start, _ in shares[1:]] + [self.steps]
        now = next(share for (_, share), end in zip(shares, ends, strict=True) if self.step <= end)
        parts = zip(shares, ends, strict=True)
        ahead = sum(share * max(0, end - max(start, self.step)) for (start, share), end in parts)
        return ahead / now * (self.pace[-1][0] - self.pace[0][0]) / taken

    @property
    def all_seconds_left(self) -> float | None:
        """Seconds until the end of all packs; None without a plan.

        The estimates of the remaining packs are scaled by the ratio of the current pack's time to its estimate.
        """
        left = self.seconds_left
        if left is None or not 0 < self.pack <= len(self.planned):
            return None
        ratio = (self.pace[-1][0] - self.started + left) / max(1e-9, self.planned[self.pack - 1].seconds)
        return left + sum(pack.seconds for pack in self.planned[self.pack :]) * ratio

    def lines(self, most: int = MOST_RUNS) -> list[RunLine]:
        """The runs in pack order. If there are more than ``most``, the best ones, best first."""
        lines = list(self.runs.values())
        if len(lines) <= most:
            return lines
        return sorted(lines, key=_rank, reverse=True)[:most]


def _rank(line: RunLine) -> tuple[bool, Rank]:
    """Sort key of a run by its best check, or by its batch loss before its first check; see :func:`rank_of`."""
    if line.best is None:
        return False, rank_of(0.0, line.loss)
    return True, rank_of(line.best_value, line.best_loss)


HEADINGS = ("run", "step", "loss", "last", "best", "at", "")


def cells(line: RunLine) -> tuple[str, ...]:
    """The cells of one run, in the order of :data:`HEADINGS`."""
    return (
        line.id,
        f"{line.step:,}",
        *(f"{value:.3f}" if value is not None else "–" for value in (line.loss, line.last, line.best)),
        f"{line.best_step:,}" if line.best is not None else "",
        "" if line.ended == "finished" else line.ended,
    )


def head_line(progress: Progress) -> str:
    """Pack, step, pace and time left, in one line."""
    pack = f"pack {progress.pack} of {progress.packs} · " if progress.packs > 1 else ""
    left, whole = progress.seconds_left, progress.all_seconds_left
    text = f"{pack}step {progress.step:,}/{progress.steps:,} · {progress.rows_per_second:,.0f} rows x runs/s"
    if left is not None:
        text += f" · {duration(left)} left"
        if progress.packs > progress.pack and whole is not None:
            text += f", {duration(whole)} in total"
    return text


def draw(progress: Progress, height: int) -> RenderableType:
    """The state of training as a table.

    Args:
        progress: the state.
        height: maximum number of lines.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for heading in HEADINGS:
        justify = "left" if heading in ("run", "") else "right"
        table.add_column(heading, justify=justify, no_wrap=True, overflow="ellipsis")  # type: ignore[arg-type]
    shown = progress.lines(max(3, min(MOST_RUNS, height - OTHER_LINES)))
    top = max((_rank(line) for line in progress.runs.values() if line.best is not None), default=None)
    for line in shown:
        ended, leads = line.ended not in ("", "finished"), _rank(line) == top
        table.add_row(*cells(line), style="dim" if ended else "bold green" if leads else "")
    rest = len(progress.runs) - len(shown)
    more = [Text(f"and {counted(rest, 'run')} below the best {len(shown)}", style="dim")] if rest else []
    bar = ProgressBar(total=max(1, progress.steps), completed=progress.step, width=40)
    return Group(Text(head_line(progress)), bar, table, *more)


def halving_text(event: Halved) -> str:
    """A rung of successive halving as one line."""
    leaving = ", ".join(event.runs[event.kept :])
    return (
        f"rung {event.rung} at step {event.step:,}: {event.kept} of {counted(len(event.runs), 'LoRA run')} continue, "
        f"best {event.runs[0]} ({event.scores[0]:.3f}); halved: {leaving}"
    )
