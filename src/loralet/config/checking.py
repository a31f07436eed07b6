"""Options of the check of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from loralet.config.compute import ComputeOptions
from loralet.config.data import ColumnOptions, length_problems
from loralet.config.limits import seed_problems
from loralet.config.shared import ChosenLength, TrainingData
from loralet.config.training import TrainConfig


@dataclass(frozen=True)
class CheckConfig:
    """Options of ``loralet check``."""

    data: TrainingData = "news-mini"
    model: str = TrainConfig.model
    """Backbone of the classifiers that look for wrong labels."""
    out: str = "findings.csv"
    """CSV file for the findings."""
    folds: int = 5
    """Parts of the rows; each is classified by a classifier trained on the others."""
    seed: int = 0
    """Random seed of the classifiers and of the folds."""
    columns: ColumnOptions = field(default_factory=ColumnOptions)
    max_length: ChosenLength = None
    compute: ComputeOptions = field(default_factory=ComputeOptions)

    def problems(self) -> Iterator[str]:
        if not self.out:
            yield "out is empty: give a CSV file"
        if self.folds < 2:
            yield f"folds is {self.folds}: it must be at least 2"
        yield from seed_problems("seed", self.seed)
        yield from length_problems(self.max_length)
        for part in (self.columns, self.compute):
            yield from part.problems()
