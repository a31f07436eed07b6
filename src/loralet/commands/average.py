"""``loralet average``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from loralet.artifacts.artifact import OUT_OF_FOLD, Artifact, Measured, with_metrics
from loralet.artifacts.average import average as mean_of
from loralet.artifacts.folder import save_artifact
from loralet.config import AverageConfig, ComputeOptions, ModelOptions, OneRun, SeveralRuns
from loralet.data.files import Columns
from loralet.errors import ConfigError, RunError
from loralet.export.calibration import calibration_rows
from loralet.hub.backbone import Backbone
from loralet.inference.adapters import find_adapters, opened_of
from loralet.inference.ensemble import ensemble_of
from loralet.inference.predictor import open_adapter
from loralet.runs.folder import new_run_folder
from loralet.runs.results import NAME, read_results
from loralet.runs.selection import chosen_seeds
from loralet.runtime import using_threads


def average(config: AverageConfig) -> None:
    """Write the average of several adapters as one adapter. Print its score if validation rows can be read."""
    with using_threads(config.compute.threads):
        out = new_run_folder(config.out, "average")
        adapters = _members(config)
        opened = {str(path): open_adapter(path, ModelOptions(config.source)) for path in adapters}
        members = {name: artifact for name, (artifact, _) in opened.items()}
        backbone = next(iter(opened.values()))[1]
        made = mean_of(members, out.resolve().name)
        made = _measured(made, list(members.values()), adapters[0], backbone, config.compute)
        save_artifact(out, made, backbone)
    console = Console(highlight=False, soft_wrap=True)
    for artifact in (*members.values(), made):
        line = f"  {artifact.id:<32} rank {artifact.adapter.rank:<4}"
        for split in ("validation", OUT_OF_FOLD):
            if split in artifact.metrics:
                selection = artifact.as_task().selection
                line += f" {split} {selection} {artifact.metrics[split].scores[selection]:.4f}"
        console.print(line, markup=False)
    if any(artifact.words is not None for artifact in members.values()):
        console.print("the average contains only the adapters, not the linear models on words")
    console.print(f"average of {len(members)} adapters: {out}", markup=False)


def _members(config: AverageConfig) -> list[Path]:
    """The folders of the adapters to average.

    Raises:
        ConfigError: only one run is given.
        RunError: a run does not exist or is given twice.
    """
    one, folder = OneRun(config.folders[0]), Path(config.folders[0])
    if config.runs or len(config.folders) > 1:
        return find_adapters(SeveralRuns(one, config.runs, config.folders[1:]))
    results = read_results(folder) if (folder / NAME).exists() else None
    if results is None or results.kind != "study":
        raise ConfigError(f"{folder} is one run, but an average needs at least two: give more runs, or a study")
    return find_adapters(SeveralRuns(one, tuple(chosen_seeds(results))))


def _measured(
    made: Artifact, members: Sequence[Artifact], adapter: Path, backbone: Backbone, compute: ComputeOptions
) -> Artifact:
    """The average, with scores on the validation rows that all members share, if there are any that can be read.

    Its temperature is fitted on these rows.
    """
    first, folded = _data_of(members[0]), any(member.provenance.folds for member in members)
    if folded or not made.data_fingerprint or any(_data_of(member) != first for member in members):
        return made
    try:
        rows = calibration_rows(adapter, made, "", Columns())
    except RunError:
        return made
    logits = ensemble_of({made.id: opened_of(made, backbone)}, compute).logits(rows.texts)
    task = made.as_task()
    scaling = task.calibrate(logits, rows.targets)
    temperature = scaling.temperature if scaling else 1.0
    calibrated = logits / temperature
    classes = task.classes(task.predicted(calibrated), rows.targets)
    measured = Measured(len(rows), task.score(calibrated, rows.targets), classes)
    return with_metrics(replace(made, temperature=temperature), "validation", measured)


def _data_of(artifact: Artifact) -> tuple[object, ...]:
    made = artifact.provenance
    return (
        made.source,
        made.train_rows,
        made.validation_rows,
        made.split_seed,
        made.validation_fraction,
    )
