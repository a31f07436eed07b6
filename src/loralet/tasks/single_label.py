"""Single-label classification: each text has exactly one of the labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from loralet.errors import DataError, listed_rows
from loralet.tasks.base import BaselineKind, Check, RawLabels, Scores
from loralet.tasks.calibration import TemperatureScaling, scale_temperature
from loralet.tasks.classes import ClassScores, Confusion, class_scores, confusion_counts, largest_confusions
from loralet.tasks.softmax import log_softmax, softmax

if TYPE_CHECKING:
    from torch import Tensor

NUMBER = re.compile(r"0|-?[1-9]\d*")
"""An integer in plain notation."""


@dataclass(frozen=True)
class SingleLabel:
    """See :class:`loralet.tasks.base.Task`. Targets are class numbers, int64.

    Args:
        labels: label names, in the order of the logits.
        values: the labels as stored in the training data, in the same order: strings or integers; default: ``labels``.
    """

    labels: tuple[str, ...]
    values: tuple[int | str, ...] = ()

    name = "single-label"
    problem_type = "single_label_classification"
    selection = "accuracy"
    metrics = ("accuracy", "macro_precision", "macro_recall", "macro_f1")

    @property
    def outputs(self) -> int:
        return len(self.labels)

    def baselines(self) -> Sequence[BaselineKind]:
        from loralet.tasks.baselines import LinearWords, Majority  # scikit-learn takes half a second to import

        return Majority, LinearWords

    @classmethod
    def of(cls, parts: Sequence[RawLabels], given: Sequence[str] = ()) -> SingleLabel:
        """The task of a data set.

        Labels are in the order of the names stored in the first file, if any. Otherwise integers are ordered by value,
        and strings alphabetically.

        Args:
            parts: labels of the training files.
            given: label names, in that order; default: the labels themselves.

        Raises:
            DataError: the number of names differs from the number of labels, or a name already belongs to another
                label.
        """
        train = parts[0]
        found = {value for raw in parts for value in raw.values.unique().to_pylist()}
        whole = all(isinstance(value, int) for value in found)
        present: list[int | str] = sorted(found if whole else set(map(str, found)))
        if train.names and whole:
            values: list[int | str] = list(range(len(train.names)))
            names = train.names
        else:
            values, names = present, tuple(map(str, present))
        if not given:
            return cls(names, tuple(values))
        if not whole and set(given) == set(present):
            return cls(tuple(given), tuple(given))
        if len(given) != len(values):
            raise DataError(
                f"{train.source}: --label-names gives {len(given)} names ({', '.join(given)}), the data has "
                f"{len(values)} labels ({', '.join(names)}); give one for each"
            )
        require_no_exchange(train.source, names, given)
        return cls(tuple(given), tuple(values))

    def encode(self, raw: RawLabels) -> np.ndarray:
        return _numbers(raw, list(self.values or self.labels))

    def encode_other(self, parts: Sequence[RawLabels]) -> list[np.ndarray]:
        """Targets of another data set's labels.

        Labels are the task's label names. If no label is such a name and the names are not numbers, labels are integer
        indices into the label names, in the order of the names stored in the file if it has them.

        Raises:
            DataError: a label that the task does not know.
        """
        found = {value for raw in parts for value in raw.values.unique().to_pylist()}
        values: list[int | str] = list(range(len(self.labels)))
        named = any(str(value) in self.labels for value in found) or all(map(NUMBER.fullmatch, self.labels))
        if named or not all(isinstance(value, int) for value in found):
            values = list(self.labels)
        elif sorted(parts[0].names) == sorted(self.labels):
            values = [parts[0].names.index(name) for name in self.labels]
        return [_numbers(raw, values) for raw in parts]

    def require_trainable(self, source: str, targets: np.ndarray) -> None:
        if len(np.unique(targets)) < 2:
            raise DataError(f"{source}: only one class ({self.labels[targets[0]]!r}); a classifier needs at least two")

    def strata(self, targets: np.ndarray) -> Int[np.ndarray, "rows"]:
        return targets

    def row_losses(self, logits: Float[Tensor, "k b c"], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy, and its gradient: softmax minus one-hot."""
        logarithms = logits.log_softmax(-1)
        chosen = targets.expand(logits.shape[:-1])[..., None]
        losses = -logarithms.gather(-1, chosen)[..., 0]
        gradient = logarithms.exp()
        return losses, gradient.scatter_add_(-1, chosen, gradient.new_full((1, 1, 1), -1.0).expand_as(chosen))

    def check(self, logits: Float[np.ndarray, "k m c"], targets: np.ndarray) -> list[Check]:
        right = (logits.argmax(-1) == targets).mean(-1)
        return [Check(*pair) for pair in zip(right.tolist(), self._mean_losses(logits, targets), strict=True)]

    def score(self, logits: Float[np.ndarray, "m c"], targets: np.ndarray) -> Scores:
        (loss,) = self._mean_losses(logits[None], targets)
        return self._scores(self.predicted(logits), targets, loss if isfinite(loss) else None)

    def score_predictions(self, predicted: np.ndarray, targets: np.ndarray) -> Scores:
        return self._scores(predicted, targets, None)

    def _mean_losses(self, logits: Float[np.ndarray, "k m c"], targets: np.ndarray) -> list[float]:
        chosen = log_softmax(logits)[:, np.arange(len(targets)), targets]
        means: list[float] = (-chosen.mean(-1, dtype=np.float64)).tolist()
        return means

    def _scores(self, predicted: np.ndarray, targets: np.ndarray, loss: float | None) -> Scores:
        """Accuracy with Wilson's 95 % interval (Wilson 1927; scipy's binomtest), and macro averages.

        Macro averages are those of scikit-learn with its default labels: over the classes that occur among the targets
        or the predictions. Of these, a class that is never predicted has precision 0, and one without rows recall 0.
        """
        from scipy.stats import binomtest
        from sklearn.metrics import precision_recall_fscore_support

        right = int((predicted == targets).sum())
        interval = binomtest(right, len(targets)).proportion_ci(0.95, method="wilson")
        precision, recall, f1, _ = precision_recall_fscore_support(
            targets, predicted, average="macro", zero_division=0.0
        )
        numbers = (right / len(targets), float(precision), float(recall), float(f1))
        ends = (float(interval.low), float(interval.high))
        return Scores(dict(zip(self.metrics, numbers, strict=True)), {"accuracy": ends}, loss)

    def probabilities(self, logits: Float[np.ndarray, "*axes c"]) -> Float[np.ndarray, "*axes c"]:
        return softmax(logits)

    def calibrate(self, logits: Float[np.ndarray, "m c"], targets: np.ndarray) -> TemperatureScaling | None:
        return scale_temperature(logits, targets) if np.isfinite(logits).all() else None

    def classes(self, predicted: np.ndarray, targets: np.ndarray) -> tuple[ClassScores, ...]:
        return class_scores(self.labels, predicted, targets)

    def confusions(self, predicted: np.ndarray, targets: np.ndarray, most: int) -> tuple[Confusion, ...]:
        return largest_confusions(self.labels, confusion_counts(len(self.labels), predicted, targets), most)

    def predicted(self, scores: Float[np.ndarray, "m c"]) -> np.ndarray:
        """The class with the highest score."""
        found: np.ndarray = scores.argmax(-1)
        return found

    def average(self, logits: Sequence[Float[np.ndarray, "m c"]]) -> Float[np.ndarray, "m c"]:
        members = np.stack([log_softmax(member) for member in logits])
        with np.errstate(invalid="ignore"):  # a member that diverged
            found: np.ndarray = np.logaddexp.reduce(members, axis=0) - np.log(members.dtype.type(len(logits)))
        return found

    def decode(self, probabilities: Sequence[float]) -> str:
        return self.labels[max(range(len(probabilities)), key=probabilities.__getitem__)]


def _numbers(raw: RawLabels, values: list[int | str]) -> np.ndarray:
    """The index of each label in ``values``.

    Raises:
        DataError: a label is not in ``values``.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted, labels = pa.array(values), raw.values
    if labels.type != wanted.type:
        labels, wanted = labels.cast(pa.string()), wanted.cast(pa.string())
    numbers = pc.index_in(labels, value_set=wanted)
    if numbers.null_count:
        unknown = pc.is_null(numbers).combine_chunks()
        rows = raw.rows.filter(unknown).to_pylist()
        strange = ", ".join(repr(value) for value in labels.filter(unknown).unique().to_pylist()[:5])
        raise DataError(
            f"{raw.source}: {listed_rows(rows)} with an unknown label ({strange}); "
            f"known from training: {', '.join(map(repr, values))}"
        )
    return np.asarray(numbers.to_numpy(), np.int64)


def require_no_exchange(source: str, names: Sequence[str], given: Sequence[str]) -> None:
    """Check that no label is renamed to the name of another label, which would silently swap predictions.

    Raises:
        DataError: a label is.
    """
    for old, new in zip(names, given, strict=True):
        if new != old and new in names:
            raise DataError(
                f"{source}: label {old!r} is renamed to {new!r}, but another label has that name; "
                f"the labels, in order, are {', '.join(names)}"
            )
