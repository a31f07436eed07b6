"""Single-label classification with targets of teachers: a probability for each class beside the label."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from loralet.tasks.single_label import SingleLabel
from loralet.tasks.softmax import log_softmax, softmax

if TYPE_CHECKING:
    from torch import Tensor

NO_LABEL = -1.0
"""Label of a row that has only the teachers' probabilities."""


@dataclass(frozen=True)
class Taught(SingleLabel):
    """A single-label task whose training targets are those of :func:`taught_targets`.

    All other methods take class numbers, as those of :class:`SingleLabel`.

    Args:
        temperature: temperature T of both distributions in the teachers' part of the loss.
        soft_weight: weight w of the teachers' part in the loss of a row that has a label.
    """

    temperature: float = field(kw_only=True)
    soft_weight: float = field(kw_only=True)

    def row_losses(self, logits: Float[Tensor, "k b c"], targets: Float[Tensor, "b c1"]) -> tuple[Tensor, Tensor]:
        """The loss of distillation (Hinton, Vinyals and Dean 2015), and its gradient.

        It is ``w T^2 KL(p || softmax(z / T)) + (1 - w) CE(y, softmax(z))`` for logits z, teachers' probabilities p and
        label y; w is 1 for a row without a label. The gradient is
        ``w T (softmax(z / T) - p) + (1 - w) (softmax(z) - onehot(y))``.

        Args:
            logits: of k runs and b rows.
            targets: rows of :func:`taught_targets`, one column more than there are classes.
        """
        wanted, labels = targets[:, :-1].to(logits.dtype), targets[:, -1]
        known = labels != NO_LABEL
        soft = (~known).to(logits.dtype).clamp(min=self.soft_weight)[:, None]
        chosen = labels.long().clamp(min=0).expand(logits.shape[:-1])[..., None]
        own, hard = (logits / self.temperature).log_softmax(-1), logits.log_softmax(-1)
        divergence = (wanted * (wanted.clamp(min=1e-30).log() - own)).sum(-1)
        losses = soft[:, 0] * self.temperature**2 * divergence - (1 - soft[:, 0]) * hard.gather(-1, chosen)[..., 0]
        ones = logits.new_zeros(logits.shape).scatter_(-1, chosen, 1.0)
        return losses, soft * self.temperature * (own.exp() - wanted) + (1 - soft) * (hard.exp() - ones)


def taught(task: SingleLabel, temperature: float, soft_weight: float) -> Taught:
    """A copy of a task for training with teachers; arguments as for :class:`Taught`."""
    return Taught(task.labels, task.values, task.label_type, temperature=temperature, soft_weight=soft_weight)


def taught_targets(
    task: Taught, logarithms: Float[np.ndarray, "m c"], targets: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "m c1"]:
    """Training targets: the teachers' probabilities at the task's temperature, then the class number, or -1.

    Args:
        task: the task.
        logarithms: logits of the teachers, which may differ from log-probabilities by a constant per row.
        targets: class numbers of the first rows; the others have no label.
    """
    labels = np.full((len(logarithms), 1), NO_LABEL, np.float32)
    labels[: len(targets), 0] = targets
    soft = softmax(log_softmax(logarithms.astype(np.float64)) / task.temperature)
    return np.concatenate([soft.astype(np.float32), labels], 1)
