"""The run folders in a folder, each summarised without reading its tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from loralet.config import DistillConfig
from loralet.config.toml import read_options
from loralet.errors import ConfigError, DataError, LoraletError, RunError
from loralet.records import require_files
from loralet.runs.checkpoints import FOLDER as CHECKPOINTS
from loralet.runs.environment import read_environment
from loralet.runs.results import NAME as RESULTS
from loralet.runs.results import Results, read_results, resume_command
from loralet.runs.selection import chosen_run

State = Literal["finished", "unfinished", "unreadable"]


@dataclass(frozen=True)
class ListedRun:
    """A run folder. Fields that are unknown are None or empty.

    Args:
        name: name of the folder.
        folder: its path.
        state: whether its training has ended, or whether it cannot be read.
        kind: ``train`` or ``study``.
        data: the data set, as named by the user.
        models: names of the backbones.
        runs: number of rows of the results that were trained, without baselines.
        chosen: id of the run chosen on validation.
        metric: the metric of the score.
        score, low, high: score of the chosen run, with its 95 % interval.
        split: rows of the score: ``test``, ``out-of-fold`` or ``validation``.
        rows: number of those rows.
        date: local start time.
        note: how to go on, or why the folder cannot be read.
    """

    name: str
    folder: str
    state: State
    kind: str = ""
    data: str = ""
    models: tuple[str, ...] = ()
    runs: int = 0
    chosen: str = ""
    metric: str = ""
    score: float | None = None
    low: float | None = None
    high: float | None = None
    split: str = ""
    rows: int | None = None
    date: str | None = None
    note: str = ""


def list_runs(folder: Path) -> list[ListedRun]:
    """The run folders directly in a folder, or the folder itself if it is one; the latest first, unknown dates last.

    Raises:
        DataError: no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; loralet train and loralet study write runs into it")
    places = [folder] if is_run_folder(folder) else [path for path in sorted(folder.iterdir()) if is_run_folder(path)]
    return sorted(map(list_run, places), key=lambda run: run.date or "", reverse=True)


def is_run_folder(path: Path) -> bool:
    """Whether ``train`` or ``study`` made this folder. The folders of ``distill`` have options too."""
    try:
        if not path.is_dir():
            return False
        if (path / RESULTS).exists() or (path / CHECKPOINTS).is_dir():
            return True
        if not (path / "config.toml").exists():
            return False
    except OSError:
        return True  # it cannot be read, which its line says
    try:
        require_files(path)
        read_options(path / "config.toml", DistillConfig)
    except (ConfigError, RunError):
        return True
    return False


def list_run(folder: Path) -> ListedRun:
    """Summarise a run folder; one that is damaged has the state ``unreadable`` and a reason."""
    name, date = folder.resolve().name, _started(folder)
    try:
        results = read_results(folder)
        return _summary(folder, results, date)
    except (LoraletError, OSError) as error:
        began = (folder / CHECKPOINTS).is_dir() and not (folder / RESULTS).exists()
        named = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        reason = named.splitlines()[0].rstrip(":")
        note = f"interrupted before its first results: {resume_command(folder)}" if began else reason
        return ListedRun(name, str(folder), "unfinished" if began else "unreadable", date=date, note=note)


def _started(folder: Path) -> str | None:
    try:
        return read_environment(folder).started
    except (LoraletError, OSError):
        return None


def _summary(folder: Path, results: Results, date: str | None) -> ListedRun:
    data = results.data
    trained = [run for run in results.runs if run.trained]
    done = "" if results.finished else f"{len(trained)} of {len(trained) + len(results.pending)} runs are trained"
    listed = ListedRun(
        name=folder.resolve().name,
        folder=str(folder),
        state="finished" if results.finished else "unfinished",
        kind=results.kind,
        data=data.source,
        models=tuple(dict.fromkeys(run.model for run in results.runs if run.model)),
        runs=len(trained),
        date=date,
        note="" if results.finished else f"{done}: {resume_command(folder)}",
    )
    return listed if not trained else _with_score(listed, results)


def _with_score(listed: ListedRun, results: Results) -> ListedRun:
    run, data = chosen_run(results), results.data
    tested = run.test is not None
    scores = run.test if run.test is not None else run.validation
    if scores is None or results.metric not in scores.values:
        return replace(listed, chosen=run.id)
    low, high = scores.intervals.get(results.metric, (None, None))
    return replace(
        listed,
        chosen=run.id,
        metric=results.metric,
        score=scores[results.metric],
        low=low,
        high=high,
        split="test" if tested else data.held_out,
        rows=data.test_rows if tested else data.held_out_rows,
    )
