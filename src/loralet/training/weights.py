"""Weights of the training rows in the loss: class weights, weights of single rows, and folds held out of a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from loralet.config.training import BALANCED, UNWEIGHTED
from loralet.errors import ConfigError
from loralet.tasks.base import Task


@dataclass(frozen=True)
class RowWeights:
    """The weight of each training row in each run's loss.

    A run's loss over a batch is ``sum(w * l) / sum(w)`` over its rows, as in ``torch.nn.CrossEntropyLoss(weight=...)``
    (:attr:`loralet.backends.batch.Batch.shares`). A batch in which all rows of a run have weight 0 has loss and
    gradient 0 in this run; the optimiser still takes a step, with decay and momentum.

    Args:
        rows: weight of each row in every run, not negative; None: all 1.
        folds: fold of each row, from 0; a row has weight 0 in the run that holds out its fold
            (:attr:`loralet.runs.run.Run.fold`). None: no folds.
    """

    rows: Float[Tensor, "m"] | None = None
    folds: Int[Tensor, "m"] | None = None

    def of(self, batch: Int[np.ndarray, "b"], held_out: Sequence[int | None]) -> Float[Tensor, "k b"] | None:
        """Weights of the rows of a batch; None if all are 1, so that the loss is computed as without weights.

        Args:
            batch: row numbers.
            held_out: the fold that each run holds out; None: none.
        """
        folds = None if all(fold is None for fold in held_out) else self.folds
        if self.rows is None and folds is None:
            return None
        numbers = torch.from_numpy(batch)
        own = torch.ones(len(batch)) if self.rows is None else self.rows[numbers]
        if folds is None:
            return own.repeat(len(held_out), 1)
        absent = torch.tensor([-1 if fold is None else fold for fold in held_out])
        return own * (folds[numbers] != absent[:, None])


def row_weights(
    targets: np.ndarray,
    task: Task,
    classes: Sequence[float] | None = None,
    rows: Float[np.ndarray, "m"] | None = None,
    folds: Int[np.ndarray, "m"] | None = None,
) -> RowWeights:
    """The weights of training rows: that of the row's class times that of the row.

    Weights are divided by their mean, and equal weights are none, because a loss does not depend on their scale.

    Args:
        targets: targets of the rows.
        task: the task.
        classes: weight of each label, in the order of ``task.labels``; None: all 1.
        rows: weight of each row; None: all 1.
        folds: fold of each row; None: no folds.
    """
    weights = np.ones(len(targets)) if classes is None else np.asarray(classes)[task.strata(targets)]
    weights = weights if rows is None else weights * rows
    held_out = None if folds is None else torch.from_numpy(folds)
    if not (weights != weights[0]).any():
        return RowWeights(folds=held_out)
    return RowWeights(torch.from_numpy(weights / weights.mean()).float(), held_out)


def class_weights(option: str, targets: np.ndarray, task: Task) -> tuple[float, ...] | None:
    """The weight of each label, in the order of ``task.labels``; None if all classes have weight 1.

    Args:
        option: ``none``; ``balanced``: rows / (classes * rows of the class), scikit-learn's definition
            (:func:`sklearn.utils.class_weight.compute_class_weight`), over the classes that have rows; else a JSON file
            that maps each label to its weight.
        targets: targets of the training rows.
        task: the task.

    Raises:
        ConfigError: the file cannot be read, is not a JSON object, or does not give each label one weight above 0.
    """
    if option == UNWEIGHTED:
        return None
    if option != BALANCED:
        return weights_by_label(_read(Path(option)), task.labels, f"--class-weight {option}")
    from sklearn.utils.class_weight import compute_class_weight

    strata = task.strata(targets)
    present = np.unique(strata)
    weights = np.ones(len(task.labels))
    weights[present] = compute_class_weight("balanced", classes=present, y=strata)
    return tuple(weights.tolist())


def weights_by_label(given: Mapping[str, object], labels: Sequence[str], source: str) -> tuple[float, ...]:
    """Validated weights, in the order of the labels.

    Args:
        given: weight by label.
        labels: label names.
        source: where the weights come from, for the message.

    Raises:
        ConfigError: an unknown label, a label without a weight, or a weight that is not a finite number above 0; the
            message lists all of them.
    """
    known = ", ".join(map(repr, labels))
    problems = [
        f"{label!r} is not a label of the data; its labels are {known}" for label in given if label not in labels
    ]
    problems += [f"label {label!r} has no weight; give one for each label" for label in labels if label not in given]
    problems += [
        f"the weight of {label!r} is {weight!r}: it must be a finite number above 0"
        for label, weight in given.items()
        if not _is_weight(weight)
    ]
    if problems:
        raise ConfigError("\n".join([f"{source}: cannot be used:", *(f"  - {problem}" for problem in problems)]))
    return tuple(float(given[label]) for label in labels)  # type: ignore[arg-type]  # checked above


def _is_weight(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= sys.float_info.max


def _read(path: Path) -> dict[str, object]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_pairs)
    except FileNotFoundError as error:
        raise ConfigError(
            f"--class-weight {path}: no such file; give {UNWEIGHTED}, {BALANCED}, or a JSON file of a weight per label"
        ) from error
    except OSError as error:
        raise ConfigError(f"--class-weight {path}: cannot be read ({error.strerror}); give a JSON file") from error
    except (ValueError, RecursionError) as error:  # encoding, syntax, nesting depth
        raise ConfigError(f"--class-weight {path}: not valid JSON ({error})") from error
    if not isinstance(raw, dict):
        raise ConfigError(f'--class-weight {path}: not an object; write {{"label": weight, ...}}')
    return raw


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; a label must not occur twice."""
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{', '.join(map(repr, twice))} occurs more than once")
    return dict(pairs)
