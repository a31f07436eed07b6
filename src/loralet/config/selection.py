"""Which trained runs are meant, and where their backbone is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class OneRun:
    """A run folder or adapter, and which of its runs."""

    folder: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder, adapter folder (PEFT's too) or hub id."""
    run: str = ""
    """Id of a run of a study; the one that validation chose if empty."""


@dataclass(frozen=True)
class SeveralRuns:
    """One or more runs that decide together."""

    one: OneRun
    runs: tuple[str, ...] = ()
    """Ids of several runs of a study, which decide by their mean probability."""
    also: tuple[str, ...] = ()
    """Further run folders, adapter folders or hub ids, whose probabilities join the mean."""

    def problems(self) -> Iterator[str]:
        if self.one.run and self.runs:
            yield "run and runs are both given: give one of them"


@dataclass(frozen=True)
class BackboneOptions:
    """Where the backbone of a trained run is."""

    backbone: str = ""
    """Folder or hub id of the backbone; where the run says if empty."""
    any_backbone: bool = False
    """Use the backbone even if it is not the one that the run was trained on."""


@dataclass(frozen=True)
class ModelOptions:
    """How to load a trained classifier."""

    source: BackboneOptions = field(default_factory=BackboneOptions)
    label_names: tuple[str, ...] = ()
    """Names for the labels, in label order; the run's own if empty."""
