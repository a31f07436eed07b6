"""``loralet evaluate``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from loralet.artifacts.folder import Artifact
from loralet.atomic import write_json
from loralet.commands.threads import set_threads
from loralet.config import EvaluateConfig, StudyConfig, TrainConfig
from loralet.config.toml import read_options
from loralet.data.files import Columns
from loralet.data.sources import Split, load_dataset, load_labelled
from loralet.errors import RunError
from loralet.inference.ensemble import find_adapters, load_ensemble
from loralet.inference.evaluation import Scores, score_logits
from loralet.runs.folder import read_results
from loralet.training.corpus import columns_of


def evaluate(config: EvaluateConfig) -> None:
    """Measure a run on labelled data, or once more on its own test split, which its results then record."""
    set_threads(config.threads)
    folder = Path(config.folder)
    adapters = find_adapters(folder, config.run, config.runs, config.also)
    ensemble = load_ensemble(adapters, force=config.any_backbone, labels=config.label_names, backbone=config.backbone)
    if config.data:
        split = load_labelled(
            config.data, Columns(config.text_column, config.label_column, config.columns), ensemble.labels
        )
    else:
        split = _own_test(folder, ensemble.artifacts)
    scores = score_logits(ensemble.log_probabilities(split.texts), split.labels)
    name = " + ".join(artifact.id for artifact in ensemble.artifacts)
    if config.format == "json":
        print(json.dumps({"run": name, "data": split.source, "rows": len(split)} | scores.to_json(), indent=2))
    else:
        _print_scores(name, split.source, len(split), scores)


def _own_test(folder: Path, artifacts: Sequence[Artifact]) -> Split:
    results = read_results(folder) if (folder / "results.json").exists() else None
    if results is None:
        raise RunError(f"{folder} is a single adapter: name the data to measure it on")
    path = folder / "config.toml"
    config = read_options(path, StudyConfig) if results["kind"] == "study" else read_options(path, TrainConfig)
    reading = config.reading
    dataset = load_dataset(results["data"]["source"], columns_of(reading), reading.label_names, reading.drop_overlap)
    if dataset.test is None:
        raise RunError(f"{results['data']['source']} has no test split: name the data to measure on")
    for artifact in artifacts:
        if dataset.fingerprint != artifact.data_fingerprint:
            raise RunError(
                f"{results['data']['source']} is not, or no longer, what {artifact.id} of this ensemble was trained on: name the data to measure on"
                if len(artifacts) > 1
                else f"{results['data']['source']} has changed since {folder} was trained on it: name the data to measure on"
            )
    split = dataset.test.read()
    write_json(folder / "results.json", results | {"test_reads": results["test_reads"] + 1})
    return split


def _print_scores(run: str, source: str, rows: int, scores: Scores) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{run} on {source}: {rows:,} rows", markup=False)
    console.print(
        f"accuracy  {scores.accuracy:.4f}  (95 % interval {scores.accuracy_low:.4f}–{scores.accuracy_high:.4f})"
    )
    console.print(
        f"macro precision {scores.macro_precision:.4f}  recall {scores.macro_recall:.4f}  F1 {scores.macro_f1:.4f}  loss {scores.loss:.4f}"
    )
