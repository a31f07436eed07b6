"""The protocol of a task. The training loop, the backends and the run folder know a task only through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class RawLabels:
    """The labels of a table as its file has them.

    Args:
        source: the file, for messages.
        values: one label a row: strings or integers, none missing.
        rows: each row's number in the file, for messages.
        names: label names that the file itself carries, by label; empty where it carries none.
    """

    source: str
    values: pa.ChunkedArray
    rows: pa.Array
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scores:
    """How good predictions on a split are.

    Args:
        values: metrics by name, the task's selection metric first.
        intervals: lower and upper end of the 95 % interval of those metrics that have one.
        loss: mean loss in nats; None where there are no probabilities (an SVM) or where it is not finite.
    """

    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    loss: float | None

    def __getitem__(self, metric: str) -> float:
        return self.values[metric]

    def to_json(self) -> dict[str, float | None]:
        """One flat object: each metric, its interval as ``NAME_low`` and ``NAME_high``, and ``loss``."""
        flat: dict[str, float | None] = {}
        for name, value in self.values.items():
            flat[name] = value
            if name in self.intervals:
                flat[f"{name}_low"], flat[f"{name}_high"] = self.intervals[name]
        return flat | {"loss": self.loss}

    @classmethod
    def from_json(cls, flat: Mapping[str, float | None]) -> Scores:
        """The inverse of :meth:`to_json`.

        Raises:
            ValueError: a metric is missing its value or an interval an end, or one is not a finite number.
        """
        strange = [name for name, value in flat.items() if value is not None and not _is_finite(value)]
        if strange:
            raise ValueError(f"{', '.join(strange)}: a finite number is expected")
        ends = {f"{name}_{end}" for name in flat for end in ("low", "high") if f"{name}_{end}" in flat}
        values: dict[str, float] = {}
        for name in (key for key in flat if key != "loss" and key not in ends):
            value = flat[name]
            if value is None:
                raise ValueError(f"{name} has no value")
            values[name] = value
        intervals: dict[str, tuple[float, float]] = {}
        for name in values:
            low, high = flat.get(f"{name}_low"), flat.get(f"{name}_high")
            if low is not None and high is not None:
                intervals[name] = (low, high)
            elif low is not None or high is not None:
                raise ValueError(f"the interval of {name} has one end")
        return cls(values, intervals, flat.get("loss"))


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


@dataclass(frozen=True)
class Check:
    """One adapter's quick measurement during training: the selection metric and the mean loss in nats."""

    score: float
    loss: float


class Baseline(Protocol):
    """A model without an encoder that an adapter has to beat."""

    @property
    def role(self) -> str:
        """As results.json has it; also its id."""
        ...

    @property
    def parameters(self) -> int:
        """Parameters that were fitted."""
        ...

    @property
    def seconds(self) -> float | None:
        """Time that fitting took; None where there is nothing to fit."""
        ...

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Predicted targets of the texts."""
        ...


class BaselineKind(Protocol):
    """How a baseline is fitted."""

    @property
    def description(self) -> str:
        """What is fitted, for a progress message."""
        ...

    def fit(self, texts: Sequence[str], targets: np.ndarray) -> Baseline:
        """Fit to texts and their targets."""
        ...


class Task(Protocol):
    """What the labels mean. A task object knows its labels; its targets are one numpy row per text."""

    @property
    def name(self) -> str:
        """As artifacts and results record it."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names, in the order of the logits."""
        ...

    @property
    def selection(self) -> str:
        """The metric that chooses among states, runs and configurations; higher is better."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics that :meth:`score` gives, the selection metric first."""
        ...

    @property
    def outputs(self) -> int:
        """Logits of a row."""
        ...

    def baselines(self) -> Sequence[BaselineKind]:
        """The models without an encoder that stand next to the adapters."""
        ...

    def encode(self, raw: RawLabels) -> np.ndarray:
        """Targets of a table's labels.

        Raises:
            DataError: a label that is not one of the task's; the message names file and rows.
        """
        ...

    def encode_other(self, parts: Sequence[RawLabels]) -> list[np.ndarray]:
        """Targets of another data set's labels, which may be written otherwise than in training.

        Raises:
            DataError: a label that the task does not know.
        """
        ...

    def require_trainable(self, source: str, targets: np.ndarray) -> None:
        """Check that something can be learned from these targets.

        Raises:
            DataError: it cannot; the message names the source.
        """
        ...

    def strata(self, targets: np.ndarray) -> Int[np.ndarray, "rows"]:
        """The group of each row, from 0, whose proportions a split keeps."""
        ...

    def row_losses(self, logits: Float[Tensor, "k b c"], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Each row's loss in nats ``[k b]``, and its gradient with respect to the logits ``[k b c]``."""
        ...

    def check(self, logits: Float[Tensor, "k m c"], targets: Tensor) -> list[Check]:
        """Quick measurement of each adapter's logits."""
        ...

    def score(self, logits: Float[Tensor, "m c"], targets: np.ndarray) -> Scores:
        """All metrics of one adapter's logits."""
        ...

    def score_predictions(self, predicted: np.ndarray, targets: np.ndarray) -> Scores:
        """All metrics of predicted targets, without a loss."""
        ...

    def probabilities(self, logits: Float[Tensor, "*axes c"]) -> Float[Tensor, "*axes c"]:
        """Probabilities of logits."""
        ...

    def average(self, logits: Sequence[Float[Tensor, "m c"]]) -> Float[Tensor, "m c"]:
        """Logits whose probabilities are the mean of the members' probabilities (an ensemble)."""
        ...

    def decode(self, probabilities: Sequence[float]) -> str:
        """The answer for one row's probabilities."""
        ...
