"""Training events as plain records. The training loop yields them; listeners display and log them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

Status = Literal["finished", "early-stopped", "halved", "diverged"]


@dataclass(frozen=True)
class Stage:
    """A stage of the work starts, or the data needs a remark; as text."""

    text: str


@dataclass(frozen=True)
class PlannedPack:
    """A planned pack: its runs, the trained parameters of each, its steps, and estimates of its memory and seconds.

    ``shares``: pairs of a step and the estimated cost of each step after it, as a share of a step with all runs. The
    share falls when runs leave at a rung of successive halving.
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
    """The training plan. Seconds are estimated from a few steps of the first pack.

    ``halving``: the estimates account for runs that leave at the rungs of successive halving. ``stopping``: runs may
    stop early; the estimates do not account for that.
    """

    packs: tuple[PlannedPack, ...]
    train_rows: int
    budget_bytes: int
    halving: bool = False
    stopping: bool = False


@dataclass(frozen=True)
class PackStarted:
    """A pack starts: its runs, its number of steps, and the rows per step."""

    runs: tuple[str, ...]
    steps: int
    batch_size: int
    train_rows: int


@dataclass(frozen=True)
class PackResumed:
    """The training of a pack continues after ``step`` steps: its remaining runs. Not recorded in metrics.jsonl."""

    step: int
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
    """One run was evaluated on the validation sample after ``step`` steps.

    ``score`` is the task's main metric, ``loss`` the mean loss in nats, ``rows`` the size of the sample, and ``best``
    whether this is the run's best check so far. ``selected`` is the value of ``--select-by``, higher is better (the
    negative loss for ``loss``); None: the score.
    """

    step: int
    run: str
    score: float
    loss: float
    rows: int
    best: bool
    selected: float | None = None

    @property
    def value(self) -> float:
        """The value that selects."""
        return self.score if self.selected is None else self.selected


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
    """A rung of successive halving: the LoRA runs of a pack, best first, and how many of them continue.

    ``rung`` counts from 1; ``scores`` are on the validation sample, in the order of ``runs``.
    """

    step: int
    rung: int
    runs: tuple[str, ...]
    scores: tuple[float, ...]
    kept: int


@dataclass(frozen=True)
class Finished:
    """All work is done; the results are in ``folder``."""

    folder: str


@dataclass(frozen=True)
class Advanced:
    """Progress of work other than training a pack: ``done`` of ``total``; ``note`` is a short status text."""

    task: str
    done: int
    total: int
    note: str = ""


@dataclass(frozen=True)
class EpochEnded:
    """An epoch of a distillation ended: mean losses by name, on its training batches and on the held-out texts.

    Epoch 0 is the student before its first step; it has no training losses.
    """

    epoch: int
    epochs: int
    step: int
    training: dict[str, float]
    held_out: dict[str, float]
    seconds: float


Event = (
    Stage
    | Planned
    | PackStarted
    | PackResumed
    | Stepped
    | Checked
    | RunEnded
    | Halved
    | Advanced
    | EpochEnded
    | Finished
)


def event_line(event: Event) -> str:
    """An event as one line of JSON. Non-finite numbers become null."""
    return json.dumps(_finite({"event": type(event).__name__} | dataclasses.asdict(event)))


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return value
