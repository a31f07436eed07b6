"""One row of a study's results, and the form in which results.json has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from loralet.data.sources import Split
from loralet.inference.evaluation import Scores
from loralet.training.packs import Role, Run


@dataclass
class Row:
    """A row as it comes together.

    Args:
        run: its configuration.
        trainable, total: trained numbers, and all numbers of the model.
        steps, converged_step, seconds, memory, status: how training went; seconds are the run's share of its pack's time, memory is in bytes.
        validation, test: its scores on the whole splits.
        tensors: what it learned (by slot name), empty for a baseline and for a run that diverged before its first check.
        predict: class numbers of a split's rows, for a model without an encoder.
        members: ids of the runs that an average or an ensemble is made of.
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
    tensors: dict[str, Tensor] = field(default_factory=dict)
    predict: Callable[[Split], np.ndarray] | None = None
    members: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The row as schema 1 has it; what does not apply is null."""
        run, adapted = self.run, self.run.role == "lora"
        trained = adapted or run.role in ("linear-probe", "full")
        validation = None
        if self.validation:
            validation = {name: getattr(self.validation, name) for name in ("accuracy", "macro_f1", "loss")}
        return {
            "id": run.id,
            "model": run.model or None,
            "role": run.role,
            "rank": run.rank if adapted or run.role == "linear-probe" else None,
            "alpha": run.alpha if adapted else None,
            "dropout": run.dropout if adapted else None,
            "targets": list(run.targets) if adapted else None,
            "scaling": run.scaling if adapted else None,
            "learning_rate": run.lr if trained else None,
            "seed": run.seed if run.model and not self.members else None,
            "members": list(self.members) or None,
            "trainable_parameters": self.trainable,
            "total_parameters": self.total,
            "steps": self.steps,
            "converged_step": self.converged_step,
            "train_seconds": self.seconds,
            "peak_memory_bytes": self.memory,
            "status": self.status,
            "validation": validation,
            "test": self.test.to_json() if self.test else None,
        }


def base_run(role: Role, id: str, model: str = "", seed: int = 0) -> Run:
    """A row that is not trained by us."""
    return Run(id, model, role, 0, 1.0, 0.0, (), "alpha/r", 0.0, seed)
