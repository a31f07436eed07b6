"""Small finished run folders, written by the package's writers without training."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import tomli_w
import torch
from safetensors.torch import save_file

from loralet.adapters.spec import HEAD_ALONE, AdapterSpec
from loralet.artifacts.artifact import Artifact
from loralet.atomic import write_json
from loralet.backends.info import BackendInfo
from loralet.config import GridOptions, StudyConfig, TrainConfig, TrainingOptions
from loralet.config.toml import options_text
from loralet.data.files import Columns
from loralet.data.sources import load_dataset
from loralet.events import Checked, PackStarted, RunEnded, Stepped
from loralet.records import plain
from loralet.runs.environment import SessionBackend, environment
from loralet.runs.folder import PREDICTED, TARGETS, RunFolder
from loralet.runs.out_of_fold import OutOfFold, save_out_of_fold
from loralet.runs.results import DataFacts, Results, SplitClasses, TextLengths
from loralet.runs.run import Run
from loralet.tasks.base import Scores
from loralet.tasks.calibration import CalibrationError, TemperatureScaling
from loralet.tasks.single_label import SingleLabel
from loralet.training.packs import adapter_run
from loralet.training.row import Row

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LABELS = ("apple", "bird", "cat <b>&")
TASK = SingleLabel(LABELS)
NASTY = "</td><script>alert('x')</script> | `a` *b* [c](http://example.org/) & 'd'"
TEST_ROWS, STEPS, EVERY, BATCH = 60, 60, 10, 4
INPUTS = OUTPUTS = 8
NATIVE = BackendInfo("native", "cpu", "AVX-512 BF16", "bf16", 2)
TORCH = BackendInfo("torch", "cpu", "", "fp32", 2, "no C compiler found")

RIGHT = {(2, 8.0): 40, (2, 16.0): 45, (4, 8.0): 50, (4, 16.0): 54}
"""Test rows classified correctly by seed 0, by rank and alpha; seed 1 has one more."""
CONVERGED = {(2, 8.0): None, (2, 16.0): 40, (4, 8.0): 30, (4, 16.0): 20}


def write_data(folder: Path) -> None:
    """A training file and a test file of 60 rows with cycling labels. The first test text contains markup."""
    folder.mkdir()
    for name, rows in (("train", 30), ("test", TEST_ROWS)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            texts = [NASTY if (i, name) == (0, "test") else f"{name} text {i}" for i in range(rows)]
            writer.writerows([text, LABELS[i % 3]] for i, text in enumerate(texts))


def probabilities(right: int) -> np.ndarray:
    """The first ``right`` rows are correct at 0.8; the others are wrong at 0.75, with 0.15 on the label."""
    labels = np.arange(TEST_ROWS) % 3
    values = np.full((TEST_ROWS, 3), 0.1, np.float32)
    rows = np.arange(TEST_ROWS)
    values[rows, labels] = np.where(rows < right, 0.8, 0.15)
    values[rows[right:], (labels[right:] + 1) % 3] = 0.75
    return values


def _scores(right: int) -> Scores:
    scores = TASK.score_predictions(probabilities(right).argmax(1), np.arange(TEST_ROWS) % 3)
    return replace(scores, loss=1 - right / 100)


def _right(row: Row) -> int:
    """Number of test rows classified correctly."""
    assert row.test
    return round(row.test["accuracy"] * TEST_ROWS)


def _row(run: Run, right: int, converged: int | None = None, trainable: int = 0) -> Row:
    row = Row(run, trainable, 1000 + trainable, test=_scores(right), validation=_scores(right))
    if run.role in ("lora", "linear-probe"):
        row.steps, row.converged_step, row.seconds, row.memory = STEPS, converged, 3.0, 2**30
    return row


def _adapter(folder: Path, row: Row, fingerprint: str) -> None:
    """The folder of a trained run: its description, and tensors of the correct sizes."""
    run, path = row.run, folder / "adapters" / row.run.id
    path.mkdir(parents=True)
    role = "linear-probe" if run.role == "linear-probe" else "lora"
    artifact = Artifact(
        id=run.id,
        role=role,
        labels=LABELS,
        adapter=run.adapter,
        head="pooler",
        max_length=128,
        backbone=run.model,
        backbone_fingerprint=fingerprint,
        architecture="bert",
        data_fingerprint="",
        tensors={},
    )
    write_json(path / "loralet.json", artifact.describe())
    rank, head = run.adapter.rank, torch.zeros(9)
    if rank:
        low_rank = {"q.lora_A.weight": torch.zeros(rank, INPUTS), "q.lora_B.weight": torch.zeros(OUTPUTS, rank)}
        save_file(low_rank | {"head": head}, path / "adapter_model.safetensors")
    else:
        save_file({"head": head}, path / "head.safetensors")


def spec(rank: int, alpha: float) -> AdapterSpec:
    """An adapter on the query layers."""
    return AdapterSpec(rank=rank, alpha=alpha, targets=("query",))


def write_study(
    folder: Path,
    data: Path,
    models: tuple[str, ...] = ("./base",),
    seeds: tuple[int, ...] = (0,),
    test: bool = True,
    backends: Sequence[BackendInfo] = (NATIVE,),
) -> Path:
    """A study of two ranks and two alphas. All models have the same fingerprint and the same scores.

    Args:
        folder: folder to create.
        data: see :func:`write_data`.
        models, seeds: models and seeds of the study.
        test: whether the data has a test split.
        backends: one per model, the last one for the rest; empty as in folders without recorded backends.
    """
    grid = GridOptions(models=models, ranks=(2, 4), alphas=(8.0, 16.0), lrs=(0.0015,), seeds=seeds)
    training = TrainingOptions(steps=STEPS, batch_size=BATCH, eval_every=EVERY, target_score=0.7)
    rows = [
        _row(Run("majority", "", "majority"), 20),
        _row(Run("tfidf-svm", "", "tfidf-svm"), 52, trainable=100),
    ]
    for model in models:
        prefix = f"{Path(model).name}-" if len(models) > 1 else ""
        for seed in seeds:
            rows.append(_row(Run(f"{prefix}random-s{seed}", model, "random-head", seed=seed), 18))
            runs = [adapter_run(model, HEAD_ALONE, 0.0015, seed)]
            runs += [adapter_run(model, spec(r, a), 0.0015, seed) for r, a in RIGHT]
            for run in (replace(run, id=prefix + run.id) for run in runs):
                adapter = run.adapter
                key = (adapter.rank, adapter.alpha)
                right, converged = (RIGHT[key] + seed, CONVERGED[key]) if adapter.rank else (35, 50)
                rows.append(_row(run, right, converged, trainable=adapter.rank * (INPUTS + OUTPUTS) + 9))
    recorded = [
        SessionBackend(model, backends[min(i, len(backends) - 1)]) for i, model in enumerate(models if backends else ())
    ]
    return _write(folder, data, StudyConfig(str(data), str(folder), grid, training), rows, test, recorded)


def write_train(folder: Path, data: Path, test: bool = True) -> Path:
    """A single run."""
    adapter = spec(4, 8.0)
    config = TrainConfig(
        str(data), "./base", str(folder), adapter=adapter, lr=0.0015, training=TrainingOptions(steps=STEPS)
    )
    run = adapter_run("./base", adapter, 0.0015, 0)
    rows = [_row(run, 50, 30, trainable=4 * (INPUTS + OUTPUTS) + 9)]
    return _write(folder, data, config, rows, test, [SessionBackend("./base", NATIVE)])


HYBRID_RUN = "hybrid-lora-r4-a8-lr0.0015-s0"


def write_hybrid(folder: Path, data: Path, test: bool = True, folds: bool = False) -> Path:
    """A single run with baselines, whose hybrid is the classifier: 54 of 60 test rows against 50 of the encoder.

    Args:
        folder: folder to create.
        data: see :func:`write_data`.
        test: whether the data has a test split.
        folds: whether there are out-of-fold predictions: 24 of the 30 training rows are correct.
    """
    config = TrainConfig(
        str(data), "./base", str(folder), adapter=spec(4, 8.0), lr=0.0015, training=TrainingOptions(steps=STEPS)
    )
    run = adapter_run("./base", spec(4, 8.0), 0.0015, 0)
    hybrid = _row(Run(HYBRID_RUN, "./base", "hybrid"), 54, trainable=150)
    hybrid.members, hybrid.encoder_weight, hybrid.seconds = (run.id, "tfidf-lr"), 0.4, 4.0
    hybrid.calibration = TemperatureScaling(2.0, 30, True, CalibrationError(0.2, 0.1))
    rows = [
        _row(Run("majority", "", "majority"), 20),
        _row(Run("tfidf-svm", "", "tfidf-svm"), 52, trainable=100),
        _row(run, 50, 30, trainable=4 * (INPUTS + OUTPUTS) + 9),
        _row(Run("tfidf-lr", "", "tfidf-lr"), 53, trainable=100),
        hybrid,
    ]
    for row in (rows[2], hybrid):
        row.classes = {"validation": TASK.classes(probabilities(_right(row)).argmax(1), np.arange(TEST_ROWS) % 3)}
    _write(folder, data, config, rows, test, [SessionBackend("./base", NATIVE)])
    scores = hybrid.classes["validation"]
    change_results(folder, {}, **({"train_rows": 30, "validation_rows": 0, "folds": 5} if folds else {}))
    path = folder / "results.json"
    split = "out-of-fold" if folds else "validation"
    found = [plain(SplitClasses(HYBRID_RUN, split, scores))]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"classes": found}))
    if folds:
        targets = np.arange(30) % 3
        logits = {HYBRID_RUN: 2.0 * np.log(probabilities(24)[:30]), run.id: np.log(probabilities(21)[:30])}
        predicted = {"majority": np.zeros(30, np.int64), "tfidf-svm": probabilities(22)[:30].argmax(1)}
        save_out_of_fold(folder, OutOfFold(targets, np.arange(30) % 5, logits, predicted))
    return folder


def _write(
    folder: Path,
    data: Path,
    config: StudyConfig | TrainConfig,
    rows: list[Row],
    test: bool,
    backends: Sequence[SessionBackend],
) -> Path:
    dataset = load_dataset(str(data), Columns("", "", ()))
    with closing(RunFolder(folder, options_text(config), environment(tuple(backends)))) as run_folder:
        trained = [row for row in rows if row.run.role in ("lora", "linear-probe")]
        packs: dict[tuple[str, int], list[Row]] = {}
        for row in trained:
            packs.setdefault((row.run.model, row.run.seed), []).append(row)
            _adapter(folder, row, "f" * 64)
        for members in packs.values():
            _events(run_folder, members)
        if test:
            tensors = {TARGETS: torch.arange(TEST_ROWS) % 3}
            for row in rows:
                values = torch.from_numpy(probabilities(_right(row)))
                tensors |= {row.run.id: values} if row.run.model else {PREDICTED + row.run.id: values.argmax(1)}
            run_folder.save_predictions(tensors)
        else:
            for row in rows:
                row.test = None
        models = dict.fromkeys(row.run.model for row in rows if row.run.model)
        lengths = tuple(TextLengths(model, max_length=128, longest=9, truncated=0) for model in models)
        facts = DataFacts(str(data), 27, 3, TEST_ROWS if test else 0, LABELS, dataset.fingerprint, lengths)
        kind = "study" if isinstance(config, StudyConfig) else "train"
        runs = tuple(row.result() for row in rows)
        run_folder.save_results(Results(kind, facts, runs, int(test), loralet="0"))
    return folder


def _events(folder: RunFolder, rows: list[Row]) -> None:
    """Losses fall as 1/step, at a different rate per run; checks rise to the run's accuracy."""
    ids = tuple(row.run.id for row in rows)
    folder.record(PackStarted(ids, STEPS, BATCH, 27))
    for step in range(1, STEPS + 1):
        folder.record(Stepped(step, ids, tuple((i + 1) / step for i in range(len(ids))), 1.0, BATCH))
        if step % EVERY == 0:
            for row in rows:
                assert row.validation
                score = row.validation["accuracy"] * step / STEPS
                folder.record(Checked(step, row.run.id, score, 1.0, 3, True))
    for row in rows:
        folder.record(RunEnded(STEPS, row.run.id, "finished", row.converged_step, 3.0))


def change_results(folder: Path, change: dict[str, dict[str, object]], **data: object) -> None:
    """Change rows of results.json by id, and data facts."""
    path = folder / "results.json"
    results = json.loads(path.read_text())
    for run in results["runs"]:
        run |= change.get(run["id"], {})
    results["data"] |= data
    path.write_text(json.dumps(results))


def as_schema_1(folder: Path) -> Path:
    """Rewrite a run folder in the format of version 0.1: schema 1 of results.json and loralet.json."""
    settings = ("rank", "alpha", "dropout", "targets", "scaling")
    path = folder / "results.json"
    results = json.loads(path.read_text())
    results |= {"schema": 1}
    del results["task"], results["selection"]
    for run in results["runs"]:
        adapter = run.pop("adapter") or {}
        run |= {name: adapter.get(name) for name in settings}
        if run["role"] == "linear-probe":
            run["rank"] = 0
        if run["validation"]:
            run["validation"] = {name: run["validation"][name] for name in ("accuracy", "macro_f1", "loss")}
    path.write_text(json.dumps(results))

    path = folder / "environment.json"
    found = json.loads(path.read_text())
    del found["backends"]
    path.write_text(json.dumps(found))

    path = folder / "metrics.jsonl"
    names = {"score": "accuracy", "scores": "accuracies"}
    events = [json.loads(line) for line in path.read_text().splitlines()]
    renamed = [{names.get(name, name): value for name, value in event.items()} for event in events]
    path.write_text("".join(json.dumps(event) + "\n" for event in renamed))

    path = folder / "config.toml"
    options = tomllib.loads(path.read_text())
    options["training"] |= {"precision": options.pop("compute")["precision"]}
    options["training"] |= {"target_accuracy": options["training"].pop("target_score")}
    columns = options["reading"].pop("columns")
    options["reading"] |= {name: columns[name] for name in ("text_column", "label_column", "columns")}
    if "adapter" in options:
        del options["adapter"]["method"]
        options["lora"] = options.pop("adapter") | {"lr": options.pop("lr")}
    path.write_text(tomli_w.dumps(options))

    for path in folder.glob("adapters/*/loralet.json"):
        described = json.loads(path.read_text())
        adapter = {name: described["adapter"][name] for name in settings}
        kept = {name: value for name, value in described.items() if name not in ("adapter", "task", "pooling")}
        del kept["provenance"]
        old = {"schema": 1, "head_activation": "tanh", "training": {}, "data": {}}
        path.write_text(json.dumps(kept | adapter | old))
    return folder
