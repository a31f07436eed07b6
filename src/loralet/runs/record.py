"""Reading of a run folder: options, events and results."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import nan, prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from loralet.adapters.lora import expected_parameters
from loralet.artifacts.artifact import read_description
from loralet.artifacts.words import ARRAYS, TOKENS
from loralet.errors import RunError
from loralet.records import read_json
from loralet.runs.environment import Environment, read_environment
from loralet.runs.folder import PREDICTIONS, read_predictions
from loralet.runs.results import Results, read_results
from loralet.runs.sources import RunOptions, read_config
from loralet.tasks.registry import TASKS

WEIGHTS = ("adapter_model.safetensors", "head.safetensors", "model.safetensors")
"""The files of an adapter folder that contain trained tensors."""


@dataclass(frozen=True)
class AdapterFiles:
    """One run's folder under adapters/.

    Args:
        backbone, fingerprint: name of the frozen encoder, and hash of its tensors.
        bytes: total size of the weight files, those of a linear model on words included.
        parameters: number of values in the files of the encoder.
        formula: number of parameters by the adapter method's formula; None without an adapter.
    """

    backbone: str
    fingerprint: str
    bytes: int
    parameters: int
    formula: int | None


@dataclass(frozen=True)
class RecordedCheck:
    """A check on the validation sample: main metric and mean loss (None if not finite)."""

    step: int
    score: float
    loss: float | None


@dataclass(frozen=True)
class Rung:
    """A rung of successive halving: its runs, best first, their scores, and the number of runs that continued."""

    step: int
    runs: tuple[str, ...]
    scores: tuple[float, ...]
    kept: int


@dataclass(frozen=True)
class Record:
    """The content of a run folder.

    Args:
        folder: the run folder.
        results, config, environment: content of its files.
        losses: batch loss of each step, by run; NaN if it was not finite.
        checks: checks on the validation sample, by run.
        planned: number of planned steps, by run.
        rungs: rungs of successive halving, in the order of events.
        targets: targets of the test rows; None without a test split, and while the run is unfinished.
        probabilities: probabilities of the test rows, ``[rows, labels]``, by run.
        predicted: predicted targets of the test rows, by run, if recorded.
        adapters: adapter folders, by run.
    """

    folder: Path
    results: Results
    config: RunOptions
    environment: Environment
    losses: Mapping[str, np.ndarray]
    checks: Mapping[str, tuple[RecordedCheck, ...]]
    planned: Mapping[str, int]
    rungs: tuple[Rung, ...]
    targets: np.ndarray | None
    probabilities: Mapping[str, np.ndarray]
    predicted: Mapping[str, np.ndarray]
    adapters: Mapping[str, AdapterFiles]


def read_record(folder: Path) -> Record:
    """Read a run folder.

    Raises:
        RunError: not a run folder, an unknown task, or a missing or broken file.
        ConfigError: config.toml cannot be read.
    """
    results = read_results(folder)
    tested = results.finished and results.data.test_rows > 0
    needed = ["config.toml", "environment.json", "metrics.jsonl"] + [PREDICTIONS] * tested
    missing = [name for name in needed if not (folder / name).exists()]
    if missing:
        raise RunError(f"{folder}: {', '.join(missing)} missing; a report needs the complete run folder")
    if results.task not in TASKS:
        raise RunError(f"{folder}: the task of this run folder is {results.task!r}; known tasks: {', '.join(TASKS)}")
    metrics = folder / "metrics.jsonl"
    try:
        losses, checks, planned, rungs = _read_metrics(metrics)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{metrics}: an event is not as loralet writes it ({type(error).__name__}: {error})") from error
    targets, probabilities, predicted = None, dict[str, np.ndarray](), dict[str, np.ndarray]()
    if tested:
        targets, probabilities, predicted = read_predictions(folder, TASKS[results.task](results.data.labels))
    return Record(
        folder=folder,
        results=results,
        config=read_config(folder, results.kind),
        environment=read_environment(folder),
        losses=losses,
        checks=checks,
        planned=planned,
        rungs=rungs,
        targets=targets,
        probabilities=probabilities,
        predicted=predicted,
        adapters={path.name: _read_adapter(path) for path in sorted((folder / "adapters").glob("*")) if path.is_dir()},
    )


Metrics = tuple[dict[str, np.ndarray], dict[str, tuple[RecordedCheck, ...]], dict[str, int], tuple[Rung, ...]]


def _read_metrics(path: Path) -> Metrics:
    losses: dict[str, dict[int, float]] = defaultdict(dict)
    checks: dict[str, dict[int, RecordedCheck]] = defaultdict(dict)
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
                # Older versions recorded the accuracy instead of the task's main metric.
                score = line["score"] if "score" in line else line["accuracy"]
                checks[line["run"]][line["step"]] = RecordedCheck(line["step"], score, line["loss"])
            case "Halved":
                scores = line["scores"] if "scores" in line else line["accuracies"]
                rungs.append(Rung(line["step"], tuple(line["runs"]), tuple(scores), line["kept"]))
    return (
        {run: np.array([by_step[step] for step in sorted(by_step)]) for run, by_step in losses.items()},
        {run: tuple(by_step[step] for step in sorted(by_step)) for run, by_step in checks.items()},
        planned,
        tuple(rungs),
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The parsed events of metrics.jsonl."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                event = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise RunError(f"{path}: line {number} is not JSON ({error})") from error
            if not isinstance(event, dict) or "event" not in event:
                raise RunError(f"{path}: line {number} is not an event")
            yield event


def _read_adapter(folder: Path) -> AdapterFiles:
    try:
        artifact = read_description(read_json(folder / "loralet.json"))
        shapes: dict[str, tuple[int, ...]] = {}
        size = sum((folder / name).stat().st_size for name in (TOKENS, ARRAYS) if (folder / name).exists())
        for path in (folder / name for name in WEIGHTS if (folder / name).exists()):
            size += path.stat().st_size
            with safe_open(path, "numpy") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        formula = expected_parameters(artifact.adapter.rank, shapes) if artifact.adapter.rank else None
        numbers = sum(map(prod, shapes.values()))
        return AdapterFiles(artifact.backbone, artifact.backbone_fingerprint, size, numbers, formula)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise RunError(f"{folder}: cannot be read as an adapter folder ({type(error).__name__}: {error})") from error
