"""The commands behind the front door; importing this imports torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from loralet.config import DistillConfig, EvaluateConfig, Interface, PredictConfig, ShowConfig, StudyConfig, TrainConfig
from loralet.data.files import SUFFIXES, Columns, read_table
from loralet.data.sources import Split, load_dataset, load_labelled
from loralet.deploy.classifier import find_adapter, load_classifier
from loralet.engine.corpus import columns_of
from loralet.engine.evaluate import Scores, score_logits
from loralet.engine.runs import RunFolder, new_run_folder, read_results
from loralet.errors import ConfigError, DataError, RunError
from loralet.show.predictions import WRITERS
from loralet.show.progress import ProgressView
from loralet.show.table import results_table, table_console
from loralet.store.atomic import write_json
from loralet.store.options import read_options


def study(config: StudyConfig, interface: Interface) -> None:
    """Train a grid and print its table."""
    from loralet.studies.plan import plan_study

    _required(config.data, config.grid.models, "--models")
    _carry_out("study", config, interface, plan_study)


def train(config: TrainConfig, interface: Interface) -> None:
    """Train one run and print its table."""
    from loralet.studies.plan import plan_train

    _required(config.data, config.model, "--model")
    _carry_out("train", config, interface, plan_train)


def _required(data: str, model: object, flag: str) -> None:
    missing = [] if data else ["no data named: give a file, a folder or a hub id"]
    missing += [] if model else [f"no model named: give {flag} with a folder or a hub id"]
    if missing:
        raise ConfigError.listing(missing)


def _carry_out(kind: str, config: Any, interface: Interface, plan: Callable[[Any], Any]) -> None:
    from loralet.studies.study import carry_out, prepare

    _set_threads(config.training.threads)
    planned = plan(config)
    path = new_run_folder(config.out, kind)
    with ProgressView(Console(stderr=True), interface.quiet) as view:
        prepared = prepare(planned, view)
        with closing(RunFolder(path, config)) as folder:
            results = carry_out(planned, prepared, folder, view)
    console = table_console()
    console.print(results_table(results))
    console.print(f"run folder: {path}", highlight=False, soft_wrap=True)


def evaluate(config: EvaluateConfig) -> None:
    """Measure a run on labelled data, or once more on its own test split, which its results then record."""
    _set_threads(config.threads)
    folder = Path(config.folder)
    classifier = load_classifier(find_adapter(folder, config.run))
    labels = classifier.artifact.labels
    if config.data:
        split = load_labelled(config.data, Columns(config.text_column, config.label_column, config.columns), labels)
    else:
        split = _own_test(folder, classifier.artifact.data_fingerprint)
    scores = score_logits(classifier.logits(split.texts), split.labels)
    if config.format == "json":
        print(json.dumps({"run": classifier.artifact.id, "data": split.source, "rows": len(split)} | scores.to_json(), indent=2))
    else:
        _print_scores(classifier.artifact.id, split.source, len(split), scores)


def _own_test(folder: Path, fingerprint: str) -> Split:
    results = read_results(folder) if (folder / "results.json").exists() else None
    if results is None:
        raise RunError(f"{folder} is a single adapter: name the data to measure it on")
    path = folder / "config.toml"
    config = read_options(path, StudyConfig) if results["kind"] == "study" else read_options(path, TrainConfig)
    reading = config.reading
    dataset = load_dataset(results["data"]["source"], columns_of(reading), reading.label_names, reading.drop_overlap)
    if dataset.test is None:
        raise RunError(f"{results['data']['source']} has no test split: name the data to measure on")
    if dataset.fingerprint != fingerprint:
        raise RunError(f"{results['data']['source']} has changed since {folder} was trained on it: name the data to measure on")
    split = dataset.test.read()
    write_json(folder / "results.json", results | {"test_reads": results["test_reads"] + 1})
    return split


def _print_scores(run: str, source: str, rows: int, scores: Scores) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{run} on {source}: {rows:,} rows", markup=False)
    console.print(f"accuracy  {scores.accuracy:.4f}  (95 % interval {scores.accuracy_low:.4f}–{scores.accuracy_high:.4f})")
    console.print(f"macro precision {scores.macro_precision:.4f}  recall {scores.macro_recall:.4f}  F1 {scores.macro_f1:.4f}  loss {scores.loss:.4f}")


def predict(config: PredictConfig) -> None:
    """Classify texts and print them in the order they came."""
    _set_threads(config.threads)
    if config.texts and config.file:
        raise ConfigError("give texts or --file, not both")
    adapter = find_adapter(Path(config.folder), config.run)
    texts = list(config.texts) or _read_texts(config.file or "-", config.text_column)
    classifier = load_classifier(adapter, config.precision)
    if not config.run and adapter != Path(config.folder):
        print(f"· using {classifier.artifact.id}, which validation chose", file=sys.stderr)
    WRITERS[config.format](classifier.predict(texts), classifier.artifact.labels, sys.stdout)


def _read_texts(file: str, text_column: str) -> list[str]:
    if file != "-" and Path(file).suffix.lower() in SUFFIXES:
        return list(read_table(Path(file), Columns(text=text_column), labelled=False, keep_empty=True).texts.to_pylist())
    try:
        raw = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error
    lines = raw.removesuffix(b"\n").split(b"\n") if raw else []
    texts: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            texts.append(line.removesuffix(b"\r").decode())
        except UnicodeDecodeError as error:
            raise DataError(f"{'standard input' if file == '-' else file}: row {number} is not UTF-8; save it as UTF-8") from error
    if not texts:
        raise DataError(f"{'standard input' if file == '-' else file}: there is no text in it")
    return texts


def show(config: ShowConfig) -> None:
    """Print the table of a run folder."""
    console = table_console()
    console.print(results_table(read_results(Path(config.folder))))


def distill(config: DistillConfig, interface: Interface) -> None:
    """Build a small encoder from a larger one and print how close it came."""
    from loralet.distil.build import build_student

    _set_threads(config.threads)
    with ProgressView(Console(stderr=True), interface.quiet) as view:
        last = build_student(config, view)
    losses = "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in last.held_out.items())
    print(f"held-out losses after {last.epoch} epochs: {losses}\nstudent: {config.out}")


def _set_threads(threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
