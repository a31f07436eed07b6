"""Checkpoints of a study: the results of its finished packs, and the state of the current pack.

The record of a pack contains its events, so metrics.jsonl can be written again. Before the pack ends it contains the
state between two steps, and after that the rows of the results.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from loralet.errors import RunError
from loralet.events import Stage
from loralet.interrupts import Interrupts
from loralet.runs.checkpoints import Checkpoints, Saved
from loralet.runs.folder import RunFolder
from loralet.runs.run import Run
from loralet.training.checkpoint import restore_rows, restore_state, save_rows, save_state
from loralet.training.loop import TrainingState
from loralet.training.row import Row
from loralet.training.session import Listen

EVENTS = "events"
"""Name of the events of a pack among the tensors of its record: lines of metrics.jsonl, as bytes."""
LARGEST_SHARE = 0.01
"""Largest share of the time that is spent on checkpoints; if writing is slow, they are written less often."""
WITH_SCORES = ("loralet.json", "README.md")
"""Files of an adapter folder that change when the test split is read."""


class StudySaver:
    """Saves the progress of a study, and restores it.

    Args:
        checkpoints: the checkpoints of the run folder.
        folder: the run folder.
        key: what the run began with (:attr:`loralet.runs.resume.Origin.key`).
        every: seconds between two checkpoints; 0: after each step.
        interrupts: the signals that end the training.
        listen: receives remarks that are not recorded.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        folder: RunFolder,
        key: str,
        every: float,
        interrupts: Interrupts,
        listen: Listen,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.checkpoints, self.folder, self.key = checkpoints, folder, key
        self.every, self.interrupts, self.listen, self.clock = every, interrupts, listen, clock

    def pack(self, number: int, runs: Sequence[Run]) -> PackRecord:
        """The record of a pack; a damaged one is announced and not used.

        Args:
            number: number of the pack, from 1.
            runs: its runs.

        Raises:
            RunError: the record belongs to another run.
        """
        name, saved = f"pack-{number}", None
        again = f"training again: {', '.join(run.id for run in runs)}"
        try:
            saved = self.checkpoints.read(name)
            known = [run.id for run in runs if (self.folder.folder / "adapters" / run.id).exists()]
            if saved is None and known:
                self.listen(Stage(f"{self.checkpoints.folder / name}.json: missing; {again}"))
        except RunError as error:
            self.listen(Stage(f"{error}; {again}"))
        if saved is not None and saved.values.get("key") != self.key:
            raise RunError(
                f"{self.checkpoints.folder / name}.json belongs to a run with other options or data; "
                "give another folder with --out"
            )
        return PackRecord(self, name, saved)


class PackRecord:
    """The record of one pack. It is a :class:`loralet.training.session.PackSaver`."""

    def __init__(self, study: StudySaver, name: str, saved: Saved | None) -> None:
        self.study, self.name, self._saved = study, name, saved
        self._interval, self._last = study.every, study.clock()
        self._state: TrainingState | None = None
        self._step = 0
        self._end: int | None = None

    @property
    def written(self) -> int:
        """Number of steps of the state in the record."""
        return self._step

    def rows(self) -> list[Row] | None:
        """The rows of the pack; None if it is not finished."""
        if self._saved is None or "rows" not in self._saved.values:
            return None
        with self._understanding():
            return restore_rows(self._saved)

    def begin(self) -> None:
        """Begin the pack in metrics.jsonl, with the events of its record."""
        self.study.folder.metrics.begin()
        if self._saved is not None:
            with self._understanding():
                self.study.folder.metrics.append_lines(self._saved.tensors[EVENTS].tobytes())

    def damaged(self, rows: Sequence[Row]) -> list[Row]:
        """The rows whose adapter folder is not as written; damage to more than its scores is announced."""
        assert self._saved is not None
        found: list[Row] = []
        for row in rows:
            folder = self._adapter(row.run.id)
            with self._understanding():
                sums = dict(self._saved.values["files"].get(row.run.id, {}))
            wrong = [name for name, sha256 in sums.items() if _sum(folder / name) != sha256]
            if set(wrong) - set(WITH_SCORES):
                self.study.listen(Stage(f"{folder}: {', '.join(wrong)} damaged or missing; written again"))
            found += [row] if wrong else []
        return found

    def finish(self, rows: Sequence[Row]) -> None:
        """Record the rows of the finished pack; their adapter folders are already written.

        Raises:
            OSError: the record cannot be written.
        """
        self.study.interrupts.deferring = True
        adapters = [folder for row in rows if (folder := self._adapter(row.run.id)).is_dir()]
        sums = {f.name: {path.name: _sum(path) for path in sorted(f.iterdir())} for f in adapters}
        self._write(save_rows(rows), {"files": sums})
        self.study.interrupts.deferring = False
        self.study.interrupts.check()

    def restore(self, state: TrainingState) -> None:
        if self._saved is not None:
            with self._understanding():
                restore_state(state, self._saved)
            self._step = state.step

    def between(self, state: TrainingState) -> None:
        study, self._state = self.study, state
        self._end = study.folder.metrics.size()  # events that follow are told again after a resume
        study.interrupts.deferring = bool(state.active)
        if study.interrupts.requested is not None or study.clock() - self._last >= self._interval:
            self.save()
        study.interrupts.check()

    def save(self) -> None:
        """Write the last state between two steps, if it is not written. A failure is announced; training continues."""
        state, study = self._state, self.study
        if state is None or state.step == self._step:
            return
        started = study.clock()
        try:
            self._write(save_state(state), {}, self._end)
        except OSError as error:
            previous = "the previous one is kept" if study.checkpoints.exists(self.name) else "there is none yet"
            study.listen(Stage(f"checkpoint not written ({error.filename}: {error.strerror}); {previous}"))
        else:
            self._step = state.step
        self._last = study.clock()
        self._interval = max(study.every, (self._last - started) / LARGEST_SHARE) if study.every else 0.0

    @contextmanager
    def _understanding(self) -> Iterator[None]:
        """Name the record in errors about values that no loralet has written; its checksum was right.

        Raises:
            RunError: there are such values.
        """
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            path = f"{self.study.checkpoints.folder / self.name}.json"
            reason = f"{type(error).__name__}: {error}"[:200]
            raise RunError(f"{path}: cannot be read ({reason}); delete it, and its pack is trained again") from error

    def _write(self, saved: Saved, values: dict[str, object], end: int | None = None) -> None:
        events = np.frombuffer(self.study.folder.metrics.since_begin(end), np.uint8)
        values = {"key": self.study.key} | values | dict(saved.values)
        self.study.checkpoints.write(self.name, Saved(values, {**saved.tensors, EVENTS: events}))

    def _adapter(self, run: str) -> Path:
        return self.study.folder.folder / "adapters" / run


def _sum(path: Path) -> str:
    """SHA-256 of a file; empty if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
