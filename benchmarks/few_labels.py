"""Accuracy with few labels per class, against linear models on words and on frozen embeddings.

    python benchmarks/few_labels.py LEAGUE AG_NEWS [--frozen MINILM] [--models MODEL ...] [--draws 10] [--labels 8 16]

LEAGUE and AG_NEWS are the folders of ``benchmarks/league.py``. Each draw takes the same number of rows per class from
train.csv at random; loralet trains on them as ``loralet train`` without options, and every classifier is measured on
all rows of test.csv. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from frozen import INVERSE_PENALTIES, embeddings
from league import FROZEN, WORDS, loralet
from machine import describe_machine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from loralet.atomic import write_json
from loralet.config import DataOptions, TrainConfig, TrainingOptions
from loralet.data.sources import Split
from loralet.hub.backbone import load_backbone
from loralet.tasks.baselines import LinearWords
from loralet.training.corpus import load_corpus

SETS = ("ag_news", "snips", "stackoverflow_titles", "financial_phrases")


def draw_rows(targets: np.ndarray, labels: int, seed: int) -> np.ndarray:
    """Rows with ``labels`` random rows of each class, ``[labels * classes]``."""
    random = np.random.default_rng([labels, seed])
    return np.concatenate([random.permutation(np.flatnonzero(targets == k))[:labels] for k in np.unique(targets)])


def linear_words(train: Split, test: Split) -> float:
    """Accuracy of the linear model on words."""
    model = LinearWords.fit(train.texts.to_pylist(), train.targets)
    return float((model.predict(test.texts.to_pylist()) == test.targets).mean())


def logistic(train: np.ndarray, targets: np.ndarray, test: np.ndarray, test_targets: np.ndarray) -> float:
    """Accuracy of logistic regression with the inverse penalty that is best in 5-fold cross-validation."""
    search = GridSearchCV(LogisticRegression(max_iter=2000), {"C": INVERSE_PENALTIES}, cv=5)
    return float(search.fit(train, targets).score(test, test_targets))


def write_table(path: Path, rows: Split, classes: Sequence[str]) -> None:
    """Write a split as a CSV file with the columns text and label."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows((text, classes[k]) for text, k in zip(rows.texts.to_pylist(), rows.targets, strict=True))


def measure(
    train: Split, test: Split, classes: Sequence[str], labels: int, arguments: argparse.Namespace
) -> Iterator[tuple[str, list[float]]]:
    """Name and accuracies of each classifier, one per draw."""
    draws = [draw_rows(train.targets, labels, seed) for seed in range(arguments.draws)]
    yield WORDS, [linear_words(train.take(rows), test) for rows in draws]
    if arguments.frozen:
        drawn = np.unique(np.concatenate(draws))
        found = embeddings(
            load_backbone(arguments.frozen), [*train.take(drawn).texts.to_pylist(), *test.texts.to_pylist()]
        )
        own, held_out = found[: len(drawn)], found[len(drawn) :]
        yield (
            FROZEN,
            [
                logistic(own[np.searchsorted(drawn, rows)], train.targets[rows], held_out, test.targets)
                for rows in draws
            ],
        )
    for model in arguments.models:
        by_name: dict[str, list[float]] = {}
        for seed, rows in enumerate(draws):
            with tempfile.TemporaryDirectory() as path:
                write_table(Path(path) / "train.csv", train.take(rows), classes)
                write_table(Path(path) / "test.csv", test, classes)
                for name, outcome in loralet(replace(TrainConfig(), data=path, model=model, seed=seed)):
                    by_name.setdefault(f"{Path(model).name}{name}", []).append(float(outcome.right.mean()))
        yield from by_name.items()


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("league", type=Path, help="folder of data sets")
    parser.add_argument("news", type=Path, help="folder of AG News")
    parser.add_argument("--frozen", default="", help="folder of the encoder whose frozen embeddings are compared")
    parser.add_argument("--models", nargs="*", default=[TrainConfig().model], help="backbones")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--labels", type=int, nargs="+", default=[8, 16, 64], help="labels per class")
    parser.add_argument("--sets", nargs="+", default=SETS, help="names of the data sets")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    found: dict[int, dict[str, dict[str, dict[str, object]]]] = {}
    for name in arguments.sets:
        source = str(arguments.news if name == "ag_news" else arguments.league / name)
        corpus = load_corpus(source, DataOptions(), TrainingOptions().validation_sample)
        if corpus.dataset.test is None:
            parser.error(f"{source}: has no test rows")
        test, classes = corpus.dataset.test.read(), corpus.dataset.task.classes
        for labels in arguments.labels:
            for classifier, accuracies in measure(corpus.train, test, classes, labels, arguments):
                spread = stdev(accuracies) if len(accuracies) > 1 else None
                row = {"test": fmean(accuracies), "test_sd": spread, "test_draws": accuracies}
                found.setdefault(labels, {}).setdefault(classifier, {})[name] = row
                print(f"{labels:3} {name:22} {classifier:38} {fmean(accuracies):.4f}", flush=True)
    for labels, by_classifier in found.items():
        for classifier, by_set in by_classifier.items():
            mean = fmean(fmean(row["test_draws"]) for row in by_set.values())  # type: ignore[arg-type]
            print(f"{labels:3} {'mean':22} {classifier:38} {mean:.4f}")
    write_json(arguments.out, {"draws": arguments.draws, "labels": found, "machine": describe_machine()})


if __name__ == "__main__":
    main()
