"""A finished run folder, read whole: what was asked for, what happened, what came out."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from loralet.config import StudyConfig, TrainConfig
from loralet.config.toml import read_options
from loralet.errors import RunError
from loralet.runs.folder import PREDICTED, read_results

WEIGHTS = ("adapter_model.safetensors", "head.safetensors", "model.safetensors")
"""The files of an adapter folder that hold what was learned."""


@dataclass(frozen=True)
class AdapterFiles:
    """One run's folder under adapters/.

    Args:
        backbone, fingerprint: name of the frozen encoder, and hash of its tensors.
        bytes: size of the weight files together.
        numbers: numbers in them.
        formula: sum over adapted maps of rank x (inputs + outputs), plus the head; None where no adapter file is there.
    """

    backbone: str
    fingerprint: str
    bytes: int
    numbers: int
    formula: int | None


@dataclass(frozen=True)
class Check:
    """One look at the validation sample."""

    step: int
    accuracy: float
    loss: float | None


@dataclass(frozen=True)
class Rung:
    """A rung of successive halving: the runs that came to it, best first, their accuracies on the validation sample, and how many went on."""

    step: int
    runs: tuple[str, ...]
    accuracies: tuple[float, ...]
    kept: int


@dataclass(frozen=True)
class Record:
    """Everything in a run folder that an analysis needs.

    Args:
        losses: batch loss of each step of each run; NaN where it was not finite.
        checks: looks at the validation sample of each run.
        planned: steps that each run was to take.
        rungs: of successive halving, in the order in which packs came to them.
        labels: test labels ``[rows]``, None where there is no test split.
        probabilities: test probabilities ``[rows, classes]`` by run.
        predicted: predicted class of each test row ``[rows]`` by run; of every run whose predictions are on record.
        adapters: by run.
    """

    folder: Path
    results: dict[str, Any]
    config: StudyConfig | TrainConfig
    environment: dict[str, Any]
    losses: dict[str, np.ndarray]
    checks: dict[str, tuple[Check, ...]]
    planned: dict[str, int]
    rungs: tuple[Rung, ...]
    labels: np.ndarray | None
    probabilities: dict[str, np.ndarray]
    predicted: dict[str, np.ndarray]
    adapters: dict[str, AdapterFiles]


def read_record(folder: Path) -> Record:
    """Read a run folder.

    Raises:
        RunError: not a run folder, one that did not finish, or one with a file missing or broken.
        ConfigError: its config.toml cannot be read.
    """
    results = read_results(folder)
    missing = [name for name in ("config.toml", "environment.json", "metrics.jsonl") if not (folder / name).exists()]
    if results["data"]["test_rows"] and not (folder / "predictions.safetensors").exists():
        missing.append("predictions.safetensors")
    if missing:
        raise RunError(
            f"{folder}: {', '.join(missing)} missing; a report needs the whole run folder, as `loralet study` left it"
        )
    path = folder / "config.toml"
    config = read_options(path, StudyConfig) if results["kind"] == "study" else read_options(path, TrainConfig)
    try:
        environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{folder / 'environment.json'}: not valid JSON ({error})") from error
    losses, checks, planned, rungs = _read_metrics(folder / "metrics.jsonl")
    labels, probabilities, classes = (
        _read_predictions(folder / "predictions.safetensors") if results["data"]["test_rows"] else (None, {}, {})
    )
    adapters = {path.name: _read_adapter(path) for path in sorted((folder / "adapters").glob("*")) if path.is_dir()}
    return Record(
        folder, results, config, environment, losses, checks, planned, rungs, labels, probabilities, classes, adapters
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise RunError(f"{path}: line {number} is not JSON ({error})") from error


def _read_metrics(
    path: Path,
) -> tuple[dict[str, np.ndarray], dict[str, tuple[Check, ...]], dict[str, int], tuple[Rung, ...]]:
    losses: dict[str, dict[int, float]] = defaultdict(dict)
    checks: dict[str, dict[int, Check]] = defaultdict(dict)
    planned: dict[str, int] = {}
    rungs: list[Rung] = []
    for line in _lines(path):
        match line["event"]:
            case "PackStarted":
                planned |= dict.fromkeys(line["runs"], line["steps"])
            case "Stepped":
                for run, loss in zip(line["runs"], line["losses"], strict=True):
                    losses[run][line["step"]] = nan if loss is None else loss
            case "Checked":
                checks[line["run"]][line["step"]] = Check(line["step"], line["accuracy"], line["loss"])
            case "Halved":
                rungs.append(Rung(line["step"], tuple(line["runs"]), tuple(line["accuracies"]), line["kept"]))
    return (
        {run: np.array([by_step[step] for step in sorted(by_step)]) for run, by_step in losses.items()},
        {run: tuple(by_step[step] for step in sorted(by_step)) for run, by_step in checks.items()},
        planned,
        tuple(rungs),
    )


def _read_predictions(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Labels, probabilities and classes; a folder of before the baselines' classes were kept has those of runs with probabilities alone."""
    try:
        with safe_open(path, "numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # safe_open is no dict
        labels = tensors.pop("labels")
        classes = {
            name.removeprefix(PREDICTED): tensors.pop(name) for name in list(tensors) if name.startswith(PREDICTED)
        }
        return labels, tensors, classes | {run: values.argmax(1) for run, values in tensors.items()}
    except (SafetensorError, KeyError) as error:
        raise RunError(f"{path}: cannot be read as predictions ({error})") from error


def _read_adapter(folder: Path) -> AdapterFiles:
    try:
        described = json.loads((folder / "loralet.json").read_text(encoding="utf-8"))
        files = [folder / name for name in WEIGHTS if (folder / name).exists()]
        shapes: dict[str, tuple[int, ...]] = {}
        for path in files:
            with safe_open(path, "numpy") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        return AdapterFiles(
            described["backbone"], described["backbone_fingerprint"], sum(path.stat().st_size for path in files),
            sum(int(np.prod(shape)) for shape in shapes.values()), _formula(described["rank"], shapes),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise RunError(f"{folder}: cannot be read as an adapter folder ({type(error).__name__}: {error})") from error


def _formula(rank: int, shapes: dict[str, tuple[int, ...]]) -> int | None:
    """rank x (d_in + d_out) for every adapted map, plus the head (Hu et al. 2022, section 4.2)."""
    if not rank:
        return None
    inputs = sum(shape[1] for name, shape in shapes.items() if "lora_A" in name)
    outputs = sum(shape[0] for name, shape in shapes.items() if "lora_B" in name)
    head = sum(int(np.prod(shape)) for name, shape in shapes.items() if "lora_" not in name)
    return rank * (inputs + outputs) + head
