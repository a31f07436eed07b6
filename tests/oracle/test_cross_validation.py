"""``loralet train`` with folds: out-of-fold scores compared with the runs' logits and with scikit-learn."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import command, options
from models import make_pair
from safetensors.numpy import load_file
from scipy.stats import binomtest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import classification_report, f1_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from loralet.artifacts.folder import load_artifact
from loralet.config import DataOptions
from loralet.events import Checked, Event, Stage
from loralet.runs.out_of_fold import NAME, OutOfFold, read_out_of_fold
from loralet.runs.sources import dataset_of
from loralet.studies.folds import cross_validate
from loralet.studies.plan import plan_train
from loralet.studies.study import Prepared, prepare
from loralet.tasks.baselines import TOKEN
from loralet.training.loop import RunState
from loralet.training.session import run_pack

# Long trainings, most of whose lines other tests cover too; measuring them takes half as long again.
pytestmark = pytest.mark.no_cover

LABELS = ("apple", "bird", "cat")
WORDS = {"apple": "a b c d", "bird": "h i j k", "cat": "p q r s"}
FLAGS = (
    "--model", "model", "--rank", "4", "--lr", "1e-2", "--steps", "40", "--batch-size", "16", "--eval-every", "8",
    "--hybrid", "off",
)  # fmt: skip
RUN = "lora-r4-a32-lr0.01-s0"


def write_rows(path: Path, count: int, seed: int) -> None:
    """Half of the rows are apples; some texts occur several times."""
    generator = np.random.default_rng(seed)
    lines = ["text,label"]
    for _ in range(count):
        label = generator.choice(LABELS, p=[0.5, 0.3, 0.2])
        lines.append(f"{' '.join(generator.choice([*WORDS[label].split(), *'xyz'], generator.integers(2, 6)))},{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folds")
    make_pair(folder / "model")
    write_rows(folder / "rows.csv", 150, 0)
    (folder / "data").mkdir()
    shutil.copy(folder / "rows.csv", folder / "data" / "train.csv")
    write_rows(folder / "data" / "test.csv", 40, 1)
    for source, out in (("rows.csv", "alone"), ("data", "tested")):
        done = command(folder, "train", source, *FLAGS, "--out", out)
        assert done.returncode == 0, done.stderr
        (folder / f"{out}.txt").write_text(done.stdout + done.stderr)
    return folder


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_the_scores_are_those_of_the_out_of_fold_predictions(place: Path) -> None:
    found, recorded = read_out_of_fold(place / "alone"), results(place / "alone")
    data, rows = recorded["data"], {run["role"]: run for run in recorded["runs"]}
    assert (data["train_rows"], data["validation_rows"], data["test_rows"], data["folds"]) == (150, 0, 0, 5)
    assert list(rows) == ["majority", "tfidf-svm", "lora"]
    assert all(run["test"] is None for run in rows.values())
    predicted = {"lora": found.logits[RUN].argmax(1), **found.predicted}
    assert set(predicted) == set(rows)
    for role, values in predicted.items():
        scores = rows[role]["validation"]
        right = int((values == found.targets).sum())
        interval = binomtest(right, 150).proportion_ci(0.95, "wilson")
        assert scores["accuracy"] == pytest.approx(right / 150)
        assert (scores["accuracy_low"], scores["accuracy_high"]) == pytest.approx((interval.low, interval.high))
        assert scores["macro_f1"] == pytest.approx(f1_score(found.targets, values, average="macro", zero_division=0))
    report = classification_report(
        found.targets, predicted["lora"], target_names=LABELS, output_dict=True, zero_division=0
    )
    (classes,) = recorded["classes"]
    assert (classes["run"], classes["split"]) == (RUN, "out-of-fold")
    assert [scores["label"] for scores in classes["scores"]] == list(LABELS)
    for scores in classes["scores"]:
        expected = report[scores["label"]]
        figures = (scores["precision"], scores["recall"], scores["f1"], scores["support"])
        assert figures == pytest.approx([expected[name] for name in ("precision", "recall", "f1-score", "support")])
    assert rows["lora"]["steps"] == 40
    calibration = rows["lora"]["calibration"]
    assert (calibration["rows"], calibration["fitted"]) == (150, True)


def test_baselines_are_those_of_cross_val_predict_on_the_same_folds(place: Path) -> None:
    found = read_out_of_fold(place / "alone")
    rows = dataset_of(str(place / "rows.csv"), DataOptions()).train
    assert np.array_equal(found.targets, rows.targets)
    texts = rows.texts.to_pylist()
    pipeline = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN), LinearSVC(random_state=0)
    )
    expected = cross_val_predict(pipeline, texts, rows.targets, cv=PredefinedSplit(found.folds))
    assert np.array_equal(found.predicted["tfidf-svm"], expected)
    assert (pipeline.fit(texts, rows.targets).predict(texts) != expected).any()


def trained(place: Path, *flags: str) -> tuple[Prepared, OutOfFold, list[RunState], list[Event]]:
    """A cross-validation without a run folder, and the states of its runs."""
    heard: list[Event] = []
    given = ("train", str(place / "rows.csv"), *FLAGS[2:], "--model", str(place / "model"), *flags)
    prepared = prepare(plan_train(options(*given)), heard.append)
    (session,) = prepared.sessions.values()
    _, ended = run_pack(session, prepared.packs.packs[0], lambda event: None)
    found = cross_validate(session, prepared.corpus, prepared.packs.packs, (), heard.append).predictions
    return prepared, found, ended, heard


def test_each_row_has_the_logits_of_the_run_that_held_it_out(place: Path) -> None:
    prepared, found, ended, heard = trained(place, "--folds", "3", "--precision", "fp32")
    (session,) = prepared.sessions.values()
    assert [(s.run.id, s.run.fold) for s in ended] == [(RUN, None), *((f"{RUN}-fold{i + 1}", i) for i in range(3))]
    logits = session.logits([s.run for s in ended], [s.last for s in ended], session.rows.train)
    own = logits[found.folds + 1, np.arange(150)]
    assert np.abs(found.logits[RUN] - own).max() < 1e-4
    assert np.abs(logits[0] - own).max() > 0.1
    # every check is out of fold as well, on all rows if the sample is as large
    checks = [event for event in heard if isinstance(event, Checked)]
    assert [(check.step, check.run, check.rows) for check in checks] == [
        (step, RUN, 150) for step in (8, 16, 24, 32, 40)
    ]
    assert checks[-1].score == pytest.approx((found.logits[RUN].argmax(1) == found.targets).mean())


def test_runs_of_several_packs_give_the_same_predictions(place: Path) -> None:
    prepared, found, _, _ = trained(place, "--folds", "3", "--precision", "fp32")
    (session,) = prepared.sessions.values()
    (runs,) = prepared.packs.packs
    heard: list[Event] = []
    apart = cross_validate(session, prepared.corpus, [runs[2:], runs[:2]], (), heard.append).predictions
    assert np.abs(apart.logits[RUN] - found.logits[RUN]).max() < 1e-3
    assert not [event for event in heard if isinstance(event, Checked)], "no pack has a run for each fold"


def test_a_fold_that_diverges_is_reported_and_its_last_finite_state_measured(place: Path) -> None:
    _, found, ended, heard = trained(place, "--folds", "2", "--alpha", "1e30", "--lr", "1e20")
    assert {s.status for s in ended} == {"diverged"}
    assert np.isfinite(found.targets).all()
    words = [event.text for event in heard if isinstance(event, Stage) and "diverged" in event.text]
    assert len(words) == 2
    assert "its last finite state is measured" in words[0]


def test_the_classifier_is_trained_on_all_rows_and_keeps_its_last_state(place: Path) -> None:
    prepared, _, ended, _ = trained(place)
    assert prepared.corpus.folds == 5
    saved = load_artifact(place / "alone" / "adapters" / RUN)
    assert all(np.array_equal(saved.tensors[name], ended[0].last[name]) for name in saved.tensors)
    made = saved.provenance
    assert (made.train_rows, made.validation_rows, made.folds, made.class_weights) == (150, 0, 5, None)
    (measured,) = saved.metrics.items()
    assert measured[0] == "out-of-fold"
    assert measured[1].rows == 150
    assert sorted(path.name for path in (place / "alone" / "adapters").iterdir()) == [RUN]
    card = (place / "alone" / "adapters" / RUN / "README.md").read_text()
    assert "| out-of-fold | 150 |" in card
    assert "trained on all rows and keeps its last state. The out-of-fold scores are of 5 runs" in card
    assert "selected on the validation rows" not in card


def test_the_end_of_a_training_names_its_rows(place: Path) -> None:
    alone, tested = ((place / f"{name}.txt").read_text() for name in ("alone", "tested"))
    assert "5 folds: one run per fold, and one on all 150 rows" in alone
    assert "out-of-fold (95 % interval)" in alone
    assert "test" not in alone.split("rows.csv: ")[0].partition("run ")[2]
    assert "rows.csv: 150 training rows, 5 folds; 3 labels" in alone
    assert f"each row is classified by a run trained without its fold; {RUN} is trained on all rows\n" in alone
    assert "by label, " in alone
    for name in ("majority class", "TF-IDF + SVM", *LABELS):
        assert name in alone
    assert "out-of-fold  test (95 % interval)" in tested
    assert "data: 150 training, 40 test rows, 5 folds; 3 labels" in tested
    assert f"{RUN} is trained on all rows; the test split was read once" in tested


def test_a_test_split_is_read_once_with_folds(place: Path) -> None:
    recorded = results(place / "tested")
    assert (recorded["test_reads"], recorded["data"]["test_rows"], recorded["data"]["folds"]) == (1, 40, 5)
    tensors = load_file(place / "tested" / "predictions.safetensors")
    assert set(tensors) == {"labels", RUN, "predicted/majority", "predicted/tfidf-svm"}
    for run in recorded["runs"]:
        assert run["test"]["accuracy"] > 0
        assert (
            run["validation"] == next(r for r in results(place / "alone")["runs"] if r["id"] == run["id"])["validation"]
        )


def test_other_commands_use_a_run_with_folds(place: Path) -> None:
    for name, end in (("alone", "of 150 out-of-fold rows correctly"), ("tested", "LoRA (rank 4, alpha 32)")):
        shown = command(place, "show", name)
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout in (place / f"{name}.txt").read_text().replace("run folder: ", "")
        told = command(place, "report", name)
        assert told.returncode == 0, told.stderr
        page = (place / name / "report.md").read_text()
        assert end in page
        assert "out-of-fold" in page
        assert "chosen on validation" not in page.lower()
    inspected = json.loads(command(place, "inspect", "alone", "--format", "json").stdout)
    assert "out-of-fold accuracy" in json.dumps(inspected)
    predicted = command(place, "predict", "alone", "a b c a", "--format", "jsonl")
    assert predicted.returncode == 0, predicted.stderr
    assert f"using {RUN}\n" in predicted.stderr
    exported = command(place, "export", "alone", "--to", "onnx", "--out", "graph")
    assert exported.returncode == 0, exported.stderr
    assert json.loads((place / "graph" / "export.json").read_text())["rows_compared"] == 150
    averaged = command(place, "average", "alone", "tested", "--out", "mean")
    assert averaged.returncode == 0, averaged.stderr
    assert averaged.stdout.count("out-of-fold accuracy") == 2
    assert not load_artifact(place / "mean").metrics


def test_a_validation_split_ends_with_its_scores(place: Path) -> None:
    done = command(place, "train", "rows.csv", *FLAGS, "--folds", "0", "--out", "split")
    assert done.returncode == 0, done.stderr
    assert "val. (95 % interval)" in done.stdout
    counts = re.search(r"rows.csv: (\d+) training, (\d+) validation rows; 3 labels", done.stdout)
    assert counts
    assert sum(map(int, counts.groups())) == 150
    assert "no test split: the same rows selected its state" in done.stdout
    recorded = results(place / "split")
    assert [run["role"] for run in recorded["runs"]] == ["majority", "tfidf-svm", "lora"]
    assert recorded["data"]["folds"] is None
    assert not (place / "split" / NAME).exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--folds", "1"), "folds is 1: it must be at least 2, or 0 for a validation split"),
        (("--folds", "-2"), "folds is -2"),
        (("--folds", "3", "--patience", "2"), "folds cannot be combined with patience or stop_at_target"),
        (("--folds", "3", "--stop-at-target"), "folds cannot be combined with patience or stop_at_target"),
        (("--folds", "99"), "--folds 99 is not possible; use at most"),
    ],
)
def test_folds_that_cannot_be_used_are_reported(place: Path, flags: tuple[str, ...], words: str) -> None:
    done = command(place, "train", "rows.csv", *FLAGS, *flags, "--out", "none")
    assert done.returncode == 2
    assert words in done.stderr
    assert not (place / "none").exists()


def test_early_stopping_holds_out_a_validation_split() -> None:
    assert plan_train(options("train")).folds is None
    assert plan_train(options("train", "--folds", "0")).folds == 0
    assert plan_train(options("train", "--patience", "3")).folds == 0
    assert plan_train(options("train", "--stop-at-target")).folds == 0


def test_class_weights_are_recorded_and_change_the_run(place: Path) -> None:
    (place / "weights.json").write_text('{"apple": 1, "bird": 2, "cat": 20}')
    balanced = tuple(150 / (3 * np.bincount(read_out_of_fold(place / "alone").targets)))
    shares = [(read_out_of_fold(place / "alone").logits[RUN].argmax(1) == 2).mean()]
    for option, expected in (("balanced", balanced), ("weights.json", (1, 2, 20))):
        done = command(place, "train", "rows.csv", *FLAGS, "--class-weight", option, "--out", f"by-{option}")
        assert done.returncode == 0, done.stderr
        artifact = load_artifact(place / f"by-{option}" / "adapters" / RUN)
        assert artifact.provenance.class_weights == pytest.approx(expected)
        assert artifact.provenance.training
        assert artifact.provenance.training.class_weight == option
        assert f'class_weight = "{option}"' in (place / f"by-{option}" / "config.toml").read_text()
        shares.append((read_out_of_fold(place / f"by-{option}").logits[RUN].argmax(1) == 2).mean())
    card = (place / "by-weights.json" / "adapters" / RUN / "README.md").read_text()
    assert "| class weight | apple 1, bird 2, cat 20 |" in card
    assert shares[0] < shares[2], "the rare class is predicted more often"
    wrong = command(place, "train", "rows.csv", "--model", "model", "--class-weight", "nowhere.json", "--out", "none")
    assert (wrong.returncode, (place / "none").exists()) == (2, False)
    assert "--class-weight nowhere.json: no such file" in wrong.stderr
