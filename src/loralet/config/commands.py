"""The commands that work on what was trained, and what all long work shares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from loralet.config.limits import several_problems, thread_problems
from loralet.config.presets import Preset
from loralet.config.training import Precision


@dataclass(frozen=True)
class EvaluateConfig:
    """Everything ``loralet evaluate`` needs."""

    folder: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder, or one of the adapter folders in it."""
    data: Annotated[Positional[str], arg(metavar="DATA")] = ""
    """A labelled file or a folder with a test file; the run's own test split when empty (one more read of it, which is recorded)."""
    run: str = ""
    """Id of a run of a study; the one that validation chose when empty."""
    runs: tuple[str, ...] = ()
    """Ids of several runs of a study, which together decide by their mean probability."""
    also: tuple[str, ...] = ()
    """Further run folders, adapter folders or hub ids, whose probabilities join the mean."""
    text_column: str = ""
    """Column that holds the text; found by its usual names when empty."""
    label_column: str = ""
    """Column that holds the label; found by its usual names when empty."""
    columns: tuple[str, ...] = ()
    """Column names, in order, of a CSV or TSV file that has no header row."""
    backbone: str = ""
    """Folder or hub id of the backbone; where the run says when empty."""
    any_backbone: bool = False
    """Take the backbone even if it is not the one that the run was trained on."""
    label_names: tuple[str, ...] = ()
    """Names for the labels, in label order; the run's own when empty."""
    threads: int | None = None
    """Processor threads; none: what torch chooses."""
    format: Literal["table", "json"] = "table"
    """What to print."""

    def problems(self) -> Iterator[str]:
        yield from thread_problems(self.threads)
        yield from several_problems(self.run, self.runs)
        if len(set(self.columns)) != len(self.columns):
            yield f"columns names a column twice: {', '.join(self.columns)}"


@dataclass(frozen=True)
class PredictConfig:
    """Everything ``loralet predict`` needs."""

    folder: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder, or one of the adapter folders in it."""
    texts: Annotated[Positional[tuple[str, ...]], arg(metavar="TEXT")] = ()
    """Texts to classify; without any, --file or standard input is read line by line, or on a terminal the bundled news-mini is shown."""
    file: str = ""
    """A file of texts: a CSV, TSV, JSONL or Parquet table with a text column, or else one text a line; - is standard input."""
    run: str = ""
    """Id of a run of a study; the one that validation chose when empty."""
    runs: tuple[str, ...] = ()
    """Ids of several runs of a study, which together decide by their mean probability."""
    also: tuple[str, ...] = ()
    """Further run folders, adapter folders or hub ids, whose probabilities join the mean."""
    format: Literal["table", "jsonl", "csv"] = "table"
    """What to print."""
    text_column: str = ""
    """Column of the file that holds the text; found by its usual names when empty."""
    precision: Precision = "fp32"
    """Arithmetic of the encoder; auto takes bf16 where the processor has it."""
    backbone: str = ""
    """Folder or hub id of the backbone; where the run says when empty."""
    any_backbone: bool = False
    """Take the backbone even if it is not the one that the run was trained on."""
    label_names: tuple[str, ...] = ()
    """Names for the labels, in label order; the run's own when empty."""
    threads: int | None = None
    """Processor threads; none: what torch chooses."""

    def problems(self) -> Iterator[str]:
        yield from thread_problems(self.threads)
        yield from several_problems(self.run, self.runs)


@dataclass(frozen=True)
class AverageConfig:
    """Everything ``loralet average`` needs."""

    folders: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")] = ()
    """Run folders (of each, the run that validation chose), adapter folders or hub ids; or one study, for the seeds of its best configuration."""
    runs: tuple[str, ...] = ()
    """Ids of runs of a study, where one is named."""
    out: str = ""
    """Folder for the averaged adapter; named by date under runs/ when empty."""
    backbone: str = ""
    """Folder or hub id of the backbone; where the runs say when empty."""
    any_backbone: bool = False
    """Take the backbone even if it is not the one that the runs were trained on."""
    threads: int | None = None
    """Processor threads; none: what torch chooses."""

    def problems(self) -> Iterator[str]:
        yield from thread_problems(self.threads)
        if not self.folders:
            yield "no run named: name two run folders or more, or one study"
        if self.runs and len(self.folders) != 1:
            yield f"runs are those of one study; {len(self.folders)} folders are named"
        if len(self.runs) == 1:
            yield "runs names one run: a mean needs two"


@dataclass(frozen=True)
class ShowConfig:
    """Everything ``loralet show`` needs."""

    folder: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder."""


@dataclass(frozen=True)
class ReportConfig:
    """Everything ``loralet report`` needs."""

    folder: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder."""
    out: str = ""
    """File of the report; report.html and report.md in the run folder when empty. Of both formats, each takes its own ending."""
    format: Literal["html", "md", "both"] = "both"
    """What to write. The page is one file; Markdown has its pictures in a folder beside it."""
    texts: bool = True
    """Show test rows; their texts are read again from the data source. --no-texts leaves every text out."""
    json: str = ""
    """File for the numbers of the report; none when empty."""


@dataclass(frozen=True)
class ExportConfig:
    """Everything ``loralet export`` needs."""

    folder: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder, one of the adapter folders in it, an adapter of PEFT's, or a hub id."""
    to: Literal["hf", "onnx", "safetensors-bundle"] = "safetensors-bundle"
    """A checkpoint for transformers, an ONNX graph, or one folder that loralet loads without hub or cache."""
    out: str = ""
    """Folder for the export; named by date under runs/ when empty."""
    run: str = ""
    """Id of a run of a study; the one that validation chose when empty."""
    int8: bool = False
    """With --to onnx: also the graph in 8-bit integers, kept if its accuracy drops by no more than half a point."""
    data: str = ""
    """Labelled rows to measure the graph on, a file or a folder with a test file; the run's validation rows when empty."""
    text_column: str = ""
    """Column of the data that holds the text; found by its usual names when empty."""
    label_column: str = ""
    """Column of the data that holds the label; found by its usual names when empty."""
    columns: tuple[str, ...] = ()
    """Column names, in order, of a CSV or TSV file that has no header row."""
    label_names: tuple[str, ...] = ()
    """Names for the labels, in label order; the run's own when empty."""
    backbone: str = ""
    """Folder or hub id of the backbone; where the run says when empty."""
    any_backbone: bool = False
    """Take the backbone even if it is not the one that the run was trained on."""
    push: str = ""
    """Upload the export to this repository on the hub (owner/name); not at all when empty."""
    private: bool = False
    """Make the repository a private one."""
    dry_run: bool = False
    """With --push: say what would be sent, and send nothing."""
    threads: int | None = None
    """Processor threads; none: what torch chooses."""

    def problems(self) -> Iterator[str]:
        yield from thread_problems(self.threads)
        if self.int8 and self.to != "onnx":
            yield f"int8 goes with --to onnx, not with --to {self.to}"
        if self.dry_run and not self.push:
            yield "dry_run says what --push would send: name a repository with --push"


@dataclass(frozen=True)
class PushConfig:
    """Everything ``loralet push`` needs."""

    folder: Annotated[Positional[str], arg(metavar="RUN")]
    """A run folder, or one of the adapter folders in it."""
    repo: Annotated[Positional[str], arg(metavar="ID")]
    """The repository on the hub: owner/name. It is made if it is not there."""
    run: str = ""
    """Id of a run of a study; the one that validation chose when empty."""
    private: bool = False
    """Make the repository a private one."""
    dry_run: bool = False
    """Say what would be sent, and send nothing."""


@dataclass(frozen=True)
class InspectConfig:
    """Everything ``loralet inspect`` needs."""

    paths: Annotated[Positional[tuple[str, ...]], arg(metavar="PATH")] = ()
    """Model folders, adapters, run folders, data sets or hub ids; with two or more models, their weights are compared."""
    format: Literal["table", "json"] = "table"
    """What to print."""

    def problems(self) -> Iterator[str]:
        if not self.paths:
            yield "paths is empty: name at least one model, adapter, run folder or data set"


@dataclass(frozen=True)
class Interface:
    """How long work talks while it goes on."""

    config: str = ""
    """A TOML file of options, such as a run's config.toml; flags given beside it win."""
    quiet: bool = False
    """Show no progress."""
    json_events: bool = False
    """Print every event as one line of JSON on standard output, and nothing else."""


@dataclass(frozen=True)
class Planning:
    """How a study is put together."""

    preset: Preset = ""
    """A grid with a name: both small BERTs with and without LoRA, or ranks against alphas; flags given beside it win."""
    dry_run: bool = False
    """Print the plan with an estimate of memory and time, and stop there."""
    report: bool = False
    """Write the report too, as ``loralet report`` does."""
