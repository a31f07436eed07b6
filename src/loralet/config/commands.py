"""Options of the commands that work on what was trained, and of all long work.

A command's positional arguments come in the order of its nested classes: the parser puts a class's own before those of the
classes nested in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from loralet.config.compute import ComputeOptions
from loralet.config.data import ColumnOptions, LabelledRows, TextInput
from loralet.config.presets import Preset
from loralet.config.selection import BackboneOptions, ModelOptions, OneRun, SeveralRuns


def fp32() -> ComputeOptions:
    """Commands that predict compute in fp32 unless told otherwise, so that they give the figures of training."""
    return ComputeOptions(precision="fp32")


@dataclass(frozen=True)
class EvaluateConfig:
    """Options of ``loralet evaluate``."""

    runs: SeveralRuns
    rows: LabelledRows = field(default_factory=LabelledRows)
    model: ModelOptions = field(default_factory=ModelOptions)
    compute: ComputeOptions = field(default_factory=fp32)
    format: Literal["table", "json"] = "table"
    """Output format."""

    def problems(self) -> Iterator[str]:
        for part in (self.runs, self.rows, self.compute):
            yield from part.problems()


@dataclass(frozen=True)
class PredictConfig:
    """Options of ``loralet predict``."""

    runs: SeveralRuns
    input: TextInput = field(default_factory=TextInput)
    model: ModelOptions = field(default_factory=ModelOptions)
    compute: ComputeOptions = field(default_factory=fp32)
    format: Literal["table", "jsonl", "csv"] = "table"
    """Output format."""

    def problems(self) -> Iterator[str]:
        for part in (self.runs, self.compute):
            yield from part.problems()


@dataclass(frozen=True)
class AverageConfig:
    """Options of ``loralet average``."""

    folders: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")] = ()
    """Run folders (the run that validation chose), adapter folders or hub ids; or one study (its best seeds)."""
    runs: tuple[str, ...] = ()
    """Ids of the runs to average, if one study is named."""
    out: str = ""
    """Folder for the averaged adapter; named by date under runs/ if empty."""
    source: BackboneOptions = field(default_factory=BackboneOptions)
    compute: ComputeOptions = field(default_factory=fp32)

    def problems(self) -> Iterator[str]:
        yield from self.compute.problems()
        if not self.folders:
            yield "no run named: name two run folders or more, or one study"
        if self.runs and len(self.folders) != 1:
            yield f"runs are those of one study, but {len(self.folders)} folders are named"
        if len(self.runs) == 1:
            yield "runs names one run: an average needs two"


@dataclass(frozen=True)
class ShowConfig:
    """Options of ``loralet show``."""

    folder: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder."""


@dataclass(frozen=True)
class ReportConfig:
    """Options of ``loralet report``."""

    folder: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder."""
    out: str = ""
    """File of the report; report.html and report.md in the run folder if empty."""
    format: Literal["html", "md", "both"] = "both"
    """Formats to write. With both, the file extension is added for each."""
    texts: bool = True
    """Show test rows, read again from the data source. --no-texts leaves all texts out."""
    json: str = ""
    """File for the numbers of the report; none if empty."""


@dataclass(frozen=True)
class ExportConfig:
    """Options of ``loralet export``."""

    one: OneRun
    to: Literal["hf", "onnx", "safetensors-bundle"] = "safetensors-bundle"
    """A checkpoint for transformers, an ONNX graph, or one folder that loralet loads without hub or cache."""
    out: str = ""
    """Folder for the export; named by date under runs/ if empty."""
    int8: bool = False
    """With --to onnx: also an 8-bit graph, kept if its accuracy drops by at most half a point."""
    data: str = ""
    """Labelled rows to measure the graph on: file or folder with a test file; the validation rows if empty."""
    columns: ColumnOptions = field(default_factory=ColumnOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    compute: ComputeOptions = field(default_factory=fp32)
    push: str = ""
    """Upload the export to this repository on the hub (owner/name)."""
    private: bool = False
    """Make the repository private."""
    dry_run: bool = False
    """With --push: print what would be sent, and send nothing."""

    def problems(self) -> Iterator[str]:
        for part in (self.columns, self.compute):
            yield from part.problems()
        if self.int8 and self.to != "onnx":
            yield f"int8 needs --to onnx, not --to {self.to}"
        if self.dry_run and not self.push:
            yield "dry_run shows what --push would send: name a repository with --push"


@dataclass(frozen=True)
class Upload:
    """What to upload to the hub, and where."""

    repo: Annotated[Positional[str], arg(metavar="ID")]
    """Repository on the hub: owner/name. It is created if it does not exist."""
    private: bool = False
    """Make the repository private."""
    dry_run: bool = False
    """Print what would be sent, and send nothing."""


@dataclass(frozen=True)
class PushConfig:
    """Options of ``loralet push``."""

    one: OneRun
    upload: Upload


@dataclass(frozen=True)
class InspectConfig:
    """Options of ``loralet inspect``."""

    paths: Annotated[Positional[tuple[str, ...]], arg(metavar="PATH")] = ()
    """Models, adapters, run folders, data sets or hub ids; the weights of two or more models are compared."""
    format: Literal["table", "json"] = "table"
    """Output format."""

    def problems(self) -> Iterator[str]:
        if not self.paths:
            yield "paths is empty: name at least one model, adapter, run folder or data set"


@dataclass(frozen=True)
class Interface:
    """How long work reports its progress."""

    config: str = ""
    """TOML file of options, such as a run's config.toml; flags given on the command line win."""
    quiet: bool = False
    """Show no progress."""
    json_events: bool = False
    """Print every event as one line of JSON on standard output, and nothing else."""


@dataclass(frozen=True)
class Planning:
    """How a study is planned."""

    preset: Preset = ""
    """Named grid: both small BERTs with and without LoRA, or ranks against alphas; flags given win."""
    dry_run: bool = False
    """Print the plan with estimates of memory and time, and stop."""
    report: bool = False
    """Write the report too, as ``loralet report`` does."""
