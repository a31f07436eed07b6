"""The run folder: what was asked for, what happened, what came out.

config.toml          the resolved options
environment.json     versions and machine
metrics.jsonl        one line per event
results.json         schema 1, see docs/results.md
predictions.safetensors   test probabilities of every run that has them, predicted classes of the others, and the labels
adapters/ID/         one folder per trained run (loralet.artifacts.folder)
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import resource
import sys
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from loralet import __version__
from loralet.runs.checkout import source_commit
from loralet.errors import RunError
from loralet.events import Event
from loralet.artifacts.folder import Artifact, add_metrics, save_artifact
from loralet.atomic import new_file, write_json
from loralet.hub.backbone import Backbone
from loralet.config.toml import write_options

SCHEMA = 1
TRAINED = ("lora", "linear-probe", "full")
"""Roles that leave an adapter folder."""
PREDICTED = "predicted/"
"""What stands before the id of a run of which predictions.safetensors has classes alone; no id holds a slash, so none is taken for it."""


def new_run_folder(out: str, kind: str) -> Path:
    """The folder for a new run: ``out``, or one named by the time under ``runs/``.

    Raises:
        RunError: the folder exists and is not empty, so something would be lost; or it would lie below a file.
    """
    if not out:
        name = f"{kind}-{datetime.now():%Y%m%d-%H%M%S}"
        names = (name if i == 1 else f"{name}-{i}" for i in count(1))
        return next(path for path in map(Path("runs").joinpath, names) if not path.exists())
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} exists and is not empty; name another folder with --out, or remove it")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir():
        raise RunError(f"{folder} cannot be made, as {above} is a file; name another folder with --out")
    return folder


class RunFolder:
    """Writes a run folder as training goes on. Every file but metrics.jsonl appears whole or not at all."""

    def __init__(self, folder: Path, config: Any) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        write_options(folder / "config.toml", config)
        write_json(folder / "environment.json", environment())
        self._metrics = (folder / "metrics.jsonl").open("a", encoding="utf-8")

    def record(self, event: Event) -> None:
        """One line of metrics.jsonl."""
        self._metrics.write(event_line(event) + "\n")
        self._metrics.flush()

    def save(self, artifact: Artifact, backbone: Backbone) -> None:
        save_artifact(self.folder / "adapters" / artifact.id, artifact, backbone)

    def add_metrics(self, run: str, split: str, metrics: dict[str, Any]) -> None:
        """Note a saved run's scores on a further split in its adapter folder; a row that leaves no folder is passed over."""
        if (self.folder / "adapters" / run / "loralet.json").exists():
            add_metrics(self.folder / "adapters" / run, split, metrics)

    def save_predictions(self, tensors: dict[str, Tensor]) -> None:
        with new_file(self.folder / "predictions.safetensors") as temporary:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)

    def save_results(self, results: dict[str, Any]) -> None:
        write_json(self.folder / "results.json", results)

    def close(self) -> None:
        self._metrics.close()


def event_line(event: Event) -> str:
    """An event as one line of JSON; a loss that is not finite is null."""
    return json.dumps(_finite({"event": type(event).__name__} | dataclasses.asdict(event)))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return value


def environment() -> dict[str, Any]:
    """Versions, machine and command; ``commit`` is loralet's own, None where it is not run from a checkout of its source."""
    return {
        "loralet": __version__,
        "commit": source_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": ["loralet", *sys.argv[1:]],
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def peak_memory(status: Path = Path("/proc/self/status")) -> int:
    """Largest resident memory of this process so far, in bytes: VmHWM, as Linux counts it, else getrusage's (bytes on macOS).

    On Linux getrusage counts what the process's parent had used before it was started.
    """
    try:
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024


def read_results(folder: Path) -> dict[str, Any]:
    """results.json of a run folder.

    Raises:
        RunError: not a run folder, an unfinished one, or one of a newer schema.
    """
    path = folder / "results.json"
    if not path.exists():
        if (folder / "config.toml").exists():
            raise RunError(f"{folder}: the run did not finish (no results.json)")
        raise RunError(f"{folder}: not a run folder (no results.json and no config.toml)")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(results, dict) or results.get("schema") != SCHEMA:
        raise RunError(f"{path}: not results of schema {SCHEMA}, the one that loralet {__version__} reads")
    lacking = [key for key in ("kind", "data", "runs") if key not in results]
    if lacking:
        raise RunError(f"{path}: incomplete ({', '.join(lacking)} missing); train again, or copy the run folder anew")
    return results


def chosen_run(results: dict[str, Any]) -> dict[str, Any]:
    """The trained run with the highest validation accuracy; among equals the lower validation loss, then fewer parameters.

    Raises:
        RunError: no run was trained to the end.
    """
    trained = [run for run in results["runs"] if run["role"] in TRAINED and run["validation"] is not None]
    if not trained:
        raise RunError("no run of this folder was trained to the end")
    return max(trained, key=lambda run: (run["validation"]["accuracy"], -run["validation"]["loss"], -run["trainable_parameters"]))
