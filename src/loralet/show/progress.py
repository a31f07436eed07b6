"""Listeners: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from loralet.events import Advanced, Checked, EpochEnded, Event, PackStarted, RunEnded, Stage, Stepped

LINE_EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""


class ProgressView:
    """Shows events as they come; a context manager, called with each event.

    Args:
        console: where to; usually standard error, so that results can be piped.
        quiet: show nothing.
    """

    def __init__(self, console: Console, quiet: bool) -> None:
        self.console = console
        self.quiet = quiet
        self._live = console.is_terminal and not quiet
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not self._live,
        )
        self._task = TaskID(0)
        self._steps = 0
        self._rows = 0
        self._started = 0.0
        self._spoken = 0.0
        self._loss = 0.0
        self._accuracy: dict[str, float] = {}
        self._doing = ""
        self._first = 0

    def __enter__(self) -> ProgressView:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def __call__(self, event: Event) -> None:
        if self.quiet:
            return
        if isinstance(event, Stage):
            self.console.print(f"· {event.text}", highlight=False, markup=False)
        elif isinstance(event, PackStarted):
            self._start(event)
        elif isinstance(event, Stepped):
            self._step(event)
        elif isinstance(event, Checked):
            self._accuracy[event.run] = event.accuracy
        elif isinstance(event, Advanced):
            self._advance(event)
        elif isinstance(event, EpochEnded):
            trained = f"loss {event.training['total']:.4f} · " if event.training else ""
            held_out = "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in event.held_out.items())
            self.console.print(f"· epoch {event.epoch}/{event.epochs} · {trained}held out: {held_out}", highlight=False, soft_wrap=True)
        elif isinstance(event, RunEnded) and event.status != "finished":
            self.console.print(f"· {event.run} {event.status} at step {event.step}", highlight=False)

    def _start(self, event: PackStarted) -> None:
        self._steps, self._rows, self._started, self._accuracy = event.steps, 0, time.monotonic(), {}
        self._spoken = self._started
        count = f"{len(event.runs)} runs side by side" if len(event.runs) > 1 else event.runs[0]
        self.console.print(
            f"· training {count}: {event.steps:,} steps of {event.batch_size} rows, {event.train_rows:,} training rows", highlight=False
        )
        if self._live:
            for task in self._bar.task_ids:
                self._bar.remove_task(task)
            self._task = self._bar.add_task("training", total=event.steps, note="")

    def _advance(self, event: Advanced) -> None:
        now = time.monotonic()
        if event.task != self._doing:
            self._doing, self._first, self._started, self._spoken = event.task, event.done, now, now
            if self._live:
                for task in self._bar.task_ids:
                    self._bar.remove_task(task)
                self._task = self._bar.add_task(event.task, total=event.total, note="")
        if self._live:
            self._bar.update(self._task, completed=event.done, note=event.note)
        elif now - self._spoken > LINE_EVERY:
            self._spoken = now
            left = (event.total - event.done) * (now - self._started) / max(1, event.done - self._first)
            note = f" · {event.note}" if event.note else ""
            self.console.print(f"· {event.task} {event.done:,}/{event.total:,}{note} · {left:.0f} s left", highlight=False)

    def _step(self, event: Stepped) -> None:
        self._rows += event.rows * len(event.runs)
        self._loss = sum(event.losses) / len(event.losses)
        now = time.monotonic()
        if self._live:
            self._bar.update(self._task, completed=event.step, note=self._note(now))
        elif now - self._spoken > LINE_EVERY:
            self._spoken = now
            left = (self._steps - event.step) * (now - self._started) / event.step
            self.console.print(f"· step {event.step:,}/{self._steps:,} · {self._note(now)} · {left:.0f} s left", highlight=False)

    def _note(self, now: float) -> str:
        note = f"loss {self._loss:.3f} · {self._rows / max(1e-9, now - self._started):,.0f} rows x runs/s"
        if self._accuracy:
            best = max(self._accuracy, key=lambda run: self._accuracy[run])
            note += f" · validation {self._accuracy[best]:.3f}" + (f" ({best})" if len(self._accuracy) > 1 else "")
        return note
