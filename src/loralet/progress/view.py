"""Listeners: a live view on a terminal, plain lines elsewhere, or every event as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from loralet.events import Advanced, EpochEnded, Event, Finished, Halved, PackStarted, Planned, RunEnded, Stage, Stepped
from loralet.progress.plan import duration, plan_words
from loralet.progress.table import Board, draw, halved_words
from loralet.runs.folder import event_line

LINE_EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""
DRAW_EVERY = 0.2
"""Seconds between two drawings on a terminal: drawn between steps, not by a thread that would take time from them."""


@contextmanager
def open_view(quiet: bool = False, json_events: bool = False) -> Iterator[Callable[[Event], None]]:
    """The listener that the user asked for: JSON lines on standard output, or words on standard error, where results are not in their way."""
    if json_events:
        yield print_json
        return
    with ProgressView(Console(stderr=True), quiet) as view:
        yield view


def print_json(event: Event) -> None:
    """An event as one line of JSON on standard output, at once."""
    print(event_line(event), flush=True)


class ProgressView:
    """Shows events as they come; a context manager, called with each event.

    Args:
        console: where to; usually standard error, so that results can be piped.
        quiet: show nothing.
        clock: seconds that only go on.
    """

    def __init__(self, console: Console, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self.quiet = quiet
        self.board = Board()
        self._clock = clock
        self._live = (
            Live(console=console, auto_refresh=False, transient=True) if console.is_terminal and not quiet else None
        )
        self._spoken = 0.0
        self._task, self._first, self._started = "", 0, 0.0

    def __enter__(self) -> ProgressView:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        if self.quiet:
            return
        now = self._clock()
        self.board.hear(event, now)
        words = self._words(event)
        if words:
            # a terminal gets its lines broken between words; a file or a pipe gets them whole
            self.console.print(f"· {words}", highlight=False, markup=False, soft_wrap=self._live is None)
        if isinstance(event, PackStarted):
            self._spoken = now
        elif isinstance(event, Stepped):
            self._show(now, lambda: draw(self.board, self.console.height), self._pace)
        elif isinstance(event, Advanced):
            self._advance(event, now)
        elif isinstance(event, Finished | Stage) and self._live:
            self._live.update(Text(""), refresh=True)

    def _words(self, event: Event) -> str:
        """What is said about an event in a line that stays; most are only shown."""
        if isinstance(event, Stage):
            return event.text
        if isinstance(event, Planned):
            return plan_words(event)
        if isinstance(event, PackStarted):
            count = f"{len(event.runs)} runs side by side" if len(event.runs) > 1 else event.runs[0]
            pack = f"pack {self.board.pack} of {self.board.packs}, " if self.board.packs > 1 else ""
            return f"training {pack}{count}: {event.steps:,} steps of {event.batch_size} rows, {event.train_rows:,} training rows"
        if isinstance(event, Halved):
            return halved_words(event)
        if isinstance(event, EpochEnded):
            trained = f"loss {event.training['total']:.4f} · " if event.training else ""
            held_out = "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in event.held_out.items())
            return f"epoch {event.epoch}/{event.epochs} · {trained}held out: {held_out}"
        if isinstance(event, RunEnded) and event.status in ("early-stopped", "diverged"):
            return f"{event.run} {event.status} at step {event.step}"
        return ""

    def _show(self, now: float, picture: Callable[[], RenderableType], line: Callable[[], str]) -> None:
        """The picture on a terminal, the line elsewhere, each not too often."""
        if self._live and now - self._spoken >= DRAW_EVERY:
            self._spoken = now
            self._live.update(picture(), refresh=True)
        elif not self._live and now - self._spoken > LINE_EVERY:
            self._spoken = now
            self.console.print(f"· {line()}", highlight=False, soft_wrap=True)

    def _pace(self) -> str:
        board = self.board
        losses = [line.loss for line in board.runs.values() if line.loss is not None and not line.ended]
        words = f"step {board.step:,}/{board.steps:,} · loss {sum(losses) / max(1, len(losses)):.3f} · {board.rows_per_second:,.0f} rows x runs/s"
        known = [line for line in board.runs.values() if line.last is not None]
        if known:
            best = max(known, key=lambda line: line.last or 0.0)
            words += f" · validation {best.last:.3f}" + (f" ({best.id})" if len(known) > 1 else "")
        return f"{words} · {board.seconds_left or 0:.0f} s left"

    def _advance(self, event: Advanced, now: float) -> None:
        if event.task != self._task:
            self._task, self._first, self._started, self._spoken = event.task, event.done, now, now
        left = (event.total - event.done) * (now - self._started) / max(1, event.done - self._first)
        note = f" · {event.note}" if event.note else ""
        words = f"{event.task} {event.done:,}/{event.total:,}{note}"
        bar = ProgressBar(total=max(1, event.total), completed=event.done, width=40)
        self._show(
            now, lambda: Group(Text(f"{words} · {duration(left)} left"), bar), lambda: f"{words} · {left:.0f} s left"
        )
