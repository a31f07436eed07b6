"""The run folder: options, events and results of a run.

config.toml          the resolved options
environment.json     versions, machine and backends (loralet.runs.environment)
metrics.jsonl        one line per event (loralet.runs.metrics)
results.json         see docs/reference/results.md (loralet.runs.results)
predictions.safetensors   test targets, and each run's test probabilities or predicted classes
validation.safetensors    without folds: validation targets, each run's predicted classes, or its probabilities
adapters/ID/         one folder per trained run (loralet.artifacts.folder)
checkpoint/          while the run is unfinished: what a resume needs (loralet.runs.checkpoints)

While a run is unfinished, results.json has the rows of its finished runs, and adapters/ their folders.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import count
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from loralet.artifacts.artifact import Artifact
from loralet.artifacts.folder import add_metrics, save_artifact
from loralet.atomic import new_file
from loralet.errors import RunError
from loralet.events import Event
from loralet.hub.backbone import Backbone
from loralet.runs.environment import Environment, write_environment
from loralet.runs.metrics import NAME as METRICS
from loralet.runs.metrics import MetricsFile
from loralet.runs.results import Results, write_results
from loralet.tasks.base import Scores, Task
from loralet.tasks.classes import ClassScores

PREDICTIONS = "predictions.safetensors"
HELD_OUT = "validation.safetensors"
"""Predictions of the validation rows, in a folder without folds."""
PREDICTED = "predicted/"
"""Prefix in predictions.safetensors for runs that have only predicted targets; ids contain no slash."""
TARGETS = "labels"
"""Name of the test split's targets in predictions.safetensors."""


def new_run_folder(out: str, kind: str) -> Path:
    """The folder for a new run: ``out``, or a folder under ``runs/`` named by date.

    Raises:
        RunError: the folder exists and is not empty, or a parent is a file.
    """
    if not out:
        name = f"{kind}-{datetime.now():%Y%m%d-%H%M%S}"
        names = (name if i == 1 else f"{name}-{i}" for i in count(1))
        return next(path for path in map(Path("runs").joinpath, names) if not path.exists())
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} exists and is not empty; give another folder with --out, or remove it")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir():
        raise RunError(f"{folder} cannot be created: {above} is a file; give another folder with --out")
    return folder


class RunFolder:
    """Writes a run folder during training. All files except metrics.jsonl are written atomically.

    Args:
        folder: folder to create.
        config: content of config.toml.
        found: the environment.
        metrics: content of metrics.jsonl at a resume; None: what it contains.
    """

    def __init__(self, folder: Path, config: str, found: Environment, metrics: bytes | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        with new_file(folder / "config.toml") as temporary:
            temporary.write_text(config, encoding="utf-8")
        write_environment(folder, found)
        self.metrics = MetricsFile(folder / METRICS, metrics)

    def record(self, event: Event) -> None:
        """Append an event to metrics.jsonl."""
        self.metrics.append(event)

    def save(self, artifact: Artifact, backbone: Backbone) -> None:
        """Write a trained run's adapter folder; see :func:`loralet.artifacts.folder.save_artifact`."""
        save_artifact(self.folder / "adapters" / artifact.id, artifact, backbone)

    def add_metrics(
        self, run: str, split: str, rows: int, scores: Scores, classes: tuple[ClassScores, ...] = ()
    ) -> None:
        """Add a run's scores on another split to its adapter folder; rows without a folder are skipped."""
        if (self.folder / "adapters" / run / "loralet.json").exists():
            add_metrics(self.folder / "adapters" / run, split, rows, scores, classes)

    def save_predictions(self, arrays: Mapping[str, np.ndarray], name: str = PREDICTIONS) -> None:
        """Write the predictions of the test rows, or of the validation rows (:data:`HELD_OUT`)."""
        with new_file(self.folder / name) as temporary:
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary)

    def save_results(self, results: Results) -> None:
        """Write results.json."""
        write_results(self.folder, results)

    def close(self) -> None:
        """Close metrics.jsonl."""
        self.metrics.close()


def read_predictions(
    folder: Path, task: Task, name: str = PREDICTIONS
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Read targets of the test rows, probabilities by run, and predicted targets by run.

    Folders of older versions have no predictions of baselines without probabilities.

    Args:
        folder: the run folder.
        task: the task of the run, which decides what the probabilities predict.
        name: name of the file.

    Raises:
        RunError: the file is broken.
    """
    path = folder / name
    try:
        with safe_open(path, "numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # safe_open is not a dict
        targets = tensors.pop(TARGETS)
    except (SafetensorError, KeyError, OSError) as error:
        raise RunError(f"{path}: cannot be read as predictions ({error})") from error
    given = {n.removeprefix(PREDICTED): tensors.pop(n) for n in list(tensors) if n.startswith(PREDICTED)}
    if problems := list(task.prediction_problems(targets, tensors, given)):
        raise RunError(f"{path}: cannot be read as predictions ({'; '.join(problems[:5])})")
    return targets, tensors, given | {run: task.predicted(values) for run, values in tensors.items()}
