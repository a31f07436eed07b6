"""The runs that ``loralet compare`` compares: their predictions, prediction time and size."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from loralet.artifacts.foreign import is_classifier
from loralet.artifacts.words import ARRAYS, TOKENS
from loralet.config import CompareConfig, ComputeOptions, ModelOptions
from loralet.data.sources import Split, load_labelled
from loralet.errors import DataError, LoraletError, RunError
from loralet.inference.adapters import Opened, find_adapter, read_adapter, require_different, trained_columns
from loralet.inference.ensemble import Ensemble, ensemble_of
from loralet.inference.graph import graph_in
from loralet.report.leaderboard import Contender
from loralet.runs.folder import PREDICTIONS, read_predictions
from loralet.runs.record import WEIGHTS
from loralet.runs.results import NAME as RESULTS
from loralet.runs.results import Results, read_results, unfinished_text
from loralet.runs.selection import chosen_run
from loralet.runs.sources import columns_of, dataset_of, read_config
from loralet.runs.test_reads import record_test_reads
from loralet.tasks.base import Task
from loralet.tasks.registry import TASKS
from loralet.terminal import note

TIMED_TEXTS, WARM_UP = 512, 32
"""Texts that prediction time is measured on, and texts predicted before."""
REMEDY = "give labelled rows to evaluate all runs on with --data FILE"


@dataclass(frozen=True)
class Compared:
    """Runs with their predictions of the same rows.

    Args:
        contenders: the runs.
        targets: targets of the rows.
        task: the task of the first run, which defines the targets.
        source: where the rows come from.
        timing: how prediction times were measured.
    """

    contenders: tuple[Contender, ...]
    targets: np.ndarray
    task: Task
    source: str
    timing: str


@dataclass(frozen=True)
class _Saved:
    """A run of a folder with saved predictions."""

    name: str
    folder: Path
    results: Results
    run: str


def saved(config: CompareConfig) -> Compared:
    """The saved test predictions of runs that were tested on the same rows.

    Raises:
        RunError: a run has no saved test predictions, or the test rows or labels differ.
    """
    runs = [_saved(name, Path(name)) for name in config.folders]
    require_different([Path(name) for name in config.folders])
    first, *others = runs
    for other in others:
        _require_same_rows(first, other)
    task = TASKS[first.results.task](first.results.data.labels)
    targets, _ = _predictions(first, task)
    contenders = []
    for one in runs:
        own, predicted = _predictions(one, task)
        if not np.array_equal(own, targets):
            raise RunError(f"{first.name} and {one.name} have other labels for the same test rows; {REMEDY}")
        result = one.results.run(one.run)
        adapter = one.folder / "adapters" / one.run
        size = _bytes(adapter) if adapter.is_dir() else None
        contenders.append(
            Contender(one.name, one.run, result.model or "", predicted, result.total_parameters or None, size)
        )
    timed, timing = _timed(contenders, runs, config.compute)
    return Compared(tuple(timed), targets, task, f"the test split of {first.results.data.source}", timing)


def _saved(name: str, path: Path) -> _Saved:
    """The run that a path names: the chosen run of a run folder, or a folder under its adapters.

    Raises:
        RunError: it has no saved test predictions.
    """
    folder, run = path, ""
    if path.parent.name == "adapters" and not (path / RESULTS).exists():
        folder, run = path.parent.parent, path.name
    if path.is_dir() and not (folder / RESULTS).exists() and (path / "loralet.json").exists():
        raise RunError(f"{path} is a single adapter without saved test predictions; {REMEDY}")
    if path.is_dir() and not (folder / RESULTS).exists() and (is_classifier(path) or graph_in(path)):
        raise RunError(f"{path} is a classifier without saved test predictions; {REMEDY}")
    results = read_results(folder)
    if not results.finished:
        raise RunError(f"{unfinished_text(folder, results)}; or {REMEDY}")
    if not results.data.test_rows or not (folder / PREDICTIONS).exists():
        raise RunError(f"{folder} has no test split, and so no saved test predictions; {REMEDY}")
    return _Saved(name, folder, results, run or chosen_run(results).id)


def _require_same_rows(first: _Saved, other: _Saved) -> None:
    """Check that two runs were tested on the same rows.

    Raises:
        RunError: they were not, or it cannot be known.
    """
    one, two = first.results.data, other.results.data
    if set(one.labels) != set(two.labels):
        raise RunError(
            f"{first.name} and {other.name} have different labels ({', '.join(one.labels)}; {', '.join(two.labels)}): "
            "they cannot be compared"
        )
    same = one.fingerprint == two.fingerprint or (one.test_fingerprint and one.test_fingerprint == two.test_fingerprint)
    if not same:
        raise RunError(
            f"{first.name} and {other.name} were tested on different rows (test splits of {one.source} and "
            f"{two.source}, {one.test_rows:,} and {two.test_rows:,} rows); {REMEDY}"
        )


def _predictions(one: _Saved, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Targets and predictions as class numbers of ``task``, which may have the labels in another order.

    Raises:
        RunError: the run has no predictions, or the file is damaged.
    """
    own = TASKS[one.results.task](one.results.data.labels)
    targets, _, predicted = read_predictions(one.folder, own)
    if one.run not in predicted:
        raise RunError(f"{one.folder}: no saved predictions of {one.run}; {REMEDY}")
    numbers = np.array([task.labels.index(label) for label in own.labels])
    return numbers[targets], numbers[predicted[one.run]]


def _timed(
    contenders: Sequence[Contender], runs: Sequence[_Saved], compute: ComputeOptions
) -> tuple[list[Contender], str]:
    """The contenders with their prediction time on training texts of the first run, and how it was measured.

    Saved predictions can be compared without the data and the encoders, so that their absence is only a remark.
    """
    try:
        results = runs[0].results
        dataset = dataset_of(results.data.source, read_config(runs[0].folder, results.kind).reading, results.task)
        texts = dataset.train.texts.slice(0, TIMED_TEXTS).to_pylist()
        ensembles = [_open(one.folder / "adapters" / one.run, compute)[1] for one in runs]
    except (LoraletError, OSError) as error:
        return list(contenders), f"prediction time was not measured: {str(error).splitlines()[0]}"
    seconds = [_seconds(ensemble, texts) for ensemble in ensembles]
    timed = [replace(one, seconds=own) for one, own in zip(contenders, seconds, strict=True)]
    return timed, f"prediction time: per text, on {len(texts):,} training texts; {_backends(ensembles)}"


def evaluated(config: CompareConfig) -> Compared:
    """All runs, evaluated on given rows.

    Raises:
        RunError: a run cannot be loaded, or the labels differ.
        DataError: the rows cannot be read.
    """
    require_different([Path(name) for name in config.folders])
    adapters = {name: find_adapter(Path(name)) for name in config.folders}
    opened = {name: _open(adapter, config.compute) for name, adapter in adapters.items()}
    ensembles = {name: ensemble for name, (_, ensemble) in opened.items()}
    _require_same_labels(ensembles)
    task = next(iter(ensembles.values())).task
    splits = labelled_rows(config, adapters, task)
    split = next(iter(splits.values()))
    for remark in dict.fromkeys(remark for own in splits.values() for remark in own.notes):
        note(remark)
    for name, own in splits.items():
        for remark in record_test_reads([adapters[name]], own, task.labels):
            note(remark)
    contenders = []
    for name, (one, ensemble) in opened.items():
        texts = splits[name].texts.to_pylist()
        numbers = np.array([task.labels.index(label) for label in ensemble.labels])
        predicted = numbers[ensemble.task.predicted(ensemble.logits(texts))]
        parameters = sum(array.size for array in (*one.arrays.values(), *one.checkpoint.arrays.values()))
        seconds, size = _seconds(ensemble, texts[:TIMED_TEXTS]), _bytes(adapters[name])
        contenders.append(Contender(name, one.artifact.id, one.artifact.backbone, predicted, parameters, size, seconds))
    timing = f"prediction time: per text, on {min(TIMED_TEXTS, len(split)):,} of these texts; "
    return Compared(tuple(contenders), split.targets, task, split.source, timing + _backends([*ensembles.values()]))


def labelled_rows(config: CompareConfig, adapters: Mapping[str, Path], task: Task) -> dict[str, Split]:
    """The given rows for each run, with the text of the columns that it was trained on.

    Raises:
        DataError: the rows cannot be read, or rows are left out for some runs, as their text is empty.
    """
    found: dict[tuple[tuple[str, ...], str], Split] = {}
    splits: dict[str, Split] = {}
    for name, adapter in adapters.items():
        text, label = trained_columns([adapter])
        if (text, label) not in found:
            columns = replace(columns_of(config.columns), trained_text=text, trained_label=label)
            found[text, label] = load_labelled(config.data, columns, task, config.labels_are_indices)
        splits[name] = found[text, label]
    first, *others = found.values()
    if any(not np.array_equal(first.places.rows, other.places.rows) for other in others):
        raise DataError(
            f"{config.data}: some rows have an empty text in the columns of one run and not in those of another; "
            "remove them, or choose the columns with --text-column"
        )
    if any(not np.array_equal(first.targets, other.targets) for other in others):
        raise DataError(f"{config.data}: the runs read labels from different columns; choose one with --label-column")
    return splits


def _require_same_labels(ensembles: Mapping[str, Ensemble]) -> None:
    """Check that all runs have the same labels, in any order.

    Raises:
        RunError: they have not.
    """
    (first, wanted), *others = ensembles.items()
    for name, own in others:
        if set(own.labels) != set(wanted.labels):
            raise RunError(
                f"{first} and {name} have different labels ({', '.join(wanted.labels)}; {', '.join(own.labels)}): "
                "they cannot be compared"
            )


def _open(adapter: Path, compute: ComputeOptions) -> tuple[Opened, Ensemble]:
    opened = read_adapter(adapter, ModelOptions())
    return opened, ensemble_of({str(adapter): opened}, compute)


def _seconds(ensemble: Ensemble, texts: Sequence[str]) -> float:
    """Seconds per text of one call, after a warm-up."""
    ensemble.logits(texts[:WARM_UP])
    started = time.perf_counter()
    ensemble.logits(texts)
    return (time.perf_counter() - started) / len(texts)


def _backends(ensembles: Sequence[Ensemble]) -> str:
    return "; ".join(dict.fromkeys(line for ensemble in ensembles for line in ensemble.backends))


def _bytes(adapter: Path) -> int | None:
    """Size of the trained weights of an adapter folder, a linear model on words included; None without such files."""
    sizes = [(adapter / name).stat().st_size for name in (*WEIGHTS, TOKENS, ARRAYS) if (adapter / name).exists()]
    return sum(sizes) or None
