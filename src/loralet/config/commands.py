"""Options of the commands that use trained runs, and of all long-running commands.

The positional arguments of a command follow the order of its nested classes. The parser puts the arguments of a class
before those of its nested classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from loralet.config.compute import ComputeOptions
from loralet.config.data import ColumnOptions, LabelledRows, TextInput
from loralet.config.limits import twice
from loralet.config.prediction import PredictionOptions
from loralet.config.presets import Preset
from loralet.config.selection import BackboneOptions, ModelOptions, OneRun, SeveralRuns
from loralet.config.shared import OUTPUT_FORMAT, JsonEvents, LabelsAreIndices, Private, Quiet


def fp32() -> ComputeOptions:
    """Default of the commands that predict: fp32, to reproduce the scores of training."""
    return ComputeOptions(precision="fp32")


@dataclass(frozen=True)
class RunFolderOption:
    """A run folder."""

    folder: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Options of ``loralet evaluate``."""

    runs: SeveralRuns
    rows: LabelledRows = field(default_factory=LabelledRows)
    model: ModelOptions = field(default_factory=ModelOptions)
    compute: ComputeOptions = field(default_factory=fp32)
    target_accuracy: float | None = None
    """Also print the --min-confidence with which predictions reach this accuracy, and the rows left."""
    format: Annotated[Literal["table", "json"], OUTPUT_FORMAT] = "table"

    def problems(self) -> Iterator[str]:
        for part in (self.runs, self.rows, self.compute):
            yield from part.problems()
        if self.target_accuracy is not None and not 0 < self.target_accuracy <= 1:
            yield f"target_accuracy is {self.target_accuracy}: it must be above 0 and at most 1"


@dataclass(frozen=True)
class PredictConfig:
    """Options of ``loralet predict``."""

    runs: SeveralRuns
    input: TextInput = field(default_factory=TextInput)
    output: PredictionOptions = field(default_factory=PredictionOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    compute: ComputeOptions = field(default_factory=fp32)
    format: Annotated[Literal["table", "jsonl", "csv"], OUTPUT_FORMAT] = "table"

    def problems(self) -> Iterator[str]:
        for part in (self.runs, self.input, self.output, self.compute):
            yield from part.problems()


@dataclass(frozen=True)
class AverageConfig:
    """Options of ``loralet average``."""

    folders: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")] = ()
    """Run folders (run selected on validation), adapter folders or hub ids; or one study (best seeds)."""
    runs: tuple[str, ...] = ()
    """Ids of the runs to average, if a single study is given."""
    out: str = ""
    """Folder for the averaged adapter; named by date under runs/ if empty."""
    source: BackboneOptions = field(default_factory=BackboneOptions)
    compute: ComputeOptions = field(default_factory=fp32)

    def problems(self) -> Iterator[str]:
        yield from self.compute.problems()
        if not self.folders:
            yield "no runs given: give at least two run folders, or one study"
        if self.runs and len(self.folders) != 1:
            yield f"runs needs exactly one study folder, but {len(self.folders)} folders are given"
        if len(self.runs) == 1:
            yield "runs has one id: an average needs at least two"


@dataclass(frozen=True)
class ShowConfig:
    """Options of ``loralet show``."""

    run: RunFolderOption


@dataclass(frozen=True)
class RunsConfig:
    """Options of ``loralet runs``."""

    folder: Annotated[Positional[str], arg(metavar="FOLDER")] = "runs"
    """Folder that contains run folders."""
    format: Annotated[Literal["table", "json"], OUTPUT_FORMAT] = "table"


@dataclass(frozen=True)
class CompareConfig:
    """Options of ``loralet compare``."""

    folders: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")] = ()
    """Run folders (run selected on validation), or folders under adapters/ of one."""
    data: str = ""
    """Labelled file, or folder with a test file, to evaluate all runs on; their saved test predictions if empty."""
    columns: ColumnOptions = field(default_factory=ColumnOptions)
    labels_are_indices: LabelsAreIndices = False
    out: str = ""
    """HTML page to write; with --report alone, named by date under runs/."""
    report: bool = False
    """Also write one HTML page."""
    compute: ComputeOptions = field(default_factory=fp32)
    format: Annotated[Literal["table", "json"], OUTPUT_FORMAT] = "table"

    def problems(self) -> Iterator[str]:
        for part in (self.columns, self.compute):
            yield from part.problems()
        if len(self.folders) < 2:
            yield f"folders is {' '.join(self.folders) or 'empty'}: give at least two"
        if repeated := twice(self.folders):
            yield f"folders contains duplicates: {repeated}"
        if self.labels_are_indices and not self.data:
            yield "labels_are_indices needs --data: saved predictions have the labels of their runs"


@dataclass(frozen=True)
class ResumeConfig:
    """Options of ``loralet resume``."""

    run: RunFolderOption
    quiet: Quiet = False
    json_events: JsonEvents = False


@dataclass(frozen=True)
class ReportConfig:
    """Options of ``loralet report``."""

    run: RunFolderOption
    out: str = ""
    """File of the report; report.html and report.md in the run folder if empty."""
    format: Literal["html", "md", "both"] = "both"
    """Formats to write. With both, the file extension is added for each."""
    texts: bool = True
    """Include rows, read from the data source again; --no-texts omits all texts."""
    json: str = ""
    """JSON file for the numbers of the report; not written if empty."""


@dataclass(frozen=True)
class ExportConfig:
    """Options of ``loralet export``."""

    one: OneRun
    to: Literal["hf", "onnx", "safetensors-bundle"] = "safetensors-bundle"
    """Format: transformers checkpoint with ONNX graphs, ONNX alone, or folder that loralet loads without a hub."""
    out: str = ""
    """Folder for the export; named by date under runs/ if empty."""
    int8: bool = False
    """With --to onnx: also write an int8 graph if accuracy drops by at most half a point."""
    onnx: bool = True
    """With --to hf: also write onnx/ (fp32, int8, fp16) for transformers.js and ONNX Runtime; --no-onnx omits it."""
    data: str = ""
    """Labelled file, or folder with a test file, to evaluate the graphs on; validation rows if empty."""
    columns: ColumnOptions = field(default_factory=ColumnOptions)
    labels_are_indices: LabelsAreIndices = False
    model: ModelOptions = field(default_factory=ModelOptions)
    compute: ComputeOptions = field(default_factory=fp32)
    push: str = ""
    """Upload the export to this repository on the hub (owner/name)."""
    private: Private = False
    dry_run: bool = False
    """With --push: print what would be uploaded, without uploading."""

    def problems(self) -> Iterator[str]:
        for part in (self.columns, self.compute):
            yield from part.problems()
        if self.labels_are_indices and not self.data:
            yield "labels_are_indices needs --data: the validation rows have their own labels"
        if self.int8 and self.to != "onnx":
            yield f"int8 needs --to onnx, not --to {self.to}"
        if not self.onnx and self.to != "hf":
            yield f"no_onnx needs --to hf, not --to {self.to}"
        if self.dry_run and not self.push:
            yield "dry_run needs --push: give a repository with --push"


@dataclass(frozen=True)
class Upload:
    """Destination of an upload to the hub."""

    repo: Annotated[Positional[str], arg(metavar="ID")]
    """Repository on the hub: owner/name. It is created if it does not exist."""
    private: Private = False
    dry_run: bool = False
    """Print what would be uploaded, without uploading."""
    base: bool = True
    """For an adapter on the bundled encoder: also upload that to ID-base, for PEFT; --no-base omits it."""


@dataclass(frozen=True)
class PushConfig:
    """Options of ``loralet push``."""

    one: OneRun
    upload: Upload


@dataclass(frozen=True)
class InspectConfig:
    """Options of ``loralet inspect``."""

    paths: Annotated[Positional[tuple[str, ...]], arg(metavar="PATH")] = ()
    """Models, adapters, run folders, data sets or hub ids; weights of several models are compared."""
    format: Annotated[Literal["table", "json"], OUTPUT_FORMAT] = "table"

    def problems(self) -> Iterator[str]:
        if not self.paths:
            yield "paths is empty: give at least one model, adapter, run folder or data set"


@dataclass(frozen=True)
class Interface:
    """Options file and progress output of long-running commands."""

    config: str = ""
    """TOML file of options, such as a run's config.toml; command-line flags take precedence."""
    quiet: Quiet = False
    json_events: JsonEvents = False


@dataclass(frozen=True)
class Planning:
    """Planning options of a study."""

    preset: Preset = ""
    """Named grid: two small BERTs with and without LoRA, or ranks by alphas; flags take precedence."""
    dry_run: bool = False
    """Print the plan with memory and time estimates, then exit."""
    report: bool = False
    """Also write the report, as ``loralet report`` does."""


@dataclass(frozen=True)
class ModelsConfig:
    """Options of ``loralet models``."""

    format: Annotated[Literal["table", "json"], OUTPUT_FORMAT] = "table"
