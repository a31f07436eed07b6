"""Registry of the sections, by task name."""

from __future__ import annotations

from loralet.errors import RunError
from loralet.report.sections.base import SectionKind
from loralet.report.sections.single_label import SingleLabelSection

SECTIONS: dict[str, SectionKind] = {"single-label": SingleLabelSection}


def section_of(task: str) -> SectionKind:
    """The section of a task.

    Raises:
        RunError: the report has no section for this task.
    """
    if task not in SECTIONS:
        raise RunError(f"the task of this run folder is {task!r}; a report supports {', '.join(SECTIONS)}")
    return SECTIONS[task]
