"""The protocol of a task. The training loop, the backends and the run folder use tasks only through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Protocol

import numpy as np
from jaxtyping import Float, Int

from loralet.tasks.calibration import TemperatureScaling
from loralet.tasks.classes import ClassScores, Confusion
from loralet.tasks.labels import LabelType

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor


@dataclass(frozen=True)
class RawLabels:
    """The labels of a table, as stored in its file.

    Args:
        source: the file, for messages.
        values: one canonical name per row (:mod:`loralet.data.label_values`), none missing.
        rows: row numbers in the file, for messages.
        names: names of integer labels, by label, if the file stores them; empty if there are none.
        kind: type of the labels in the file.
        unit: what the row numbers count: ``line`` or ``row``.
    """

    source: str
    values: pa.ChunkedArray
    rows: pa.Array
    names: tuple[str, ...] = ()
    kind: LabelType = "str"
    unit: str = "row"


@dataclass(frozen=True)
class Scores:
    """Metrics of predictions on a split.

    Args:
        values: metrics by name, the task's main metric first.
        intervals: lower and upper end of the 95 % confidence interval, for metrics that have one.
        loss: mean loss in nats; None if there are no probabilities (an SVM) or if it is not finite.
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
            ValueError: a metric has no value, an interval has only one end, or a number is not finite.
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
    """Evaluation of one adapter during training: the main metric of the task, and the mean loss in nats."""

    score: float
    loss: float


class Baseline(Protocol):
    """A model without an encoder, as a reference for the adapters."""

    @property
    def role(self) -> str:
        """The role in results.json; also the id."""
        ...

    @property
    def parameters(self) -> int:
        """Number of fitted parameters."""
        ...

    @property
    def seconds(self) -> float | None:
        """Fitting time in seconds; None if there is nothing to fit."""
        ...

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Predicted targets of the texts."""
        ...


class BaselineKind(Protocol):
    """How a baseline is fitted."""

    @property
    def description(self) -> str:
        """The model's name, for a progress message."""
        ...

    def fit(self, texts: Sequence[str], targets: np.ndarray) -> Baseline:
        """Fit to texts and their targets."""
        ...


class Task(Protocol):
    """The meaning of labels. A task has a fixed set of labels; targets are one numpy row per text.

    Only :meth:`row_losses` computes with torch.
    """

    @property
    def name(self) -> str:
        """The name in artifacts and results."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names, in the order of the logits."""
        ...

    @property
    def values(self) -> tuple[str, ...]:
        """The labels as the training data writes them, in the same order; equal to ``labels`` without other names."""
        ...

    @property
    def label_type(self) -> LabelType:
        """The type of the labels in the training data."""
        ...

    @property
    def selection(self) -> str:
        """The main metric, shown for every run: ``accuracy`` of ``--select-by``; higher is better."""
        ...

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of :meth:`score`, the main metric first."""
        ...

    @property
    def problem_type(self) -> str:
        """The name of the task in a configuration of transformers."""
        ...

    @property
    def outputs(self) -> int:
        """Number of logits per row."""
        ...

    def baselines(self) -> Sequence[BaselineKind]:
        """The reference models without an encoder."""
        ...

    def encode(self, raw: RawLabels) -> np.ndarray:
        """Targets of a table's labels.

        Raises:
            DataError: a label that the task does not know; the message names file and rows.
        """
        ...

    def encode_other(self, parts: Sequence[RawLabels], indices: bool = False) -> list[np.ndarray]:
        """Targets of another data set's labels, which may be written differently than in training.

        Args:
            parts: the labels of its files.
            indices: whether they are indices into the label names, from 0.

        Raises:
            DataError: a label that the task does not know.
        """
        ...

    def require_trainable(self, source: str, targets: np.ndarray) -> None:
        """Check that a classifier can be trained on the targets.

        Raises:
            DataError: it cannot; the message names the source.
        """
        ...

    def strata(self, targets: np.ndarray) -> Int[np.ndarray, "rows"]:
        """The stratum of each row, from 0. A split keeps the proportions of the strata."""
        ...

    def row_losses(self, logits: Float[Tensor, "k b c"], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Each row's loss in nats ``[k b]``, and its gradient with respect to the logits ``[k b c]``."""
        ...

    def check(self, logits: Float[np.ndarray, "k m c"], targets: np.ndarray) -> list[Check]:
        """Evaluate each adapter's logits during training."""
        ...

    def score(self, logits: Float[np.ndarray, "m c"], targets: np.ndarray) -> Scores:
        """All metrics of one adapter's logits."""
        ...

    def score_predictions(self, predicted: np.ndarray, targets: np.ndarray) -> Scores:
        """All metrics of predicted targets, without a loss."""
        ...

    def probabilities(self, logits: Float[np.ndarray, "*axes c"]) -> Float[np.ndarray, "*axes c"]:
        """Probabilities of logits."""
        ...

    def prediction_problems(
        self, targets: np.ndarray, probabilities: Mapping[str, np.ndarray], predicted: Mapping[str, np.ndarray]
    ) -> Iterator[str]:
        """Messages about saved predictions that this task cannot have made.

        Args:
            targets: saved targets of the rows.
            probabilities: saved outputs by run.
            predicted: saved predicted targets by run.
        """
        ...

    def calibrate(self, logits: Float[np.ndarray, "m c"], targets: np.ndarray) -> TemperatureScaling | None:
        """The temperature of a classifier, fitted on its logits of validation rows.

        None if the task's outputs are no logits of probabilities, or if they are not finite.
        """
        ...

    def classes(self, predicted: np.ndarray, targets: np.ndarray) -> tuple[ClassScores, ...]:
        """The scores of each class, given predicted targets; empty for a task without classes."""
        ...

    def confusions(self, predicted: np.ndarray, targets: np.ndarray, most: int) -> tuple[Confusion, ...]:
        """At most ``most`` confusions of classes, the most frequent first."""
        ...

    def predicted(self, scores: Float[np.ndarray, "m c"]) -> np.ndarray:
        """Predicted targets of logits or of probabilities."""
        ...

    def average(self, logits: Sequence[Float[np.ndarray, "m c"]]) -> Float[np.ndarray, "m c"]:
        """Logits of an ensemble: their probabilities are the mean of the members' probabilities."""
        ...

    def decode(self, probabilities: Sequence[float]) -> str:
        """The predicted label for the probabilities of one row."""
        ...
