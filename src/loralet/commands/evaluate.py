"""``loralet evaluate``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.text import Text

from loralet.artifacts.artifact import Artifact
from loralet.commands.backends import announce
from loralet.config import EvaluateConfig
from loralet.data.sources import Split, load_labelled
from loralet.errors import RunError
from loralet.inference.adapters import find_adapters, trained_columns
from loralet.inference.ensemble import Ensemble, load_ensemble
from loralet.report.evaluation import evaluation_of, evaluation_text
from loralet.report.results_table import table_console
from loralet.runs.results import NAME, read_results, unfinished_text, write_results
from loralet.runs.selection import with_test_read
from loralet.runs.sources import columns_of, dataset_of, read_config
from loralet.runs.test_reads import record_test_reads
from loralet.runtime import using_threads
from loralet.terminal import note


def evaluate(config: EvaluateConfig) -> None:
    """Evaluate a run on labelled data, or again on its own test split. The results record each read of that split,
    also if it is given as data."""
    with using_threads(config.compute.threads):
        adapters = find_adapters(config.runs)
        ensemble = load_ensemble(adapters, config.model, config.compute)
        announce(ensemble.backends)
        if config.rows.data:
            rows = config.rows
            text, label = trained_columns(adapters)
            columns = replace(columns_of(rows.columns), trained_text=text, trained_label=label)
            split = load_labelled(rows.data, columns, ensemble.task, rows.labels_are_indices)
            for remark in (*split.notes, *record_test_reads(adapters, split, ensemble.labels)):
                note(remark)
        else:
            split = _own_test(Path(config.runs.one.folder), ensemble.artifacts)
        names = (_names(ensemble), split.source, "; ".join(ensemble.backends))
        found = evaluation_of(ensemble.task, ensemble.logits(split.texts), split.targets, config.target_accuracy, names)
    if config.format == "json":
        print(json.dumps(found.to_json(), indent=2))
        return
    console = table_console()
    for part in evaluation_text(found):
        console.print(part, soft_wrap=isinstance(part, Text))


def _own_test(folder: Path, artifacts: Sequence[Artifact]) -> Split:
    """Read the test split of the run's own data, and record this read in the results."""
    if not (folder / NAME).exists():
        raise RunError(f"{folder} is a single adapter without a test split: give the data to evaluate it on")
    results = read_results(folder)
    if not results.finished:
        raise RunError(
            f"{unfinished_text(folder, results)}, which reads the test split once: give other data to evaluate on"
        )
    source = results.data.source
    dataset = dataset_of(source, read_config(folder, results.kind).reading, results.task)
    if dataset.test is None:
        raise RunError(f"{source} has no test split: give the data to evaluate on")
    for artifact in artifacts:
        if dataset.fingerprint != artifact.data_fingerprint:
            raise RunError(
                f"{source} is not the data that {artifact.id} was trained on, or it has changed: "
                "give the data to evaluate the ensemble on"
                if len(artifacts) > 1
                else f"{source} has changed since {folder} was trained on it: give the data to evaluate on"
            )
    split = dataset.test.read()
    write_results(folder, with_test_read(results))
    return split


def _names(ensemble: Ensemble) -> str:
    return " + ".join(artifact.id for artifact in ensemble.artifacts)
