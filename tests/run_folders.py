"""Small finished run folders, written with the package's own writers but without any training."""

from __future__ import annotations

import csv
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from loralet.config import DataOptions, GridOptions, LoraOptions, StudyConfig, TrainConfig, TrainingOptions
from loralet.data.files import Columns
from loralet.data.sources import load_dataset
from loralet.events import Checked, PackStarted, RunEnded, Stepped
from loralet.inference.evaluation import Scores, score
from loralet.runs.folder import SCHEMA, RunFolder
from loralet.runs.results import Row, base_run
from loralet.training.packs import Run, lora_run

LABELS = ("apple", "bird", "cat <b>&")
NASTY = "</td><script>alert('x')</script> | `a` *b* [c](http://example.org/) & 'd'"
TEST_ROWS, STEPS, EVERY, BATCH = 60, 60, 10, 4
INPUTS = OUTPUTS = 8

RIGHT = {(2, 8.0): 40, (2, 16.0): 45, (4, 8.0): 50, (4, 16.0): 54}
"""Test rows that seed 0 has right, by rank and alpha; seed 1 has one more."""
CONVERGED = {(2, 8.0): None, (2, 16.0): 40, (4, 8.0): 30, (4, 16.0): 20}


def write_data(folder: Path) -> None:
    """A training file and a test file of 60 rows whose labels go round; the first test text is nasty."""
    folder.mkdir()
    for name, rows in (("train", 30), ("test", TEST_ROWS)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows(
                [NASTY if (i, name) == (0, "test") else f"{name} text {i}", LABELS[i % 3]] for i in range(rows)
            )


def probabilities(right: int) -> np.ndarray:
    """The first ``right`` rows are right at 0.8; the others wrong at 0.75, with 0.15 on the label."""
    labels = np.arange(TEST_ROWS) % 3
    values = np.full((TEST_ROWS, 3), 0.1, np.float32)
    rows = np.arange(TEST_ROWS)
    values[rows, labels] = np.where(rows < right, 0.8, 0.15)
    values[rows[right:], (labels[right:] + 1) % 3] = 0.75
    return values


def _scores(right: int) -> Scores:
    return score(probabilities(right).argmax(1), np.arange(TEST_ROWS) % 3, 3, 1 - right / 100)


def _row(run: Run, right: int, converged: int | None = None, status: str = "finished", trainable: int = 0) -> Row:
    trained = run.role in ("lora", "linear-probe")
    row = Row(run, trainable, 1000 + trainable, status=status, test=_scores(right), validation=_scores(right))
    if trained:
        row.steps, row.converged_step, row.seconds, row.memory = STEPS, converged, 3.0, 2**30
    return row


def _adapter(folder: Path, row: Row, fingerprint: str) -> None:
    run, path = row.run, folder / "adapters" / row.run.id
    path.mkdir(parents=True)
    (path / "loralet.json").write_text(
        json.dumps({"backbone": run.model, "backbone_fingerprint": fingerprint, "rank": run.rank})
    )
    if run.rank:
        tensors = {
            "q.lora_A.weight": torch.zeros(run.rank, INPUTS),
            "q.lora_B.weight": torch.zeros(OUTPUTS, run.rank),
            "head": torch.zeros(9),
        }
        save_file(tensors, path / "adapter_model.safetensors")
    else:
        save_file({"head": torch.zeros(9)}, path / "head.safetensors")


def write_study(
    folder: Path, data: Path, models: tuple[str, ...] = ("./base",), seeds: tuple[int, ...] = (0,), test: bool = True
) -> Path:
    """A study of two ranks and two alphas; all models are one by their fingerprint, and do alike."""
    grid = GridOptions(models=models, ranks=(2, 4), alphas=(8.0, 16.0), lrs=(0.0015,), seeds=seeds)
    training = TrainingOptions(steps=STEPS, batch_size=BATCH, eval_every=EVERY, target_accuracy=0.7)
    rows = [_row(base_run("majority", "majority"), 20), _row(base_run("tfidf-svm", "tfidf-svm"), 52, trainable=100)]
    for model in models:
        prefix = f"{Path(model).name}-" if len(models) > 1 else ""
        for seed in seeds:
            rows.append(_row(base_run("random-head", f"{prefix}random-s{seed}", model, seed), 18))
            runs = [lora_run(model, 0, 1.0, 0.0, (), "alpha/r", 0.0015, seed)]
            runs += [lora_run(model, r, a, 0.0, ("query",), "alpha/r", 0.0015, seed) for r, a in RIGHT]
            for run in runs:
                named = Run(**(run.__dict__ | {"id": prefix + run.id}))
                key = (run.rank, run.alpha)
                right, converged = (RIGHT[key] + seed, CONVERGED[key]) if run.rank else (35, 50)
                rows.append(_row(named, right, converged, trainable=run.rank * (INPUTS + OUTPUTS) + 9))
    return _write(folder, data, StudyConfig(str(data), str(folder), grid, training), rows, "study", test)


def write_train(folder: Path, data: Path, test: bool = True) -> Path:
    """A single run."""
    run = lora_run("./base", 4, 8.0, 0.0, ("query",), "alpha/r", 0.0015, 0)
    config = TrainConfig(
        str(data), "./base", str(folder), 0, LoraOptions(rank=4, alpha=8.0), TrainingOptions(steps=STEPS), DataOptions()
    )
    return _write(folder, data, config, [_row(run, 50, 30, trainable=4 * (INPUTS + OUTPUTS) + 9)], "train", test)


def _write(folder: Path, data: Path, config: Any, rows: list[Row], kind: str, test: bool) -> Path:
    dataset = load_dataset(str(data), Columns("", "", ()))
    with closing(RunFolder(folder, config)) as run_folder:
        trained = [row for row in rows if row.run.role in ("lora", "linear-probe")]
        packs: dict[tuple[str, int], list[Row]] = {}
        for row in trained:
            packs.setdefault((row.run.model, row.run.seed), []).append(row)
            _adapter(folder, row, "f" * 64)
        for members in packs.values():
            _events(run_folder, members)
        if test:
            kept = [row for row in rows if row.run.role in ("lora", "linear-probe", "random-head") and row.test]
            tensors = {
                row.run.id: torch.from_numpy(probabilities(round(row.test.accuracy * TEST_ROWS)))
                for row in kept
                if row.test
            }
            plain = {row.run.id: round(row.test.accuracy * TEST_ROWS) for row in rows if row.test and not row.run.model}
            tensors |= {
                f"predicted/{run}": torch.from_numpy(probabilities(right).argmax(1)) for run, right in plain.items()
            }
            run_folder.save_predictions({"labels": torch.arange(TEST_ROWS) % 3, **tensors})
        else:
            for row in rows:
                row.test = None
        run_folder.save_results(
            {
                "schema": SCHEMA,
                "kind": kind,
                "loralet": "0",
                "data": {
                    "source": str(data),
                    "train_rows": 27,
                    "validation_rows": 3,
                    "test_rows": TEST_ROWS if test else 0,
                    "labels": list(LABELS),
                    "fingerprint": dataset.fingerprint,
                },
                "runs": [row.to_json() for row in rows],
                "test_reads": int(test),
            }
        )
    return folder


def _events(folder: RunFolder, rows: list[Row]) -> None:
    """Losses fall as 1/step, at a pace of their own; checks rise to the run's accuracy."""
    ids = tuple(row.run.id for row in rows)
    folder.record(PackStarted(ids, STEPS, BATCH, 27))
    for step in range(1, STEPS + 1):
        folder.record(Stepped(step, ids, tuple((i + 1) / step for i in range(len(ids))), 1.0, BATCH))
        if step % EVERY == 0:
            for row in rows:
                assert row.validation
                folder.record(Checked(step, row.run.id, row.validation.accuracy * step / STEPS, 1.0, 3, True))
    for row in rows:
        folder.record(RunEnded(STEPS, row.run.id, "finished", row.converged_step, 3.0))
