"""Single-label classification: each text has exactly one of the labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from loralet.errors import DataError, listed_rows
from loralet.tasks.base import BaselineKind, Check, RawLabels, Scores
from loralet.tasks.calibration import TemperatureScaling, scale_temperature
from loralet.tasks.classes import (
    ClassScores,
    Confusion,
    class_scores,
    confusion_counts,
    largest_confusions,
    prediction_problems,
)
from loralet.tasks.labels import LabelLookup, LabelType, common_type, sorted_labels
from loralet.tasks.softmax import log_softmax, softmax

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor


@dataclass(frozen=True)
class SingleLabel:
    """See :class:`loralet.tasks.base.Task`. Targets are class numbers, int64.

    Args:
        labels: label names, in the order of the logits.
        values: the labels as the training data writes them, by their canonical names and in the same order; default:
            ``labels``.
        label_type: the type of the labels in the training data.
    """

    labels: tuple[str, ...]
    values: tuple[str, ...] = ()
    label_type: LabelType = "str"

    name = "single-label"
    problem_type = "single_label_classification"
    selection = "accuracy"
    metrics = ("accuracy", "macro_precision", "macro_recall", "macro_f1")

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", self.values or self.labels)

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
        train, kind = parts[0], common_type(raw.kind for raw in parts)
        present = sorted_labels((name for raw in parts for name in raw.values.unique().to_pylist()), kind)
        if train.names and kind == "int":
            task = cls(train.names, tuple(map(str, range(len(train.names)))))
        else:
            task = cls(tuple(present), (), kind)
        if not given:
            return task
        if kind == "str" and set(given) == set(present):
            return cls(tuple(given))
        if len(given) != len(task.values):
            raise DataError(
                f"{train.source}: --label-names gives {len(given)} names ({', '.join(given)}), the data has "
                f"{len(task.values)} labels ({', '.join(task.labels)}); give one for each"
            )
        require_no_exchange(train.source, task.labels, given)
        return cls(tuple(given), task.values)

    def encode(self, raw: RawLabels) -> np.ndarray:
        return self.encode_other([raw])[0]

    def encode_other(self, parts: Sequence[RawLabels], indices: bool = False) -> list[np.ndarray]:
        """Targets of another data set's labels.

        The first of these readings that knows all labels is used: names that the file stores for its integers, the
        label names, and the labels as the training data writes them. Labels are compared by value: ``1.0`` is 1.

        Raises:
            DataError: a label that the task does not know.
        """
        readings = [_Reading(self.labels, translated=True), _Reading(self.labels), _Reading(self.values)]
        if indices:
            readings = [_Reading(tuple(map(str, range(len(self.labels)))))]
        known = [sum(len(part) - part.null_count for part in map(reading.distinct, parts)) for reading in readings]
        # The first of those that know most labels; if none knows any, the message lists the training data's labels.
        best = max(range(len(readings)), key=lambda i: (known[i], -i if known[i] else i))
        found = [readings[best].numbers(raw) for raw in parts]
        for raw, numbers in zip(parts, found, strict=True):
            if numbers.null_count:
                raise DataError(_unknown(raw, numbers, readings[best], self))
        return [np.asarray(numbers.to_numpy(), np.int64) for numbers in found]

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

    def prediction_problems(
        self, targets: np.ndarray, probabilities: Mapping[str, np.ndarray], predicted: Mapping[str, np.ndarray]
    ) -> Iterator[str]:
        return prediction_problems(len(self.labels), targets, probabilities, predicted)

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


@dataclass(frozen=True)
class _Reading:
    """A way to read labels: as these names, after translating integers by the names that their file stores or not."""

    names: tuple[str, ...]
    translated: bool = False

    def distinct(self, raw: RawLabels) -> pa.Array:
        """The number of each distinct label of a file, null for unknown ones."""
        import pyarrow as pa

        lookup = LabelLookup(self.names)
        labels = raw.values.unique().to_pylist()
        if self.translated:
            stored = dict(zip(map(str, range(len(raw.names))), raw.names, strict=True)) if raw.kind == "int" else {}
            labels = [stored.get(label) for label in labels]
        return pa.array([None if label is None else lookup.find(label) for label in labels], pa.int64())

    def numbers(self, raw: RawLabels) -> pa.ChunkedArray:
        """The number of each row's label."""
        import pyarrow.compute as pc

        return pc.take(self.distinct(raw), pc.index_in(raw.values, value_set=raw.values.unique()))


def _unknown(raw: RawLabels, numbers: pa.ChunkedArray, reading: _Reading, task: SingleLabel) -> str:
    """The message about labels that a classifier does not know."""
    import pyarrow.compute as pc

    unknown = pc.is_null(numbers).combine_chunks()
    strange = raw.values.filter(unknown).unique().to_pylist()
    listed = ", ".join(map(repr if raw.kind == "str" else str, strange[:5]))
    if reading.translated:
        known = ", ".join(f"{i} ({name})" for i, name in enumerate(raw.names))
    else:
        quoted = task.label_type == "str" and reading.names == task.labels
        known = ", ".join(map(repr if quoted else str, reading.names))
    hint = ""
    if raw.kind == "int" and {*strange} <= {*map(str, range(len(task.labels)))}:
        hint = "; if these are indices into the label names, from 0, set --labels-are-indices"
    folded = {name.casefold(): name for name in reading.names}
    alike = [folded[match] for name in strange[:5] for match in get_close_matches(name.casefold(), folded, 1, 0.8)]
    if alike and raw.kind == "str":
        hint = f"; similar: {', '.join(map(repr, dict.fromkeys(alike)))}"
    rows = listed_rows(raw.rows.filter(unknown).to_pylist(), raw.unit)
    return f"{raw.source}: {rows} with an unknown label ({listed}); known from training: {known}{hint}"


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
