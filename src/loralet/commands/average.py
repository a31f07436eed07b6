"""``loralet average``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from loralet.artifacts.average import average as mean_of
from loralet.artifacts.folder import Artifact, save_artifact
from loralet.commands.threads import set_threads
from loralet.config import AverageConfig
from loralet.data.files import Columns
from loralet.errors import ConfigError, RunError
from loralet.export.calibration import calibration_rows
from loralet.hub.backbone import Backbone
from loralet.inference.ensemble import find_adapters
from loralet.inference.evaluation import score_logits
from loralet.inference.predictor import open_adapter, ready
from loralet.runs.folder import new_run_folder, read_results
from loralet.runs.selection import chosen_seeds


def average(config: AverageConfig) -> None:
    """Write the mean of several adapters as one adapter, and say what it scores where the runs' own validation rows can be read."""
    set_threads(config.threads)
    out = new_run_folder(config.out, "average")
    adapters = _members(config)
    opened = {str(path): open_adapter(path, config.any_backbone, backbone=config.backbone) for path in adapters}
    members, backbone = {name: artifact for name, (artifact, _) in opened.items()}, next(iter(opened.values()))[1]
    made = mean_of(members, out.resolve().name)
    made = _measured(made, list(members.values()), adapters[0], backbone)
    save_artifact(out, made, backbone)
    console = Console(highlight=False, soft_wrap=True)
    for artifact in (*members.values(), made):
        told = artifact.metrics.get("validation")
        console.print(
            f"  {artifact.id:<32} rank {artifact.rank:<4}"
            + (f" validation accuracy {told['accuracy']:.4f}" if told else ""),
            markup=False,
        )
    console.print(f"mean of {len(members)} adapters: {out}", markup=False)


def _members(config: AverageConfig) -> list[Path]:
    """The adapters meant.

    Raises:
        ConfigError: a single run.
        RunError: no such run, or one named twice.
    """
    folder = Path(config.folders[0])
    if config.runs or len(config.folders) > 1:
        return find_adapters(folder, runs=config.runs, also=config.folders[1:])
    results = read_results(folder) if (folder / "results.json").exists() else {"kind": "adapter"}
    if results["kind"] != "study":
        raise ConfigError(f"{folder} is one run, and a mean needs two: name further ones, or a study")
    return find_adapters(folder, runs=chosen_seeds(results))


def _measured(made: Artifact, members: Sequence[Artifact], adapter: Path, backbone: Backbone) -> Artifact:
    """The average with its scores on the validation rows that all members share; as it is where they share none, or none can be read."""
    if not made.data_fingerprint or any(member.data != members[0].data for member in members):
        return made
    try:
        rows = calibration_rows(adapter, made, "", Columns())
    except RunError:
        return made
    scores = score_logits(ready(made, backbone).logits(rows.texts), rows.labels)
    return replace(made, metrics={"validation": {"rows": len(rows)} | asdict(scores)})
