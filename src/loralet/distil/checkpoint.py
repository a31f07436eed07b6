"""Save and load the state of a distillation between two steps, as one file."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from loralet.atomic import new_file
from loralet.distil.train import DistilState
from loralet.errors import DataError, RunError
from loralet.events import EpochEnded, Event, Stage
from loralet.interrupts import Interrupts
from loralet.runs.metrics import NAME as METRICS

NAME = "checkpoint.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""State that torch's AdamW keeps for a tensor once it has had a gradient."""
LARGEST_SHARE = 0.01
"""Largest share of the time that is spent on checkpoints; if writing is slow, they are written less often."""


class DistilSaver:
    """Writes checkpoints of a distillation.

    Args:
        folder: the student's folder.
        state: the state, complete after every event.
        inputs: hash of what the distillation reads.
        every: seconds between two checkpoints; 0: after each step.
        interrupts: the signals that end the distillation.
        listen: receives remarks.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        state: DistilState,
        inputs: str,
        every: float,
        interrupts: Interrupts,
        listen: Callable[[Event], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.state, self.inputs, self.every = folder, state, inputs, every
        self.interrupts, self.listen, self.clock = interrupts, listen, clock
        self._interval, self._last = every, clock()

    def after(self, event: Event) -> None:
        """Write a checkpoint at the end of an epoch, if it is time, and after a signal. A failure is announced.

        Raises:
            Interrupted: a signal has arrived.
        """
        due = self.clock() - self._last >= self._interval
        if due or isinstance(event, EpochEnded) or self.interrupts.requested is not None:
            self._write()
        self.interrupts.check()

    def _write(self) -> None:
        started = self.clock()
        try:
            save_checkpoint(self.folder, self.state, (self.folder / METRICS).read_text(encoding="utf-8"), self.inputs)
        except OSError as error:
            previous = "the previous one is kept" if (self.folder / NAME).exists() else "there is none yet"
            self.listen(Stage(f"checkpoint not written ({error.filename}: {error.strerror}); {previous}"))
        self._last = self.clock()
        self._interval = max(self.every, (self._last - started) / LARGEST_SHARE) if self.every else 0.0


def save_checkpoint(folder: Path, state: DistilState, events: str, inputs: str) -> None:
    """Write the state atomically.

    Args:
        folder: the student's folder.
        state: the state between two steps.
        events: content of metrics.jsonl.
        inputs: hash of what the distillation reads.

    Raises:
        OSError: it cannot be written.
    """
    tensors = {f"weights/{name}": t.detach() for name, t in state.parameters.items()}
    for name, parameter in state.parameters.items():
        tensors |= {f"{moment}/{name}": t for moment, t in state.optimiser.state.get(parameter, {}).items()}
    place = {
        "epoch": state.epoch,
        "step": state.step,
        "place": state.place,
        "sums": state.sums,
        "seconds": state.seconds,
        "events": events,
        "inputs": inputs,
        "history": [dataclasses.asdict(e) for e in state.history],
    }
    with new_file(folder / NAME) as temporary:
        temporary.write_bytes(
            save({name: t.cpu().contiguous() for name, t in tensors.items()}, metadata={"place": json.dumps(place)})
        )


def load_checkpoint(folder: Path, state: DistilState, inputs: str) -> str:
    """Load a saved state into a new state of the same sizes.

    Args:
        folder: the student's folder.
        state: the new state.
        inputs: hash of what the distillation reads.

    Returns:
        The content of metrics.jsonl at the time of the checkpoint.

    Raises:
        RunError: the file is not a checkpoint of this student.
        DataError: the teacher, the texts or the start have changed since then.
    """
    path = folder / NAME
    try:
        with safe_open(path, framework="pt") as file:
            place = json.loads(file.metadata()["place"])
            saved = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a dict: it has no __iter__
        before = str(place["inputs"])
        with torch.no_grad():
            for name, parameter in state.parameters.items():
                parameter.copy_(saved[f"weights/{name}"])
                found = {moment: saved[f"{moment}/{name}"] for moment in MOMENTS if f"{moment}/{name}" in saved}
                if found:
                    state.optimiser.state[parameter] = {moment: t.to(parameter.device) for moment, t in found.items()}
        state.epoch, state.step, state.place = int(place["epoch"]), int(place["step"]), int(place["place"])
        state.sums = {str(name): float(value) for name, value in place["sums"].items()}
        state.seconds = float(place["seconds"])
        state.history = [EpochEnded(**event) for event in place["history"]]
        events = str(place["events"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise RunError(
            f"{path}: cannot be read as a checkpoint ({type(error).__name__}: {error}); start again in another folder"
        ) from error
    if before != inputs:
        raise DataError(
            f"the teacher, the texts or the start have changed since the distillation in {folder} began; "
            "restore them, or start anew with another folder for --out"
        )
    return events
