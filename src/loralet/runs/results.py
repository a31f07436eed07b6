"""Results of a run folder. The only module that reads and writes results.json (docs/reference/results.md)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from loralet import __version__
from loralet.adapters.spec import AdapterSpec
from loralet.artifacts.artifact import OUT_OF_FOLD
from loralet.atomic import write_json
from loralet.errors import RunError
from loralet.records import plain, read_record, require_files
from loralet.runs.checkpoints import FOLDER as CHECKPOINTS
from loralet.runs.run import TRAINED, Role
from loralet.tasks.base import Scores
from loralet.tasks.calibration import TemperatureScaling
from loralet.tasks.classes import ClassScores
from loralet.tasks.labels import LabelType
from loralet.tasks.registry import TASKS

SCHEMA = 2
OLDEST_SCHEMA = 1
NAME = "results.json"
SHOWN_PROBLEMS = 20
"""Maximum number of problems listed in one message."""


@dataclass(frozen=True)
class RunResult:
    """One row of the results. Fields that do not apply are None.

    Args:
        id: unique in its study.
        model: name of the backbone.
        role: see :class:`loralet.runs.run.Run`.
        adapter: configuration of the adapter.
        learning_rate: peak learning rate.
        seed: seed of the run.
        lr_ratio: ratio of the learning rate of B to that of A; 1 in files written before the option existed.
        members: ids of the runs of an average, an ensemble or a hybrid.
        encoder_weight: weight of the encoder in a hybrid.
        trainable_parameters, total_parameters: number of trained parameters, and of all parameters.
        steps: optimiser steps taken.
        converged_step: first check that reached the target score.
        train_seconds: share of the training time of its pack.
        peak_memory_bytes: peak memory of the process.
        status: end of training: ``finished``, ``early-stopped``, ``halved`` or ``diverged``.
        validation, test: scores on the whole splits; with folds, ``validation`` is measured out of fold on all training
            rows.
        calibration: the temperature of the logits, and the calibration error; None for baselines and ensembles, and in
            files written before it was fitted.
        default: whether a run of a study has the default adapter and learning rate of ``loralet train``; in files
            written before these were recorded, false.
    """

    id: str
    model: str | None
    role: Role
    adapter: AdapterSpec | None = None
    learning_rate: float | None = None
    seed: int | None = None
    lr_ratio: float | None = None
    members: tuple[str, ...] | None = None
    encoder_weight: float | None = None
    trainable_parameters: int = 0
    total_parameters: int = 0
    steps: int | None = None
    converged_step: int | None = None
    train_seconds: float | None = None
    peak_memory_bytes: int | None = None
    status: str = "finished"
    validation: Scores | None = None
    test: Scores | None = None
    calibration: TemperatureScaling | None = None
    default: bool = False

    @property
    def trained(self) -> bool:
        """Whether the row is a trained run with validation scores."""
        return self.role in TRAINED and self.validation is not None


@dataclass(frozen=True)
class TextLengths:
    """Lengths of the training texts in tokens of a model, special tokens included.

    Args:
        model: name of the backbone.
        max_length: number of tokens to which texts are truncated.
        longest: number of tokens of the longest training text.
        truncated: number of training texts that are truncated.
    """

    model: str
    max_length: int
    longest: int
    truncated: int


@dataclass(frozen=True)
class DataFacts:
    """The training data.

    Args:
        source: data set, as named by the user.
        train_rows, validation_rows, test_rows: rows of each split; 0 without the split.
        labels: label names, in the order of the logits.
        fingerprint: hash of all texts and targets.
        lengths: lengths of the training texts for each model; empty in files written before they were recorded.
        folds: number of folds; ``validation`` scores are then out-of-fold scores of all training rows. None with a
            validation split.
        text_columns: columns of the table that make up the text; empty in older files, as the next two are.
        label_column: column of the labels.
        label_type: type of the labels in the training data: ``str``, ``int``, ``float`` or ``bool``.
        test_fingerprint: hash of the texts and label names of the test split; empty without one and in older files.
    """

    source: str
    train_rows: int
    validation_rows: int
    test_rows: int
    labels: tuple[str, ...]
    fingerprint: str
    lengths: tuple[TextLengths, ...] = ()
    folds: int | None = None
    text_columns: tuple[str, ...] = ()
    label_column: str = ""
    label_type: LabelType = "str"
    test_fingerprint: str = ""

    @property
    def held_out_rows(self) -> int:
        """Rows that the ``validation`` scores are measured on."""
        return self.train_rows if self.folds else self.validation_rows

    @property
    def held_out(self) -> str:
        """What the ``validation`` scores are measured on: ``validation``, or ``out-of-fold`` rows."""
        return OUT_OF_FOLD if self.folds else "validation"


@dataclass(frozen=True)
class SplitClasses:
    """The scores of each class of a run on a split.

    Args:
        run: id of the run.
        split: ``validation`` or ``out-of-fold``, and ``test``.
        scores: the classes, in the order of the labels.
    """

    run: str
    split: str
    scores: tuple[ClassScores, ...]


@dataclass(frozen=True)
class Results:
    """results.json.

    Args:
        kind: ``train`` or ``study``.
        task: name of the task; missing in schema 1, as is ``selection``.
        selection: what selects states, runs and configurations on validation rows: a metric of the task, or ``loss``.
        data: the training data.
        runs: one row per run, including baselines.
        test_reads: number of times the test split was read.
        classes: scores of each class of the run chosen on validation, by split; empty in files written before.
        finished: whether training has ended and the test split, if any, was read.
        pending: ids of the planned runs that are not trained yet; empty if finished.
        loralet: version that wrote the file.
    """

    kind: str
    data: DataFacts
    runs: tuple[RunResult, ...]
    test_reads: int
    task: str = "single-label"
    selection: str = "accuracy"
    classes: tuple[SplitClasses, ...] = ()
    finished: bool = True
    pending: tuple[str, ...] = ()
    loralet: str = __version__

    @property
    def metric(self) -> str:
        """The main metric of the task, which tables and reports show.

        Raises:
            RunError: the task is unknown.
        """
        if self.task not in TASKS:
            raise RunError(f"the task of this run folder is {self.task!r}; known tasks: {', '.join(TASKS)}")
        return TASKS[self.task](self.data.labels).selection

    def run(self, id: str) -> RunResult:
        """The row with this id."""
        return next(run for run in self.runs if run.id == id)

    def to_json(self) -> dict[str, object]:
        """Content of results.json."""
        described = plain(replace(self, runs=()))
        return {"schema": SCHEMA} | described | {"runs": [_row_to_json(run) for run in self.runs]}


def _row_to_json(run: RunResult) -> dict[str, object]:
    scores = {
        name: value.to_json() if value else None for name, value in (("validation", run.validation), ("test", run.test))
    }
    return plain(replace(run, validation=None, test=None)) | scores


def write_results(folder: Path, results: Results) -> None:
    """Write results.json into a run folder atomically."""
    write_json(folder / NAME, results.to_json())


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a finished run."""
    try:
        return read_results(folder).finished
    except (OSError, RunError):
        return False


def resume_command(folder: Path) -> str:
    """The command that continues an unfinished run."""
    return f"loralet resume {shlex.quote(str(folder))}"


def unfinished_text(folder: Path, results: Results) -> str:
    """One line about an unfinished run: what is missing, and how to go on."""
    trained = sum(run.role in TRAINED for run in results.runs)
    missing = f"{trained} of {trained + len(results.pending)} runs are trained"
    test = " and the test split is not read" if results.data.test_rows else ""
    return f"{folder} is unfinished: {missing}{test}; `{resume_command(folder)}` goes on"


def read_results(folder: Path) -> Results:
    """Read results.json of a run folder, with this or an older schema.

    Raises:
        RunError: not a run folder, an unfinished run, a newer schema, or a broken file; all problems are listed.
    """
    require_files(folder)
    path = folder / NAME
    if not path.exists():
        if (folder / CHECKPOINTS).is_dir():
            raise RunError(
                f"{folder}: the run was interrupted before its first results; `{resume_command(folder)}` goes on"
            )
        if (folder / "config.toml").exists():
            raise RunError(f"{folder}: the run did not finish (no {NAME}) and has no checkpoints; train again")
        raise RunError(f"{folder}: not a run folder (no {NAME} and no config.toml)")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not valid JSON ({error})") from error
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if type(schema) is not int or not OLDEST_SCHEMA <= schema <= SCHEMA:
        raise RunError(f"{path}: not results of schema {OLDEST_SCHEMA} to {SCHEMA}, which loralet {__version__} reads")
    problems: list[str] = []
    rows = raw.get("runs")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        problems.append("runs is not a list of objects")
        rows = []
    runs = [_row_from_json(row, schema, problems, f"runs[{i}].") for i, row in enumerate(rows)]
    head = {key: value for key, value in raw.items() if key not in ("schema", "runs")}
    results = read_record(Results, head | {"runs": []}, problems)
    if problems or results is None:
        lines = [f"{path}: cannot be read; train again, or copy the run folder again:"]
        lines += [f"  - {problem}" for problem in problems[:SHOWN_PROBLEMS]]
        lines += [f"  ... and {more} more"] if (more := len(problems) - SHOWN_PROBLEMS) > 0 else []
        raise RunError("\n".join(lines))
    return replace(results, runs=tuple(run for run in runs if run is not None))


def _row_from_json(row: Mapping[str, object], schema: int, problems: list[str], where: str) -> RunResult | None:
    row = _of_schema_1(row) if schema == 1 else row
    scores: dict[str, Scores | None] = {}
    for name in ("validation", "test"):
        value = row.get(name)
        if value is not None and not isinstance(value, dict):
            problems.append(f"{where}{name} is not an object")
            continue
        try:
            scores[name] = None if value is None else Scores.from_json(value)
        except ValueError as error:
            problems.append(f"{where}{name}: {error}")
    rest = {key: value for key, value in row.items() if key not in ("validation", "test")}
    if rest.get("learning_rate") is not None:
        rest.setdefault("lr_ratio", 1.0)
    run = read_record(RunResult, rest, problems, where)
    if run is not None and run.adapter is not None:
        problems += [f"{where}adapter.{problem}" for problem in run.adapter.problems()]
    return None if run is None else replace(run, validation=scores.get("validation"), test=scores.get("test"))


def _of_schema_1(row: Mapping[str, object]) -> dict[str, object]:
    """Convert a row of schema 1, which has no separate adapter settings."""
    settings = ("rank", "alpha", "dropout", "targets", "scaling")
    adapter = {name: row[name] for name in settings if row.get(name) is not None}
    rest = {key: value for key, value in row.items() if key not in settings}
    return rest | {"adapter": adapter if "alpha" in adapter else None}
