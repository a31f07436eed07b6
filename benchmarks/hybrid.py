"""Accuracy of the hybrid of a LoRA and a linear model on words, its weight and its size, on several data sets.

    python benchmarks/hybrid.py DATA... [--models news-tiny] [--seeds 0 1 2] [--keep FOLDER]

Each DATA is a folder with train and test files; of the training rows, at most --rows are read. Each run is
``loralet train`` with its defaults. The linear model is fitted with several values of C and of the largest number of
features. Choices are made on validation rows: rules that decide whether to use the linear model are compared by
choosing the weight on a random half of the validation rows and measuring on the other half. The test rows are read at
the end; no choice depends on them. With --keep, the logits of the trained runs are kept in a folder and reused. Prints
a table and writes JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from machine import describe_machine

from loralet.artifacts.words import write_words
from loralet.atomic import write_json
from loralet.config import ComputeOptions, DataOptions, TrainConfig, TrainingOptions
from loralet.report.statistics import paired, reliability
from loralet.studies.plan import plan_train
from loralet.studies.study import prepare
from loralet.tasks.mixing import Mixture, choose_weight, mixed
from loralet.tasks.single_label import log_softmax
from loralet.tasks.words import INVERSE_PENALTY, MOST_FEATURES, FittedWords, fit_words
from loralet.training.corpus import split_rows
from loralet.training.session import train_pack

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0)
SIZES = (2_000, 5_000, 10_000, 20_000, 50_000, 200_000)
HALVES = 40
"""Random halves of the validation rows on which a rule is compared."""
RULES: dict[str, Callable[[Mixture], bool]] = {
    "never": lambda mixture: False,
    "always": lambda mixture: True,
    "if it pays": lambda mixture: mixture.pays,
}


@dataclass(frozen=True)
class Rows:
    """Logits and targets of one split."""

    own: np.ndarray
    targets: np.ndarray
    texts: Sequence[str]


@contextmanager
def at_most(data: Path, rows: int) -> Iterator[Path]:
    """A copy of a data set with at most this many training rows: the first ones, as the files are shuffled."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / data.name
        folder.mkdir()
        for path in data.glob("*.csv"):
            with path.open(newline="", encoding="utf-8") as file:
                lines = list(csv.reader(file))
            with (folder / path.name).open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(lines[: rows + 1] if path.stem == "train" else lines)
        yield folder


def accuracy(logits: np.ndarray, targets: np.ndarray) -> float:
    """Share of rows whose largest logit is that of their class."""
    return float((logits.argmax(1) == targets).mean())


def loss(logits: np.ndarray, targets: np.ndarray) -> float:
    """Mean loss in nats."""
    return -float(log_softmax(logits)[np.arange(len(targets)), targets].mean())


Training = tuple[list[str], np.ndarray, int]
"""Texts, targets and number of classes."""


def trained(data: Path, model: str, seed: int) -> tuple[dict[str, Rows], Training]:
    """Validation and test rows of a run with the defaults, and its training rows."""
    config = TrainConfig(str(data), model, seed=seed, training=TrainingOptions(hybrid="off"), compute=ComputeOptions())
    prepared = prepare(plan_train(config), lambda event: None)
    ((session, corpus),) = ((session, prepared.corpus) for session in prepared.sessions.values())
    row = train_pack(session, prepared.plan.runs, lambda event: None)[0]
    assert corpus.dataset.test is not None
    test = corpus.dataset.test.read()
    splits = {
        "validation": (corpus.validation, session.rows.validation),
        "test": (test, split_rows(test, session.backbone, DataOptions().max_length)),
    }
    found = {
        name: Rows(session.logits([row.run], [row.tensors], rows)[0], split.targets, split.texts.to_pylist())
        for name, (split, rows) in splits.items()
    }
    return found, (corpus.train.texts.to_pylist(), corpus.train.targets, session.task.outputs)


def kept(keep: Path | None, data: Path, model: str, seed: int) -> tuple[dict[str, Rows], Training]:
    """:func:`trained`, or what it gave before."""
    if keep is None:
        return trained(data, model, seed)
    path = keep / f"{data.name}-{model}-{seed}.pickle"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(trained(data, model, seed)))
    found: tuple[dict[str, Rows], Training] = pickle.loads(path.read_bytes())
    return found


def halves(rows: Rows, others: np.ndarray) -> dict[str, dict[str, float]]:
    """Accuracy and loss on one half of the rows of each rule that chose on the other half, mean over random halves."""
    generator, sums = np.random.default_rng(0), {name: [0.0, 0.0] for name in RULES}
    for _ in range(HALVES):
        order = generator.permutation(len(rows.targets))
        chosen, held = order[: len(order) // 2], order[len(order) // 2 :]
        mixture = choose_weight(rows.own[chosen], others[chosen], rows.targets[chosen])
        for name, rule in RULES.items():
            logits = mixed(rows.own[held], others[held], mixture.weight if rule(mixture) else 1.0)
            sums[name][0] += accuracy(logits, rows.targets[held]) / HALVES
            sums[name][1] += loss(logits, rows.targets[held]) / HALVES
    return {name: {"accuracy": values[0], "loss": values[1]} for name, values in sums.items()}


def size(fitted: FittedWords) -> int:
    """Bytes of the files of a linear model."""
    with tempfile.TemporaryDirectory() as folder:
        write_words(Path(folder), fitted.model)
        return sum(path.stat().st_size for path in Path(folder).iterdir())


def scores(logits: np.ndarray, rows: Rows) -> dict[str, float]:
    """Accuracy, loss and expected calibration error."""
    ece = reliability(np.exp(log_softmax(logits)), rows.targets).ece
    return {"accuracy": accuracy(logits, rows.targets), "loss": loss(logits, rows.targets), "ece": ece}


def variant(splits: Mapping[str, Rows], fitted: FittedWords, full: bool) -> dict[str, Any]:
    """Scores of a linear model and of its hybrid; ``full`` adds the rules and the test rows."""
    rows = splits["validation"]
    others = {name: fitted.model.logits(split.texts) for name, split in splits.items() if full or name != "test"}
    mixture = choose_weight(rows.own, others["validation"], rows.targets)
    weight = mixture.weight if mixture.pays else 1.0
    found: dict[str, Any] = {
        "seconds": fitted.seconds,
        "features": len(fitted.model.idf),
        "bytes": size(fitted),
        "weight": mixture.weight,
        "temperature": mixture.temperature,
        "loss": mixture.loss,
        "lora_loss": mixture.first_loss,
        "pays": mixture.pays,
    }
    for name, logits in others.items():
        own = splits[name]
        found[f"words_{name}"] = scores(logits, own)
        found[f"hybrid_{name}"] = scores(mixed(own.own, logits, mixture.weight), own)
        found[f"auto_{name}"] = scores(mixed(own.own, logits, weight), own)
    if full:
        test = splits["test"]
        chosen = mixed(test.own, others["test"], weight)
        right = [(logits.argmax(1) == test.targets)[None] for logits in (test.own, chosen)]
        found |= {"halves": halves(rows, others["validation"]), "p": paired(*right).p}
    return found


def measure(data: Path, model: str, seeds: Sequence[int], rows: int, keep: Path | None) -> dict[str, Any]:
    """All figures of one data set and one model."""
    runs: list[dict[str, Any]] = []
    with at_most(data, rows) as folder:
        for seed in seeds:
            splits, training = kept(keep, folder, model, seed)
            found: dict[str, Any] = {"seed": seed}
            found |= {f"lora_{name}": scores(split.own, split) for name, split in splits.items()}
            default = fit_words(*training)
            found["default"] = variant(splits, default, full=True)
            if seed == seeds[0]:
                cells = {f"C {c:g}": (c, MOST_FEATURES) for c in PENALTIES}
                cells |= {f"{most:,} features": (INVERSE_PENALTY, most) for most in SIZES}
                found["variants"] = {
                    name: variant(splits, fit_words(*training, *cell), full=False) for name, cell in cells.items()
                }
            runs.append(found)
    counts = {"train": len(training[1]), **{name: len(split.targets) for name, split in splits.items()}}
    return {"data": data.name, "model": model, "labels": training[2], "rows": counts, "runs": runs}


def line(result: Mapping[str, Any]) -> str:
    """One data set as a line of the table: test accuracies, means over the seeds."""
    runs = result["runs"]
    lora, words, auto = (
        100 * fmean(accuracy_of(run) for run in runs)
        for accuracy_of in (
            lambda run: run["lora_test"]["accuracy"],
            lambda run: run["default"]["words_test"]["accuracy"],
            lambda run: run["default"]["auto_test"]["accuracy"],
        )
    )
    weight = fmean(run["default"]["weight"] if run["default"]["pays"] else 1.0 for run in runs)
    size_of = runs[0]["default"]["bytes"] / 1e6
    return f"{result['data']:24}{words:7.1f}{lora:7.1f}{auto:7.1f}   weight {weight:.2f}   {size_of:.2f} MB"


def rounded(value: Any) -> Any:
    """Numbers to five digits after the point, in any nesting."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 5) if isinstance(value, float) else value


def averages(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over data sets and seeds by model: test accuracies, and calibration errors."""
    found: dict[str, dict[str, float]] = {}
    for model in dict.fromkeys(result["model"] for result in results):
        runs = [result["runs"] for result in results if result["model"] == model]
        places = {
            "lora": lambda run: run["lora_test"]["accuracy"],
            "words": lambda run: run["default"]["words_test"]["accuracy"],
            "hybrid": lambda run: run["default"]["auto_test"]["accuracy"],
            "lora_ece": lambda run: run["lora_test"]["ece"],
            "hybrid_ece": lambda run: run["default"]["auto_test"]["ece"],
        }
        found[model] = {name: fmean(fmean(map(place, own)) for own in runs) for name, place in places.items()}
    return found


def main() -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+", help="folders with train and test files")
    parser.add_argument("--models", nargs="+", default=["news-tiny"], help="backbones")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=8_000, help="largest number of training rows")
    parser.add_argument("--keep", type=Path, help="folder for the logits of the trained runs")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    print(f"{'test accuracy':24}{'words':>7}{'LoRA':>7}{'hybrid':>7}")
    for model in arguments.models:
        for data in arguments.data:
            results.append(measure(data, model, arguments.seeds, arguments.rows, arguments.keep))
            print(line(results[-1]), flush=True)
    report = {"machine": describe_machine(), "seeds": arguments.seeds, "halves": HALVES}
    report |= {"averages": averages(results), "sets": results}
    print(json.dumps(report["averages"], indent=2))
    write_json(arguments.out, rounded(report))


if __name__ == "__main__":
    main()
