"""Training that starts from a trained run instead of initial values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loralet.errors import ConfigError
from loralet.training.loop import TrainingState

HEAD = ("classifier.weight", "classifier.bias")
"""The tensors with one row per class."""


@dataclass(frozen=True)
class WarmStart:
    """The start of a pack of one run, as a :class:`loralet.training.loop.PackSaver` that saves nothing.

    The rows of the classifier of a new class keep their initial values; all other parameters are those of the trained
    run. The optimiser starts anew.

    Args:
        tensors: tensors of the trained run by slot name.
        rows: for each class, its row in the trained classifier; None for a new class.
    """

    tensors: Mapping[str, Tensor]
    rows: Sequence[int | None]

    def begin(self) -> None:
        """Nothing is written."""

    def restore(self, state: TrainingState) -> None:
        """Replace the initial values.

        Raises:
            ConfigError: the trained run has another adapter, head or encoder.
        """
        initial = state.pack.extract(state.parameters, 0)
        self._require_fitting(initial)
        known = [i for i, row in enumerate(self.rows) if row is not None]
        trained = [row for row in self.rows if row is not None]
        for name, tensor in initial.items():
            given = self.tensors[name].to(tensor.device, torch.float32)
            if name in HEAD:
                tensor[known] = given[trained]
            else:
                tensor.copy_(given)
        state.parameters.copy_(state.pack.fill([initial]))

    def _require_fitting(self, initial: Mapping[str, Tensor]) -> None:
        def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
            return {name: tuple(tensor.shape)[name in HEAD :] for name, tensor in tensors.items()}

        if shapes(initial) != shapes(self.tensors):
            raise ConfigError(
                "warm_start: the trained classifier has another rank, other targets, or another method, head or "
                "encoder; set the parameters that it was trained with, or warm_start=False"
            )

    def between(self, state: TrainingState) -> None:
        """Nothing is saved."""

    def save(self) -> None:
        """Nothing is saved."""
