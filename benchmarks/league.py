"""Accuracy on data sets of many kinds, against linear models on words and on frozen embeddings.

    python benchmarks/league.py LEAGUE AG_NEWS --frozen MINILM [--models MODEL ...] [--once MODEL ...] [--seeds 0 1 2]
        [--validation]

LEAGUE is a folder of data sets, each a folder with train.csv and test.csv (columns text and label); AG_NEWS is another
such folder. MINILM is a folder with all-MiniLM-L6-v2. loralet trains as ``loralet train`` without options, once per
seed. Prints a table and writes JSON. With --validation, only the training files are read, and accuracies are those of
validation rows: use it to choose defaults.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import numpy as np
from frozen import embeddings, fit
from machine import describe_machine

from loralet.atomic import write_json
from loralet.config import DataOptions, TrainConfig, TrainingOptions
from loralet.config.toml import options_text
from loralet.data.sources import Split
from loralet.hub.backbone import load_backbone
from loralet.records import plain
from loralet.report.statistics import paired, reliability
from loralet.runs.environment import environment
from loralet.runs.folder import RunFolder, read_predictions
from loralet.runs.selection import chosen_run
from loralet.studies.plan import plan_train
from loralet.studies.study import carry_out, prepare
from loralet.tasks.baselines import LinearWords
from loralet.training.corpus import load_corpus

SETS = (
    "snips",
    "slurp_intents",
    "stackoverflow_titles",
    "liar",
    "financial_phrases",
    "medical_abstracts",
    "offensive_tweets",
    "airline_reviews",
    "toxicity",
)
"""The single-label sets of the league."""
WORDS, FROZEN = "TF-IDF + linear SVM", "frozen MiniLM + logistic regression"
ENCODER = ", encoder alone"
"""Ending of the name of a classifier without the linear model of its hybrid."""


class Outcome(NamedTuple):
    """One classifier on one data set.

    Args:
        validation: accuracy on the validation rows.
        right: whether each test row is classified correctly; empty without a test split.
        seconds: from reading the data to the last prediction.
        ece: expected calibration error on the test rows; None without probabilities or test rows.
    """

    validation: float
    right: np.ndarray
    seconds: float
    ece: float | None = None


class Data(NamedTuple):
    """The splits of a data set; ``test`` is empty if it is not read."""

    train: Split
    validation: Split
    test: Split


def read(source: str) -> Data:
    """Read a data set with loralet's default validation split."""
    corpus = load_corpus(source, DataOptions(), TrainingOptions().validation_sample)
    held_out = corpus.dataset.test
    return Data(
        corpus.train, corpus.validation, held_out.read() if held_out else corpus.train.take(np.empty(0, np.int64))
    )


def linear_words(data: Data) -> Outcome:
    """The linear model on words."""
    started = time.perf_counter()
    model = LinearWords.fit(data.train.texts.to_pylist(), data.train.targets)
    validation, test = (
        model.predict(part.texts.to_pylist()) == part.targets if len(part) else np.empty(0, bool)
        for part in (data.validation, data.test)
    )
    return Outcome(float(validation.mean()), test, time.perf_counter() - started)


def frozen_embeddings(data: Data, folder: str) -> Outcome:
    """Logistic regression on the embeddings of a frozen encoder."""
    started = time.perf_counter()
    backbone = load_backbone(folder)
    texts = [text for part in data for text in part.texts.to_pylist()]
    train, validation, test = np.split(
        embeddings(backbone, texts), [len(data.train), len(data.train) + len(data.validation)]
    )
    model = fit(train, data.train.targets, validation, data.validation.targets)
    right = model.predict(test) == data.test.targets if len(test) else np.empty(0, bool)
    ece = reliability(model.predict_proba(test), data.test.targets).ece if len(test) else None
    score = float(model.score(validation, data.validation.targets))
    return Outcome(score, right, time.perf_counter() - started, ece)


def loralet(config: TrainConfig) -> Iterator[tuple[str, Outcome]]:
    """A training as ``loralet train`` does it: the classifier, and the encoder alone if the classifier is a hybrid."""
    started = time.perf_counter()
    prepared = prepare(plan_train(config), lambda event: None)
    with tempfile.TemporaryDirectory() as path:
        with closing(RunFolder(Path(path), options_text(config), environment(prepared.backends))) as folder:
            results = carry_out(prepared, folder, lambda event: None)
        seconds, task = time.perf_counter() - started, prepared.corpus.dataset.task
        tested = prepared.corpus.dataset.test is not None
        targets, probabilities, predicted = read_predictions(Path(path), task) if tested else (None, {}, {})
    chosen = chosen_run(results)
    for name, id in (("", chosen.id), (ENCODER, (chosen.members or (chosen.id,))[0])):
        validation = results.run(id).validation
        assert validation is not None
        if targets is None:
            yield name, Outcome(validation["accuracy"], np.empty(0, bool), seconds)
        else:
            ece = reliability(probabilities[id], targets).ece
            yield name, Outcome(validation["accuracy"], predicted[id] == targets, seconds, ece)


def outcomes(source: str, config: TrainConfig, arguments: argparse.Namespace) -> Iterator[tuple[str, list[Outcome]]]:
    """Every classifier on one data set, one outcome per seed."""
    data = read(source)
    yield WORDS, [linear_words(data)]
    if arguments.frozen:
        yield FROZEN, [frozen_embeddings(data, arguments.frozen)]
    seeds = dict.fromkeys(arguments.models, arguments.seeds) | dict.fromkeys(arguments.once, arguments.seeds[:1])
    for model, own in seeds.items():
        found: dict[str, list[Outcome]] = {}
        for seed in own:
            for name, outcome in loralet(replace(config, data=source, model=model, seed=seed)):
                found.setdefault(f"{Path(model).name}{name}", []).append(outcome)
        yield from found.items()


def summary(found: Sequence[Outcome], words: Sequence[Outcome]) -> dict[str, Any]:
    """Means over the seeds, and the paired comparison with the linear model on words over the rows of all seeds."""
    row: dict[str, Any] = {
        "validation": fmean(one.validation for one in found),
        "validation_seeds": [one.validation for one in found],
        "seconds": fmean(one.seconds for one in found),
    }
    if len(found[0].right):
        accuracies = [float(one.right.mean()) for one in found]
        row |= {"test": fmean(accuracies), "test_seeds": accuracies}
        row |= {"test_sd": stdev(accuracies)} if len(accuracies) > 1 else {}
        if found is not words:
            right = np.stack([one.right for one in found])
            row["over_words"] = plain(paired(np.repeat(words[0].right[None], len(found), 0), right))
        errors = [one.ece for one in found if one.ece is not None]
        row |= {"ece": fmean(errors)} if errors else {}
    return row


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("league", type=Path, help="folder of data sets")
    parser.add_argument("news", type=Path, help="folder of AG News")
    parser.add_argument("--frozen", default="", help="folder of the encoder whose frozen embeddings are compared")
    parser.add_argument("--models", nargs="*", default=[TrainConfig().model], help="backbones")
    parser.add_argument("--once", nargs="*", default=[], help="more backbones, trained with the first seed only")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--sets", nargs="+", default=[*SETS, "ag_news"], help="names of the data sets")
    parser.add_argument("--validation", action="store_true", help="read only training files")
    parser.add_argument("--head", default=TrainingOptions().head)
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--length", type=int, default=DataOptions().max_length)
    parser.add_argument("--lr", type=float, default=TrainConfig().lr)
    parser.add_argument("--add", action="store_true", help="keep the other results of the JSON file")
    parser.add_argument("--note", default="", help="a sentence about the measurement, for the docs")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    config = replace(
        TrainConfig(),
        lr=arguments.lr,
        folds=0 if arguments.validation else None,
        training=replace(TrainingOptions(), head=arguments.head, epochs=arguments.epochs),
        reading=replace(DataOptions(), max_length=arguments.length),
    )
    metric, machine = "validation" if arguments.validation else "test", describe_machine()
    rows: dict[str, dict[str, Any]] = json.loads(arguments.out.read_text())["rows"] if arguments.add else {}
    for name in arguments.sets:
        folder = arguments.news if name == "ag_news" else arguments.league / name
        words: list[Outcome] = []
        for classifier, found in outcomes(
            str(folder / "train.csv") if arguments.validation else str(folder), config, arguments
        ):
            words = words or found
            row = rows.setdefault(classifier, {})[name] = summary(found, words)
            shown = row["validation"] if arguments.validation else row["test"]
            print(f"{name:22} {classifier:38} {shown:.4f} {row['seconds']:6.1f} s", flush=True)
        write_json(arguments.out, {"metric": metric, "rows": rows, "machine": machine, "note": arguments.note})
    for classifier, by_set in rows.items():
        print(f"{'mean':22} {classifier:38} {fmean(row[metric] for row in by_set.values()):.4f}")


if __name__ == "__main__":
    main()
