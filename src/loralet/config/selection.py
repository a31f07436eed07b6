"""Selection of trained runs and of their backbone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class OneRun:
    """A run folder or adapter, and the id of one of its runs."""

    folder: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder, adapter folder (also from PEFT), exported or transformers classifier, or hub id."""
    run: str = ""
    """Run id within a study; the run selected on validation if empty."""


@dataclass(frozen=True)
class SeveralRuns:
    """One run, or an ensemble of runs."""

    one: OneRun
    runs: tuple[str, ...] = ()
    """Run ids within a study; their probabilities are averaged."""
    also: tuple[str, ...] = ()
    """More run folders, adapter folders or hub ids to include in the average."""

    def problems(self) -> Iterator[str]:
        if self.one.run and self.runs:
            yield "run and runs are both given: give one of them"


@dataclass(frozen=True)
class BackboneOptions:
    """Backbone of a trained run."""

    backbone: str = ""
    """Short name, hub id or folder of the backbone; as recorded in the run if empty."""
    any_backbone: bool = False
    """Allow a backbone other than the one that the run was trained on."""


@dataclass(frozen=True)
class ModelOptions:
    """Loading options of a trained classifier."""

    source: BackboneOptions = field(default_factory=BackboneOptions)
    label_names: tuple[str, ...] = ()
    """Label names, in label order; the run's names if empty."""
