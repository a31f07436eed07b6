"""The tasks by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from loralet.tasks.base import RawLabels, Task
from loralet.tasks.single_label import SingleLabel


class TaskKind(Protocol):
    """How a task comes to its labels."""

    def __call__(self, labels: tuple[str, ...]) -> Task:
        """The task of known label names, as an artifact records them."""
        ...

    def of(self, parts: Sequence[RawLabels], given: Sequence[str] = ()) -> Task:
        """The task of a data set: its training files' labels, and names for them where the user gives some.

        Raises:
            DataError: the names do not fit the labels.
        """
        ...


TASKS: dict[str, TaskKind] = {SingleLabel.name: SingleLabel}
