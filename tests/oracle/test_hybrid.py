"""A hybrid gives the weighted product of its encoder and of scikit-learn's linear model, in every predictor."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from backends import NATIVE
from command_line import Done, command
from models import make_pair
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from test_adapters import RUNS, trained
from test_inference import BLOCKED
from tolerances import FP32
from transformers import pipeline

from loralet import TextClassifier
from loralet.artifacts import folder as folders
from loralet.artifacts.artifact import Artifact, without_words
from loralet.artifacts.average import average
from loralet.artifacts.folder import load_artifact, save_artifact
from loralet.artifacts.reading import ADAPTER_FILES
from loralet.artifacts.words import ARRAYS, TOKENS
from loralet.config import ComputeOptions, DataOptions, ModelOptions, TrainingOptions
from loralet.data.files import Columns
from loralet.data.sources import load_labelled
from loralet.errors import CheckError, RunError
from loralet.inference.ensemble import load_ensemble
from loralet.report.analysis import analyse
from loralet.runs.out_of_fold import read_out_of_fold
from loralet.runs.results import Results, RunResult, read_results
from loralet.runs.selection import chosen_run
from loralet.tasks.mixing import Mixing, choose_weight, mixed
from loralet.tasks.words import INVERSE_PENALTY, MOST_ITERATIONS, TOKEN, fit_words
from loralet.training.corpus import load_corpus

# Long trainings, most of whose lines other tests cover too; measuring them takes half as long again.
pytestmark = pytest.mark.no_cover

WORDS = 2e-2
"""Largest difference of a log-probability: the coefficients of the linear model are saved in fp16."""
LABELS = ("apple", "bird", "cat")
FLAGS = (
    "--model", "model", "--rank", "4", "--alpha", "8", "--lr", "1e-2", "--steps", "150", "--batch-size", "16",
    "--eval-every", "50", "--precision", "fp32", "--head", "trained-pooler", "--quiet",
)  # fmt: skip
LORA = "lora-r4-a8-lr0.01-s0"
HYBRID = f"hybrid-{LORA}"


ACCENTED = {
    "apple": "àáâãäåāăąǎǟǡǻȁȃȧḁạảấầẩẫậắằẳẵặ",
    "bird": "èéêëēĕėęěȅȇȩḕḗḙḛḝẹẻẽếềểễệ",
    "cat": "òóôõöōŏőơǒǫǭȍȏȫȭȯȱọỏốồổỗộớờởỡợ",
}
"""Letters by label. The encoder's tokenizer removes the accents, so it sees one letter; the linear model sees many."""


def rows(count: int, seed: int, accents: bool = True) -> tuple[list[str], list[str]]:
    """Texts whose label is in some letters and, in two of five rows, in a word that the encoder does not know."""
    generator = np.random.default_rng(seed)
    texts, labels = [], []
    for i in range(count):
        label = LABELS[i % 3]
        own = ACCENTED[label] if accents else {"apple": "a", "bird": "e", "cat": "o"}[label]
        words = [*generator.choice([*own], generator.integers(0 if accents else 1, 3))]
        words += [*generator.choice([*"uvwxyz"], generator.integers(1, 5))]
        generator.shuffle(words)
        if accents:
            words += [f"{label}ish" if generator.random() < 0.4 else "nothing"]
        texts.append(" ".join(words))
        labels.append(label)
    return texts, labels


def write(path: Path, texts: list[str], labels: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame({"text": texts, "label": labels}).to_csv(path, index=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on data for which encoder and linear model know different things."""
    folder = tmp_path_factory.mktemp("hybrid")
    make_pair(folder / "model")
    for name, count, seed in (("train", 400, 0), ("validation", 300, 1), ("test", 150, 2)):
        write(folder / "help" / f"{name}.csv", *rows(count, seed))
    done = command(folder, "train", "help", *FLAGS, "--out", "run")
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stdout)
    return folder


@pytest.fixture(autouse=True)
def _in_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)  # where the model's relative path is valid


@pytest.fixture(scope="module")
def results(place: Path) -> Results:
    return read_results(place / "run")


def row_of(results: Results, role: str) -> RunResult:
    (row,) = [run for run in results.runs if run.role == role]
    return row


def probabilities(place: Path, *arguments: str) -> np.ndarray:
    done = command(place, "predict", *arguments, "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    return np.array([list(json.loads(line)["probabilities"].values()) for line in done.stdout.splitlines()])


def of_scikit_learn(place: Path, texts: list[str]) -> np.ndarray:
    """Log-probabilities of the linear model, fitted by scikit-learn on the rows that the run was trained on."""
    corpus = load_corpus(str(place / "help"), DataOptions(), 512)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN)
    machine = LogisticRegression(C=INVERSE_PENALTY, tol=1e-9, max_iter=MOST_ITERATIONS)
    machine.fit(vectorizer.fit_transform(corpus.train.texts.to_pylist()), corpus.train.targets)
    found: np.ndarray = machine.predict_log_proba(vectorizer.transform(texts))
    return found


def test_predictions_are_the_weighted_product(place: Path, results: Results) -> None:
    weight = row_of(results, "hybrid").encoder_weight
    assert weight is not None
    assert 0 < weight < 1
    texts, _ = rows(40, 2)
    lora = np.log(probabilities(place, "run", *texts, "--run", LORA))
    mixing = load_artifact(place / "run" / "adapters" / HYBRID).mixing
    assert mixing.weight == weight
    assert mixing.temperature != 1
    wanted = (weight * lora + (1 - weight) * of_scikit_learn(place, texts)) / mixing.temperature
    wanted -= np.log(np.exp(wanted).sum(1, keepdims=True))
    found = np.log(probabilities(place, "run", *texts))
    assert np.abs(found - wanted).max() <= WORDS
    assert np.abs(found - lora).max() > 0.3
    assert np.abs(found - of_scikit_learn(place, texts)).max() > 0.3


def test_the_run_has_a_row_for_each(place: Path, results: Results) -> None:
    assert [run.role for run in results.runs] == ["majority", "tfidf-svm", "lora", "tfidf-lr", "hybrid"]
    lora, words, hybrid = results.runs[2:]
    assert lora.calibration is not None
    assert hybrid.calibration is not None
    assert hybrid.calibration.temperature == load_artifact(place / "run" / "adapters" / HYBRID).mixing.temperature
    assert (words.id, words.model) == ("tfidf-lr", None)
    assert (hybrid.id, hybrid.model, hybrid.members) == (HYBRID, "model", (LORA, "tfidf-lr"))
    assert hybrid.trainable_parameters == lora.trainable_parameters + words.trainable_parameters
    assert hybrid.total_parameters == lora.total_parameters + words.trainable_parameters
    assert (lora.encoder_weight, words.encoder_weight) == (None, None)
    for run in (lora, words, hybrid):
        assert run.validation is not None
        assert run.test is not None
        assert run.test.loss is not None
    saved = load_file(place / "run" / "predictions.safetensors")
    targets = saved["labels"]
    for run in (lora, words, hybrid):
        assert run.test is not None
        assert saved[run.id].shape == (150, 3)
        assert (saved[run.id].argmax(1) == targets).mean() == pytest.approx(run.test["accuracy"])
        assert -np.log(saved[run.id][np.arange(150), targets]).mean() == pytest.approx(run.test.loss, abs=1e-5)
    assert hybrid.test["accuracy"] > max(lora.test["accuracy"], words.test["accuracy"])  # type: ignore[index]


def test_the_validation_scores_are_those_of_the_validation_rows(place: Path, results: Results) -> None:
    corpus = load_corpus(str(place / "help"), DataOptions(), 512)
    ensemble = load_ensemble([place / "run" / "adapters" / HYBRID], ModelOptions(), ComputeOptions(precision="fp32"))
    logits = ensemble.logits(corpus.validation.texts)
    scores = ensemble.task.score(logits, corpus.validation.targets)
    hybrid = row_of(results, "hybrid")
    assert hybrid.validation is not None
    assert scores["accuracy"] == hybrid.validation["accuracy"]
    assert scores.loss == pytest.approx(hybrid.validation.loss, abs=1e-5)
    saved = load_artifact(place / "run" / "adapters" / HYBRID)
    assert saved.metrics["validation"].scores == hybrid.validation
    assert saved.metrics["test"].scores == hybrid.test
    assert load_artifact(place / "run" / "adapters" / LORA).metrics["test"].scores != hybrid.test


def test_the_hybrid_is_chosen_and_shown(place: Path, results: Results) -> None:
    assert chosen_run(results).id == HYBRID
    said = (place / "said.txt").read_text()
    weight = row_of(results, "hybrid").encoder_weight
    assert weight is not None
    assert f"{HYBRID}: {weight:.2f} {LORA}, {1 - weight:.2f} tfidf-lr" in said
    assert f"chosen on validation: {HYBRID}" in said
    assert "TF-IDF + LR" in said
    stages = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    told = [event["text"] for event in stages if event["event"] == "Stage"]
    assert any(text.startswith(f"hybrid: weight {weight:.2f} of the encoder") for text in told)
    shown = command(place, "predict", "run", "a b").stderr
    assert f"using {HYBRID}, the run chosen on validation" in shown


def test_evaluate_scores_the_hybrid(place: Path, results: Results) -> None:
    done = command(place, "evaluate", "run", "help/test.csv", "--format", "json")
    assert done.returncode == 0, done.stderr
    found, hybrid = json.loads(done.stdout), row_of(results, "hybrid")
    assert hybrid.test is not None
    assert found["run"] == HYBRID
    assert found["accuracy"] == hybrid.test["accuracy"]
    assert found["loss"] == pytest.approx(hybrid.test.loss, abs=1e-5)
    alone = json.loads(command(place, "evaluate", "run", "help/test.csv", "--run", LORA, "--format", "json").stdout)
    assert alone["accuracy"] < found["accuracy"]


def test_other_label_names_and_an_ensemble_keep_the_linear_models_classes(place: Path) -> None:
    texts, _ = rows(30, 3)
    hybrid, lora = probabilities(place, "run", *texts), probabilities(place, "run", *texts, "--run", LORA)
    both = probabilities(place, "run", *texts, "--runs", HYBRID, LORA)
    assert np.abs(both - (hybrid + lora) / 2).max() <= FP32
    renamed = probabilities(place, "run", *texts, "--label-names", "x", "y", "z")
    assert np.array_equal(renamed, hybrid)


@pytest.fixture(scope="module")
def fitted(place: Path) -> TextClassifier:
    write(place / "one.csv", *rows(700, 3))
    frame = pd.read_csv(place / "one.csv")
    classifier = TextClassifier(
        str(place / "model"), rank=4, alpha=8.0, lr=1e-2, steps=150, batch_size=16, eval_every=50, precision="fp32",
        head="trained-pooler",
    )  # fmt: skip
    return classifier.fit(frame["text"], frame["label"])


def test_the_estimator_trains_the_same_hybrid(place: Path, fitted: TextClassifier, tmp_path: Path) -> None:
    texts, _ = rows(30, 4)
    done = command(place, "train", "one.csv", *FLAGS, "--folds", "0", "--out", "run-one")
    assert done.returncode == 0, done.stderr
    wanted = probabilities(place, "run-one", *texts)
    assert np.abs(fitted.predict_proba(texts) - wanted).max() <= FP32
    assert fitted.artifact_.id == HYBRID
    assert fitted.artifact_.provenance.hybrid_of == LORA
    fitted.save(tmp_path / "saved")
    loaded = TextClassifier.load(tmp_path / "saved")
    assert loaded.hybrid == "auto"
    for other in (loaded, pickle.loads(pickle.dumps(fitted))):
        assert np.array_equal(other.predict_proba(texts), fitted.predict_proba(texts))
    alone = TextClassifier.load(place / "run-one", run=LORA)
    assert np.abs(alone.predict_proba(texts) - wanted).max() > 0.05
    assert alone.artifact_.words is None


@pytest.mark.parametrize(("choice", "roles"), [("off", ["lora"]), ("auto", ["lora", "tfidf-lr"])])
def test_a_linear_model_that_does_not_pay_is_not_used(place: Path, choice: str, roles: list[str]) -> None:
    """The letters are known to the encoder, and few rows are held out."""
    folder = place / f"plain-{choice}"
    write(folder / "train.csv", *rows(120, 0, accents=False))
    out = f"run-{choice}"
    flags = (*FLAGS, "--steps", "200", "--folds", "0", "--hybrid", choice)
    done = command(place, "train", folder.name, *flags, "--out", out)
    assert done.returncode == 0, done.stderr
    found = read_results(place / out)
    assert [run.role for run in found.runs if run.role not in ("majority", "tfidf-svm")] == roles
    assert chosen_run(found).role == "lora"
    assert [path.name for path in (place / out / "adapters").iterdir()] == [LORA]
    told = (place / out / "metrics.jsonl").read_text()
    assert ("does not pay on held-out rows" in told) == (choice == "auto")
    assert f'hybrid = "{choice}"' in (place / out / "config.toml").read_text()


@pytest.fixture(scope="module")
def folded(place: Path) -> Path:
    """A run in three folds, with weighted classes."""
    write(place / "folded" / "train.csv", *rows(150, 0))
    write(place / "folded" / "test.csv", *rows(90, 2))
    (place / "weights.json").write_text(json.dumps(dict(zip(LABELS, (3.0, 1.0, 1.0), strict=True))))
    options = ("--folds", "3", "--hybrid", "on", "--class-weight", "weights.json", "--out", "run-folded")
    done = command(place, "train", "folded", *FLAGS, *options)
    assert done.returncode == 0, done.stderr
    return place / "run-folded"


def test_with_folds_the_weight_is_chosen_out_of_fold(place: Path, folded: Path) -> None:
    """scikit-learn's model of each fold is fitted without its rows, and the saved one on all of them."""
    saved, hybrid = load_artifact(folded / "adapters" / HYBRID), row_of(read_results(folded), "hybrid")
    assert hybrid.validation is not None
    corpus = load_corpus(str(place / "folded"), DataOptions(), 512, 3)
    found, train = read_out_of_fold(folded), corpus.train
    assert train.folds is not None
    assert np.array_equal(found.folds, train.folds)
    texts = np.array(train.texts.to_pylist(), object)
    weights = np.where(train.targets == 0, 3.0, 1.0)

    def log_probabilities(fitted: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TOKEN)
        machine = LogisticRegression(C=INVERSE_PENALTY, tol=1e-9, max_iter=MOST_ITERATIONS)
        own = weights[fitted] / weights.mean()
        machine.fit(vectorizer.fit_transform(texts[fitted]), train.targets[fitted], own)
        return np.asarray(machine.predict_log_proba(vectorizer.transform(texts[wanted])))

    others = np.empty((len(texts), 3))
    for fold in range(3):
        others[found.folds == fold] = log_probabilities(found.folds != fold, found.folds == fold)
    encoder = found.logits[LORA] / saved.temperature
    mixture = choose_weight(encoder, others, train.targets)
    assert saved.mixing.weight == hybrid.encoder_weight == pytest.approx(mixture.weight, abs=5e-3)
    together = mixed(encoder, others, saved.mixing)
    assert (together.argmax(1) == train.targets).mean() == pytest.approx(hybrid.validation["accuracy"])
    losses = -together[np.arange(150), train.targets] + np.log(np.exp(together).sum(1))
    assert losses.mean() == pytest.approx(hybrid.validation.loss, abs=5e-3)
    assert saved.metrics["out-of-fold"].scores == hybrid.validation
    words = found.logits["tfidf-lr"] - np.log(np.exp(found.logits["tfidf-lr"]).sum(1, keepdims=True))
    assert np.abs(words - others).max() <= WORDS
    assert hybrid.calibration is not None
    recorded = found.logits[HYBRID] / hybrid.calibration.temperature
    assert np.abs(recorded - mixed(encoder, found.logits["tfidf-lr"], saved.mixing)).max() <= 1e-4
    assert np.abs(recorded - encoder).max() > 0.1  # it is not the encoder alone
    assert saved.words is not None
    every = np.ones(150, bool)
    kept = saved.words.logits(texts.tolist())
    assert np.abs(kept - np.log(np.exp(kept).sum(1, keepdims=True)) - log_probabilities(every, every)).max() <= WORDS
    assert hybrid.test is not None
    alone = row_of(read_results(folded), "lora")
    assert alone.test is not None
    assert hybrid.test["accuracy"] > alone.test["accuracy"]


def test_the_class_scores_of_the_chosen_hybrid_are_recorded(folded: Path) -> None:
    results = read_results(folded)
    assert {(found.run, found.split) for found in results.classes} == {(HYBRID, "out-of-fold"), (HYBRID, "test")}
    assert sum(scores.support for scores in results.classes[0].scores) == 150


def test_on_uses_the_best_weight_in_any_case(place: Path) -> None:
    write(place / "few" / "train.csv", *rows(120, 0, accents=False))
    done = command(place, "train", "few", *FLAGS, "--steps", "100", "--hybrid", "on", "--out", "run-on")
    assert done.returncode == 0, done.stderr
    hybrid = row_of(read_results(place / "run-on"), "hybrid")
    assert hybrid.encoder_weight is not None
    assert 0 <= hybrid.encoder_weight < 1


def test_a_study_has_one_hybrid_of_its_best_run(place: Path) -> None:
    grid = ("--models", "model", "--ranks", "2", "4", "--alphas", "8", "--lrs", "1e-2", "--combine")
    options = FLAGS[FLAGS.index("--steps") :]
    done = command(place, "study", "help", "--no-default", *grid, *options, "--out", "grid")
    assert done.returncode == 0, done.stderr
    found = read_results(place / "grid")
    trained = [run for run in found.runs if run.trained]
    best = max(trained, key=lambda run: run.validation["accuracy"])  # type: ignore[index]
    hybrid = row_of(found, "hybrid")
    assert hybrid.members is not None
    assert hybrid.members[0] == best.id
    assert [run.role for run in found.runs if run.model is None] == ["majority", "tfidf-svm", "tfidf-lr"]
    assert (place / "grid" / "adapters" / hybrid.id / TOKENS).exists()
    assert chosen_run(found) is hybrid


def test_the_report_names_the_hybrid(place: Path) -> None:
    analysis = analyse(place / "run")
    names = [row.name for row in analysis.configurations]
    assert {"hybrid", "TF-IDF + logistic regression"} <= set(names)
    row = next(row for row in analysis.configurations if row.role == "hybrid")
    files = place / "run" / "adapters" / HYBRID
    sizes = sum((files / name).stat().st_size for name in ("adapter_model.safetensors", TOKENS, ARRAYS))
    assert row.bytes == sizes
    assert row.versus is not None
    assert not row.winner
    assert "combined with a linear model on words" in analysis.answer[0]
    assert command(place, "report", "run").returncode == 0
    page = (place / "run" / "report.md").read_text()
    (starred,) = re.findall(r"^\| ([^|]*) ★ \|", page, re.MULTILINE)
    assert starred.startswith("hybrid: ")


def test_inspect_describes_the_hybrid(place: Path) -> None:
    done = command(place, "inspect", f"run/adapters/{HYBRID}", "--format", "json")
    (found,) = json.loads(done.stdout)["found"]
    artifact = load_artifact(place / "run" / "adapters" / HYBRID)
    assert artifact.words is not None
    assert found["adapter"]["encoder weight"] == artifact.mixing.weight
    assert found["adapter"]["words and pairs"] == len(artifact.words.idf)
    assert found["training"]["hybrid_of"] == LORA


@pytest.mark.skipif(not NATIVE, reason="no C compiler")
def test_predicting_one_text_needs_neither_torch_nor_scikit_learn(place: Path) -> None:
    code = BLOCKED.format(blocked=("torch", "pyarrow", "pandas", "scipy", "sklearn", "matplotlib", "huggingface_hub"))
    arguments = ["predict", f"run/adapters/{HYBRID}", "a b c appleish"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=place, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "apple" in done.stdout


def test_exports_for_other_programs_contain_the_encoder_and_say_so(place: Path) -> None:
    texts, _ = rows(12, 5)
    weight = row_of(read_results(place / "run"), "hybrid").encoder_weight
    assert weight is not None
    said = f"only the encoder of the hybrid {HYBRID}, not its linear model on words (weight {1 - weight:.2f})"
    for kind, flags in (("hf", ("--no-onnx",)), ("onnx", ())):
        done = command(place, "export", "run", "--to", kind, "--out", kind, *flags)
        assert done.returncode == 0, done.stderr
        assert f"{said}, so its predictions differ from those of the hybrid; --to safetensors-bundle" in done.stdout
        card = (place / kind / "README.md").read_text()
        assert said in card
        assert "## Results" not in card  # those of the hybrid
        assert f"# {LORA}\n" in card
        assert said in json.loads((place / kind / "export.json").read_text())["omitted"]
        assert not (place / kind / TOKENS).exists()
        plain = command(place, "export", "run", "--run", LORA, "--to", kind, "--out", f"{kind}-lora", *flags)
        assert "linear model" not in plain.stdout + (place / f"{kind}-lora" / "README.md").read_text()
        assert "## Results" in (place / f"{kind}-lora" / "README.md").read_text()
    wanted = probabilities(place, "run", *texts, "--run", LORA)
    classify = pipeline("text-classification", model=str(place / "hf"), top_k=None)
    theirs = [{entry["label"]: entry["score"] for entry in row} for row in classify(texts)]
    assert np.abs(np.array([[row[label] for label in LABELS] for row in theirs]) - wanted).max() <= FP32
    onnxruntime.InferenceSession(str(place / "onnx" / "model.onnx"))
    assert (place / "onnx" / "model.onnx").read_bytes() == (place / "onnx-lora" / "model.onnx").read_bytes()


def test_the_bundle_contains_both(place: Path) -> None:
    texts, _ = rows(12, 5)
    done = command(place, "export", "run", "--out", "bundle")
    assert done.returncode == 0, done.stderr
    assert "linear model" not in done.stdout
    wanted = probabilities(place, "run", *texts)
    assert np.abs(probabilities(place, "bundle", *texts) - wanted).max() <= FP32
    card = (place / "bundle" / "README.md").read_text()
    assert "combined with a linear model on words (weight 0." in card


def test_the_card_of_the_adapter_says_what_peft_loads(place: Path) -> None:
    card = (place / "run" / "adapters" / HYBRID / "README.md").read_text()
    assert "With PEFT, without the linear model on words, so with other predictions:" in card
    assert f"| hybrid of | {LORA} |" in card
    assert "linear model" not in (place / "run" / "adapters" / LORA / "README.md").read_text()
    assert {path.name for path in (place / "run" / "adapters" / HYBRID).iterdir()} <= set(ADAPTER_FILES)


def test_an_average_of_hybrids_contains_only_the_adapters_and_says_so(place: Path) -> None:
    more = ("--seed", "1", "--hybrid", "on")
    assert command(place, "train", "help", *FLAGS, *more, "--out", "run-s1").returncode == 0
    done = command(place, "average", "run", "run-s1", "--out", "mean")
    assert done.returncode == 0, done.stderr
    assert "the average contains only the adapters, not the linear models on words" in done.stdout
    assert not (place / "mean" / TOKENS).exists()
    made = load_artifact(place / "mean")
    assert (made.words, made.mixing, made.provenance.hybrid_of) == (None, Mixing(), "")
    assert made.provenance.averaged_from == (LORA, LORA.replace("s0", "s1"))
    members = [load_artifact(next(path.glob("adapters/lora-*"))) for path in (place / "run", place / "run-s1")]
    wanted = average({str(i): member for i, member in enumerate(members)}, "made")
    assert all(torch.equal(made.tensors[name], wanted.tensors[name]) for name in wanted.tensors)


@pytest.mark.parametrize("name", ["query-value", "probe", "full"])
def test_every_kind_of_run_may_be_part_of_a_hybrid(tmp_path: Path, name: str) -> None:
    pair = make_pair(tmp_path / "base")
    _, _, artifact = trained(pair, RUNS[name], "pooler")
    texts = ["a w3 w60 z", "w9 appleish", "k l m n", "w1 w2 w3 w4 w5"]
    words = fit_words(texts, np.arange(4), 4).model
    hybrid = replace(artifact, mixing=Mixing(0.25), words=words)
    save_artifact(tmp_path / "hybrid", hybrid, pair.ours)
    save_artifact(tmp_path / "alone", artifact, pair.ours)
    fp32 = ComputeOptions(precision="fp32")
    alone, both = (load_ensemble([tmp_path / path], ModelOptions(), fp32).logits(texts) for path in ("alone", "hybrid"))
    a, b = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (alone, words.logits(texts)))
    assert np.abs(both - (0.25 * a + 0.75 * b)).max() <= 1e-5
    assert without_words(hybrid) == replace(artifact, metrics={})
    assert without_words(artifact) is artifact


def test_an_ensemble_orders_the_classes_of_a_hybrid(tmp_path: Path) -> None:
    pair = make_pair(tmp_path / "base")
    _, _, artifact = trained(pair, RUNS["query-value"], "pooler")
    texts = ["a w3 w60 z", "w9", "k l m n", "w1 w2 w3 w4 w5"]
    words = fit_words(texts, np.arange(4), 4).model
    hybrid = replace(artifact, mixing=Mixing(0.5), words=words)
    turned = {name: t.flip(0) if name.startswith("classifier") else t for name, t in artifact.tensors.items()}
    save_artifact(tmp_path / "turned", replace(artifact, labels=artifact.labels[::-1], tensors=turned), pair.ours)
    save_artifact(tmp_path / "hybrid", hybrid, pair.ours)
    save_artifact(tmp_path / "alone", artifact, pair.ours)

    def found(*names: str) -> np.ndarray:
        ensemble = load_ensemble([tmp_path / name for name in names], ModelOptions(), ComputeOptions(precision="fp32"))
        return np.asarray(ensemble.task.probabilities(ensemble.logits(texts)))

    both = found("turned", "hybrid")
    assert np.abs(both - (found("alone") + found("hybrid"))[:, ::-1] / 2).max() <= FP32
    assert np.abs(found("hybrid") - found("hybrid")[:, ::-1]).max() > 0.1


def test_a_linear_model_that_changes_on_disk_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = make_pair(tmp_path / "base")
    _, _, artifact = trained(pair, RUNS["query-value"], "pooler")
    words = fit_words(["a", "b c", "d", "e"], np.arange(4), 4).model
    plain = folders.write_words
    monkeypatch.setattr(folders, "write_words", lambda folder, model: plain(folder, replace(model, idf=model.idf * 2)))
    with pytest.raises(CheckError, match="the linear model on words differs after reading it back"):
        save_artifact(tmp_path / "made", replace(artifact, mixing=Mixing(0.5), words=words), pair.ours)
    assert not (tmp_path / "made").exists()


def _edit(folder: Path, **values: object) -> None:
    described = json.loads((folder / "loralet.json").read_text()) | values
    (folder / "loralet.json").write_text(json.dumps(described))


def test_a_damaged_folder_is_refused_in_one_message(place: Path, tmp_path: Path) -> None:
    artifact = load_artifact(place / "run" / "adapters" / HYBRID)
    saved = TextClassifier.load(place / "run")

    def refusal(name: str) -> Done:
        return command(place, "predict", str(tmp_path / name), "a b", "--backbone", "model")

    for name in ("missing", "weight", "shape"):
        saved.save(tmp_path / name)
    (tmp_path / "missing" / ARRAYS).unlink()
    _edit(tmp_path / "weight", mixing={"weight": 1.5, "temperature": 0})
    arrays = load_file(tmp_path / "shape" / ARRAYS)
    save_file(arrays | {"intercepts": arrays["intercepts"][:2]}, tmp_path / "shape" / ARRAYS)
    expected = {
        "missing": f"{ARRAYS} is missing",
        "weight": "mixing.weight is 1.5: it must be from 0 to 1; mixing.temperature is 0",
        "shape": "intercepts has shape [2]; expected [3]",
    }
    for name, words in expected.items():
        done = refusal(name)
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    saved.save(tmp_path / "whole")
    assert refusal("whole").returncode == 0
    with pytest.raises(RunError):
        load_artifact(tmp_path / "missing")
    assert isinstance(artifact, Artifact)


def test_the_option_is_part_of_the_training_options() -> None:
    (problem,) = TrainingOptions(hybrid="maybe").problems()  # type: ignore[arg-type]
    assert problem == "hybrid is 'maybe': it must be one of auto, on, off"


def test_labelled_rows_are_read_whole(place: Path) -> None:
    """The linear model also reads what the encoder truncates."""
    long = " ".join(["a"] * 60 + ["catish"])
    ensemble = load_ensemble([place / "run" / "adapters" / HYBRID], ModelOptions(), ComputeOptions(precision="fp32"))
    (first,), (second,) = (ensemble.logits([text]) for text in (long, " ".join(["a"] * 60)))
    assert np.abs(first - second).max() > 0.05
    write(place / "long.csv", [long], ["cat"])
    split = load_labelled(str(place / "long.csv"), Columns(), ensemble.task)
    assert np.array_equal(ensemble.logits(split.texts)[0], first)
