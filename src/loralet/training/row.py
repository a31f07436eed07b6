"""A row of the results under construction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from loralet.runs.results import RunResult
from loralet.runs.run import Run
from loralet.tasks.base import Scores, Task
from loralet.tasks.calibration import TemperatureScaling
from loralet.tasks.classes import ClassScores
from loralet.tasks.words import WordModel


@dataclass
class Row:
    """A row of the results under construction.

    Args:
        run: the configuration.
        trainable, total: number of trained parameters, and of all parameters.
        steps, converged_step, seconds, memory, status: results of training; seconds are the run's share of the pack's
            time, memory is in bytes.
        validation, test: scores on the whole splits, of the calibrated logits; with folds, ``validation`` is out of
            fold.
        calibration: the temperature of the logits; None if none was fitted.
        classes: scores of each class of a trained run, by split.
        tensors: trained tensors by slot name; empty for a baseline and for a run that diverged before its first check.
        predict: predicts targets of texts, for a model without an encoder.
        members: ids of the runs of an average, an ensemble or a hybrid.
        words: the linear model on words, of its own row.
        encoder_weight: weight of the encoder in a hybrid.
        held_out: predicted targets of the validation rows, or out-of-fold ones of the training rows.
    """

    run: Run
    trainable: int = 0
    total: int = 0
    steps: int | None = None
    converged_step: int | None = None
    seconds: float | None = None
    memory: int | None = None
    status: str = "finished"
    validation: Scores | None = None
    test: Scores | None = None
    calibration: TemperatureScaling | None = None
    classes: dict[str, tuple[ClassScores, ...]] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    predict: Callable[[Sequence[str]], np.ndarray] | None = None
    members: tuple[str, ...] = ()
    words: WordModel | None = None
    encoder_weight: float | None = None
    held_out: np.ndarray | None = None

    @property
    def temperature(self) -> float:
        """Divisor of the logits."""
        return self.calibration.temperature if self.calibration else 1.0

    def measure_validation(self, task: Task, logits: np.ndarray, targets: np.ndarray) -> None:
        """Fit the temperature on the validation split and score the calibrated logits; only the loss changes.

        Args:
            task: the task.
            logits: logits of the validation rows ``[m c]``.
            targets: their targets.
        """
        self.calibration = task.calibrate(logits, targets)
        scores = self.validation or task.score(logits, targets)
        (calibrated,) = task.check((logits / self.temperature)[None], targets)
        self.validation = replace(scores, loss=calibrated.loss if np.isfinite(calibrated.loss) else None)
        self.held_out = task.predicted(logits)
        self.classes["validation"] = task.classes(self.held_out, targets)

    def measure_test(self, task: Task, logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Score the calibrated logits of the test rows; returns their probabilities. Arguments as on validation."""
        if self.calibration and np.isfinite(logits).all():
            self.calibration = self.calibration.on_test(logits, targets)
        calibrated = logits / self.temperature
        self.test = task.score(calibrated, targets)
        self.classes["test"] = task.classes(task.predicted(calibrated), targets)
        return task.probabilities(calibrated)

    def result(self) -> RunResult:
        """Convert to a row of results.json; fields that do not apply are None."""
        run, adapted = self.run, self.run.role == "lora"
        trained = adapted or run.role in ("linear-probe", "full")
        return RunResult(
            id=run.id,
            model=run.model or None,
            role=run.role,
            adapter=run.adapter if adapted or run.role == "average" else None,
            learning_rate=run.lr if trained else None,
            lr_ratio=run.lr_ratio if trained else None,
            seed=run.seed if run.model and not self.members else None,
            members=self.members or None,
            encoder_weight=self.encoder_weight,
            trainable_parameters=self.trainable,
            total_parameters=self.total,
            steps=self.steps,
            converged_step=self.converged_step,
            train_seconds=self.seconds,
            peak_memory_bytes=self.memory,
            status=self.status,
            validation=self.validation,
            test=self.test,
            calibration=self.calibration,
            default=run.default,
        )
