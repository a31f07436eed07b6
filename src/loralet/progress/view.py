"""Event listeners: a live table on a terminal, plain lines otherwise, or all events as JSON."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from loralet.events import (
    Advanced,
    EpochEnded,
    Event,
    Finished,
    Halved,
    PackResumed,
    PackStarted,
    Planned,
    RunEnded,
    Stage,
    Stepped,
    event_line,
)
from loralet.progress.plan import duration, plan_text
from loralet.progress.table import Progress, draw, halving_text
from loralet.ranking import rank_of
from loralet.terminal import terminal, write_utf8

LINE_EVERY = 10.0
"""Seconds between two progress lines if the output is not a terminal."""
DRAW_EVERY = 0.2
"""Seconds between two updates of the table. It is drawn between steps; a thread would compete with training."""


@contextmanager
def open_view(quiet: bool = False, json_events: bool = False) -> Iterator[Callable[[Event], None]]:
    """Open the requested listener.

    Args:
        quiet: show nothing.
        json_events: print events as JSON on standard output. Otherwise text goes to standard error, separate from
            results.
    """
    if json_events:
        yield print_json
        return
    with ProgressView(terminal(stderr=True), quiet) as view:
        yield view


def shows_progress(wanted: bool | None) -> bool:
    """Whether to show the progress of a training in Python.

    Args:
        wanted: what the user set; None: on a terminal and in a notebook, in the main process only, as several workers
            would overwrite each other's lines.
    """
    if wanted is not None:
        return wanted
    console = terminal(stderr=True)
    return (console.is_terminal or console.is_jupyter) and multiprocessing.parent_process() is None


def print_json(event: Event) -> None:
    """Print an event as one line of JSON on standard output, unbuffered."""
    write_utf8(sys.stdout)
    print(event_line(event), flush=True)


class ProgressView:
    """Show events as they arrive. A context manager that is called with each event.

    Args:
        console: where to print; usually standard error, so that results can be piped.
        quiet: show nothing.
        clock: monotonic seconds.
    """

    def __init__(self, console: Console, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self.quiet = quiet
        self.progress = Progress()
        self._clock = clock
        live = console.is_terminal and not quiet
        self._live = Live(console=console, auto_refresh=False, transient=True) if live else None
        self._shown = 0.0
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
        self.progress.update(event, now)
        text = self._text(event)
        if text:
            # Wrap lines on a terminal only, not in a file or a pipe.
            self.console.print(f"· {text}", highlight=False, markup=False, soft_wrap=self._live is None)
        if isinstance(event, PackStarted | PackResumed):
            self._shown = now
        elif isinstance(event, Stepped):
            self._show(now, lambda: draw(self.progress, self.console.height), self._step_line)
        elif isinstance(event, Advanced):
            self._advance(event, now)
        elif isinstance(event, Finished | Stage) and self._live:
            self._live.update(Text(""), refresh=True)

    def _text(self, event: Event) -> str:
        """The line to print for an event; empty for most events."""
        if isinstance(event, Stage):
            return event.text
        if isinstance(event, Planned):
            return plan_text(event)
        if isinstance(event, PackStarted):
            return f"training {self._pack_text(event)}"
        if isinstance(event, PackResumed):
            return f"resuming after step {event.step:,}: {self._pack_text(event)}"
        if isinstance(event, Halved):
            return halving_text(event)
        if isinstance(event, EpochEnded):
            trained = f"loss {event.training['total']:.4f} · " if event.training else ""
            held_out = "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in event.held_out.items())
            return f"epoch {event.epoch}/{event.epochs} · {trained}held out: {held_out}"
        if isinstance(event, RunEnded) and event.status in ("early-stopped", "diverged"):
            return f"{event.run} {event.status} at step {event.step}"
        return ""

    def _pack_text(self, event: PackStarted | PackResumed) -> str:
        progress = self.progress
        runs = f"{len(event.runs)} runs" if len(event.runs) > 1 else event.runs[0]
        pack = f"pack {progress.pack} of {progress.packs}, " if progress.packs > 1 else ""
        steps = f"{event.steps:,} steps of {event.batch_size} rows"
        return f"{pack}{runs}: {steps}, {event.train_rows:,} training rows"

    def _show(self, now: float, picture: Callable[[], RenderableType], line: Callable[[], str]) -> None:
        """Draw the picture on a terminal, else print the line, if enough time has passed since the last update."""
        if self._live and now - self._shown >= DRAW_EVERY:
            self._shown = now
            self._live.update(picture(), refresh=True)
        elif not self._live and now - self._shown > LINE_EVERY:
            self._shown = now
            self.console.print(f"· {line()}", highlight=False, soft_wrap=True)

    def _step_line(self) -> str:
        progress = self.progress
        losses = [line.loss for line in progress.runs.values() if line.loss is not None and not line.ended]
        parts = [
            f"step {progress.step:,}/{progress.steps:,}",
            f"loss {sum(losses) / max(1, len(losses)):.3f}",
            f"{progress.rows_per_second:,.0f} rows x runs/s",
        ]
        known = [(rank_of(line.last, line.last_loss), line) for line in progress.runs.values() if line.last is not None]
        if known:
            _, best = max(known, key=lambda pair: pair[0])
            parts.append(f"validation {best.last:.3f}" + (f" ({best.id})" if len(known) > 1 else ""))
        return " · ".join([*parts, f"{progress.seconds_left or 0:.0f} s left"])

    def _advance(self, event: Advanced, now: float) -> None:
        if event.task != self._task:
            self._task, self._first, self._started, self._shown = event.task, event.done, now, now
        left = (event.total - event.done) * (now - self._started) / max(1, event.done - self._first)
        note = f" · {event.note}" if event.note else ""
        text = f"{event.task} {event.done:,}/{event.total:,}{note}"
        bar = ProgressBar(total=max(1, event.total), completed=event.done, width=40)
        picture = Group(Text(f"{text} · {duration(left)} left"), bar)
        self._show(now, lambda: picture, lambda: f"{text} · {left:.0f} s left")
