"""What happens during training, as plain records. The loop yields them; listeners show them and write them down."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

Status = Literal["finished", "early-stopped", "halved", "diverged"]


@dataclass(frozen=True)
class Stage:
    """A part of the work begins, or something about the data is worth knowing; in words."""

    text: str


@dataclass(frozen=True)
class PlannedPack:
    """A pack to come: its runs, the numbers each of them trains, its steps, and estimates of the memory that a step needs and of its seconds.

    ``shares``: from after a step on, what a step is thought to cost of one with all runs; it falls where runs leave at a rung of successive halving.
    """

    runs: tuple[str, ...]
    trainable: tuple[int, ...]
    steps: int
    batch_size: int
    memory_bytes: int
    seconds: float
    shares: tuple[tuple[int, float], ...] = ((0, 1.0),)


@dataclass(frozen=True)
class Planned:
    """What is about to be trained. Seconds are estimated from a few steps of the first pack.

    ``halving``: the estimates have the runs that leave at its rungs; ``stopping``: runs may stop of their own accord, which no estimate has.
    """

    packs: tuple[PlannedPack, ...]
    train_rows: int
    budget_bytes: int
    halving: bool = False
    stopping: bool = False


@dataclass(frozen=True)
class PackStarted:
    """A pack begins: the runs in it, how many steps they take and how many rows a step has."""

    runs: tuple[str, ...]
    steps: int
    batch_size: int
    train_rows: int


@dataclass(frozen=True)
class Stepped:
    """One optimiser step of every run still in the pack. ``losses`` are batch means in the order of ``runs``."""

    step: int
    runs: tuple[str, ...]
    losses: tuple[float, ...]
    lr_share: float
    rows: int


@dataclass(frozen=True)
class Checked:
    """One run was measured on the validation sample after ``step`` steps.

    ``score`` is the task's selection metric, ``loss`` the mean loss in nats, ``rows`` the size of the sample; ``best``
    says whether it is the run's best check so far.
    """

    step: int
    run: str
    score: float
    loss: float
    rows: int
    best: bool


@dataclass(frozen=True)
class RunEnded:
    """A run left its pack after ``step`` steps."""

    step: int
    run: str
    status: Status
    converged_step: int | None
    seconds: float


@dataclass(frozen=True)
class Halved:
    """A rung of successive halving: the LoRA runs of a pack, best first, and how many of them go on.

    ``rung`` counts from 1; ``scores`` are on the validation sample, in the order of ``runs``.
    """

    step: int
    rung: int
    runs: tuple[str, ...]
    scores: tuple[float, ...]
    kept: int


@dataclass(frozen=True)
class Finished:
    """All is done, and lies in this folder."""

    folder: str


@dataclass(frozen=True)
class Advanced:
    """Long work other than a pack's has come this far: ``done`` of ``total``; ``note`` says how it stands, in words."""

    task: str
    done: int
    total: int
    note: str = ""


@dataclass(frozen=True)
class EpochEnded:
    """An epoch of a distillation is over: mean losses by name, over its training batches and on the held-out texts.

    Epoch 0 is the student before its first step; it has no training losses.
    """

    epoch: int
    epochs: int
    step: int
    training: dict[str, float]
    held_out: dict[str, float]
    seconds: float


Event = Stage | Planned | PackStarted | Stepped | Checked | RunEnded | Halved | Advanced | EpochEnded | Finished


def event_line(event: Event) -> str:
    """An event as one line of JSON; a number that is not finite is null."""
    return json.dumps(_finite({"event": type(event).__name__} | dataclasses.asdict(event)))


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return value
