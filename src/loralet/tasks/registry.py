"""The registry of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from loralet.tasks.base import RawLabels, Task
from loralet.tasks.labels import LabelType
from loralet.tasks.single_label import SingleLabel


class TaskKind(Protocol):
    """How a task is created."""

    def __call__(self, labels: tuple[str, ...], values: tuple[str, ...] = (), label_type: LabelType = "str") -> Task:
        """The task with the given label names, values and type, as stored in an artifact."""
        ...

    def of(self, parts: Sequence[RawLabels], given: Sequence[str] = ()) -> Task:
        """The task of a data set, from the labels of its training files and optional label names from the user.

        Raises:
            DataError: the names do not match the labels.
        """
        ...


TASKS: dict[str, TaskKind] = {SingleLabel.name: SingleLabel}
