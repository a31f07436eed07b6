"""Options of teaching: a small classifier from larger ones, labelled rows and texts without labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

from loralet.config.training import TrainConfig, TrainingOptions


def _student() -> TrainingOptions:
    return TrainingOptions(head="mean", epochs=8.0)


MOST_MIXTURES = 1000
"""Largest number of mixtures per text, which are all held in memory."""


@dataclass(frozen=True)
class TeachConfig(TrainConfig):
    """Options of ``loralet teach``: those of ``loralet train`` for the student, its teachers and their texts."""

    training: TrainingOptions = field(default_factory=_student)
    teacher: tuple[str, ...] = ()
    """Run folders of classifiers with the same labels, or encoders to fine-tune on DATA first (see loralet models)."""
    unlabelled: tuple[str, ...] = ()
    """Files of texts without labels: tables with a text column, or one text per line."""
    mixtures: int = 1
    """Synthetic texts per text: its first words joined to the last words of another; 0: none."""
    soft_weight: float = 0.7
    """Weight of the teachers' probabilities in the loss of labelled rows; the label has the rest."""
    temperature: float = 2.0
    """Temperature of the teachers' and the student's probabilities in the teachers' part of the loss."""

    def problems(self) -> Iterator[str]:
        if not self.teacher:
            yield "teacher is empty: give run folders, or encoders such as minilm-l6, with --teacher"
        yield from super().problems()
        if self.folds:
            yield f"folds is {self.folds}: teachers know the labels of every fold; give a validation file, or folds 0"
        if not 0 <= self.mixtures <= MOST_MIXTURES:
            yield f"mixtures is {self.mixtures}: it must be from 0 (none) to {MOST_MIXTURES}"
        if not 0 <= self.soft_weight <= 1:
            yield f"soft_weight is {self.soft_weight}: it must be at least 0 and at most 1"
        if not 0 < self.temperature < inf:
            yield f"temperature is {self.temperature}: it must be above 0 and finite"

    @property
    def number_of_folds(self) -> int:
        """No folds: teachers know the labels of every fold."""
        return 0
