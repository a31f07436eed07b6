"""The temperature compared with torch's LBFGS, and its effect on every predictor and export."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from backends import FEW
from command_line import command
from models import Pair, batch, make_pair
from peft import PeftModel
from safetensors.numpy import load_file
from test_adapters import LABELS, RUNS, trained
from tolerances import FP32
from torch.nn import functional as F
from transformers import BertForSequenceClassification, pipeline

from loralet import TextClassifier
from loralet.artifacts.artifact import Artifact, read_description
from loralet.artifacts.average import average
from loralet.artifacts.card import card as card_of
from loralet.artifacts.folder import load_artifact, save_artifact
from loralet.backends.batch import batch_of
from loralet.config import ComputeOptions, ModelOptions
from loralet.errors import RunError
from loralet.export.checkpoint import export_bundle, export_hf
from loralet.export.onnx import export_onnx
from loralet.inference.ensemble import load_ensemble
from loralet.inference.predictor import load_classifier
from loralet.report.statistics import reliability
from loralet.runs.results import read_results
from loralet.runs.selection import chosen_run
from loralet.tasks.calibration import (
    LARGEST,
    LEAST_ROWS,
    CalibrationError,
    bin_of,
    errors,
    expected_calibration_error,
    fit_temperature,
    scale_temperature,
)

# Long trainings, most of whose lines other tests cover too; measuring them takes half as long again.
pytestmark = pytest.mark.no_cover

TEXTS = ["a w3 w60 z", "w9", "k l m n o p q r s t u v w x y z a b c d e f g", "w1 w2 w3 w4 w5"]
TEMPERATURE = 2.5


def noisy(rows: int, classes: int, scale: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a classifier that is right on a part of the rows, times a scale."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, classes, rows)
    logits = generator.normal(size=(rows, classes))
    logits[np.arange(rows), targets] += 1.5
    return (scale * logits).astype(np.float32), targets


def by_lbfgs(logits: np.ndarray, targets: np.ndarray) -> float:
    """The temperature that torch's LBFGS finds for the same cross-entropy."""
    values, labels = torch.from_numpy(logits).double(), torch.from_numpy(targets)
    uniform = torch.full_like(values, 1 / values.shape[1])
    logarithm = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logarithm], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        scaled = values / logarithm.exp()
        loss = F.cross_entropy(scaled, labels, reduction="sum") + F.cross_entropy(scaled, uniform)
        loss.backward()
        return loss

    optimiser.step(closure)
    return logarithm.detach().exp().item()


@pytest.mark.parametrize("scale", [0.2, 1.0, 6.0])
@pytest.mark.parametrize(("rows", "classes"), [(12, 3), (100, 2), (500, 4), (2000, 40)])
def test_the_temperature_is_that_of_torchs_lbfgs(rows: int, classes: int, scale: float) -> None:
    logits, targets = noisy(rows, classes, scale)
    found = fit_temperature(logits, targets)
    assert found == pytest.approx(by_lbfgs(logits, targets), rel=1e-4)
    assert found == pytest.approx(scale * fit_temperature(*noisy(rows, classes, 1.0)), rel=1e-4)
    assert abs(fit_temperature(*noisy(rows, classes, scale, seed=1)) / found - 1) > 1e-4


def test_rows_without_errors_have_no_extreme_temperature() -> None:
    logits, targets = np.eye(3, dtype=np.float32)[np.arange(30) % 3], np.arange(30) % 3
    found = fit_temperature(logits, targets)
    assert found == pytest.approx(by_lbfgs(logits, targets), rel=1e-4)
    assert 0.1 < found < 0.5
    assert found > fit_temperature(np.tile(logits, (10, 1)), np.tile(targets, 10))
    assert fit_temperature(logits, (targets + 1) % 3) == pytest.approx(LARGEST, rel=1e-4)  # within its limits


def ece_by_loops(probabilities: np.ndarray, targets: np.ndarray, bins: int) -> float:
    """Equation 3 of Guo et al. (2017), bin by bin."""
    total = 0.0
    for i in range(bins):
        inside = [row for row in range(len(targets)) if i / bins < probabilities[row].max() <= (i + 1) / bins]
        if inside:
            accuracy = np.mean([probabilities[row].argmax() == targets[row] for row in inside])
            confidence = np.mean([probabilities[row].max() for row in inside])
            total += len(inside) / len(targets) * abs(accuracy - confidence)
    return float(total)


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_calibration_error_is_that_of_its_definition(bins: int) -> None:
    logits, targets = noisy(300, 4, 3.0)
    probabilities = torch.from_numpy(logits).softmax(-1).numpy()
    wanted = ece_by_loops(probabilities, targets, bins)
    assert expected_calibration_error(probabilities, targets, bins) == pytest.approx(wanted, abs=1e-6)
    assert reliability(probabilities, targets, bins).ece == pytest.approx(wanted, abs=1e-6)
    assert wanted > 0.05
    sure = np.eye(4)[targets]
    assert expected_calibration_error(sure, targets, bins) == 0.0


def test_a_confidence_at_the_edge_of_two_bins_belongs_to_the_lower_one() -> None:
    assert bin_of(np.array([0.1, 0.5, np.nextafter(0.5, 1), 1.0, 0.0]), 10).tolist() == [0, 4, 5, 9, 0]


def test_scaling_lowers_loss_and_calibration_error_and_keeps_the_predictions() -> None:
    logits, targets = noisy(2000, 4, 6.0)
    scaling = scale_temperature(logits, targets)
    assert (scaling.rows, scaling.fitted, scaling.test) == (2000, True, None)
    assert scaling.validation.after < 0.03 < 0.15 < scaling.validation.before
    scaled = logits / scaling.temperature
    assert (scaled.argmax(-1) == logits.argmax(-1)).all()
    losses = [float(F.cross_entropy(torch.from_numpy(x), torch.from_numpy(targets))) for x in (logits, scaled)]
    assert losses[1] < losses[0] - 0.1
    unseen, truth = noisy(2000, 4, 6.0, seed=1)
    assert scaling.on_test(unseen, truth).test == errors(unseen, truth, scaling.temperature)
    probabilities = torch.from_numpy(unseen / scaling.temperature).softmax(-1).numpy()
    assert errors(unseen, truth, scaling.temperature).after == pytest.approx(ece_by_loops(probabilities, truth, 15))


def test_few_rows_do_not_set_a_temperature() -> None:
    logits, targets = noisy(LEAST_ROWS, 4, 6.0)
    assert scale_temperature(logits, targets).fitted
    few = scale_temperature(logits[1:], targets[1:])
    assert (few.temperature, few.fitted, few.rows) == (1.0, False, LEAST_ROWS - 1)
    error = errors(logits[1:], targets[1:], 1.0).before
    assert few.validation == CalibrationError(error, error)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path / "base")


def scaled_run(pair: Pair, name: str = "query-value") -> Artifact:
    """A run with random tensors, large enough to move the probabilities, and a temperature."""
    _, _, artifact = trained(pair, RUNS[name], "pooler")
    tensors = {n: t * (20 if n == "classifier.weight" else 1) for n, t in artifact.tensors.items()}
    return replace(artifact, tensors=tensors, temperature=TEMPERATURE)


@pytest.fixture
def adapter(pair: Pair, tmp_path: Path) -> Path:
    save_artifact(tmp_path / "adapter", scaled_run(pair), pair.ours)
    return tmp_path / "adapter"


@pytest.fixture
def raw(adapter: Path, tmp_path: Path) -> np.ndarray:
    """The logits of the texts without the temperature, as of a folder written before it existed."""
    described = json.loads((adapter / "loralet.json").read_text())
    assert described.pop("temperature") == TEMPERATURE
    assert described.pop("sha256")
    old = tmp_path / "old"
    old.mkdir()
    for path in adapter.iterdir():
        (old / path.name).write_bytes(path.read_bytes())
    (old / "loralet.json").write_text(json.dumps(described))
    assert load_artifact(old).temperature == 1.0
    return load_ensemble([old], ModelOptions(), ComputeOptions("torch", "fp32")).logits(TEXTS)


@pytest.mark.parametrize("backend", sorted({backend.name for backend in FEW}))
def test_an_ensemble_divides_the_logits_of_each_member(adapter: Path, raw: np.ndarray, backend: Any) -> None:
    compute = ComputeOptions(backend, "fp32")
    assert np.abs(load_ensemble([adapter], ModelOptions(), compute).logits(TEXTS) - raw / TEMPERATURE).max() <= FP32
    assert np.abs(raw - raw / TEMPERATURE).max() > 0.1
    old = adapter.with_name("old")
    both = load_ensemble([adapter, old], ModelOptions(), compute)
    found = np.array([prediction.probabilities for prediction in both.predict(TEXTS)])
    values = torch.from_numpy(raw)
    wanted = ((values / TEMPERATURE).softmax(-1) + values.softmax(-1)) / 2
    assert np.abs(found - wanted.numpy()).max() <= FP32


def test_python_and_the_commands_give_calibrated_probabilities(adapter: Path, raw: np.ndarray, tmp_path: Path) -> None:
    wanted = torch.from_numpy(raw / TEMPERATURE).softmax(-1).numpy()
    classifier = TextClassifier.load(adapter)
    assert np.abs(classifier.predict_proba(TEXTS) - wanted).max() <= FP32
    classifier.save(tmp_path / "again")
    assert load_artifact(tmp_path / "again").temperature == TEMPERATURE
    done = command(tmp_path, "predict", "adapter", *TEXTS, "--format", "jsonl")
    found = [list(json.loads(line)["probabilities"].values()) for line in done.stdout.splitlines()]
    assert np.abs(np.array(found) - wanted).max() <= FP32
    labels = [LABELS[i % 4] for i in range(len(TEXTS))]
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in zip(TEXTS, labels, strict=True))
    )
    scores = json.loads(command(tmp_path, "evaluate", "adapter", "rows.jsonl", "--format", "json").stdout)
    loss = F.cross_entropy(torch.from_numpy(raw / TEMPERATURE), torch.arange(4)).item()
    assert scores["loss"] == pytest.approx(loss, abs=1e-5)


def test_peft_reads_the_raw_weights_and_the_card_says_so(pair: Pair, adapter: Path) -> None:
    ids, lengths, mask, _ = batch()
    base = BertForSequenceClassification.from_pretrained(pair.folder, num_labels=len(LABELS))
    model = PeftModel.from_pretrained(base, adapter).eval()
    loaded = load_classifier(adapter)
    with torch.no_grad():
        theirs = model(ids, attention_mask=mask).logits
    assert (loaded.forward(batch_of(ids, lengths))[0] - theirs).abs().max() <= FP32
    card = (adapter / "README.md").read_text()
    assert "the temperature of the logits, 2.5," in card
    assert "such as PEFT, divide the logits by it" in card
    assert "temperature" not in card_of(replace(load_artifact(adapter), temperature=1.0), True)


def hf_logits(folder: Path) -> np.ndarray:
    classify = pipeline("text-classification", model=str(folder), top_k=None, function_to_apply="none")
    rows = [{entry["label"]: entry["score"] for entry in row} for row in classify(TEXTS, truncation=True)]
    return np.array([[row[label] for label in LABELS] for row in rows])


def onnx_logits(folder: Path) -> np.ndarray:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(json.loads((folder / "labels.json").read_text())["max_length"])
    tokenizer.enable_padding()
    rows = tokenizer.encode_batch(TEXTS)
    given = {"input_ids": [row.ids for row in rows], "attention_mask": [row.attention_mask for row in rows]}
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    (logits,) = session.run(None, {name: np.array(values) for name, values in given.items()})
    return np.asarray(logits)


def bundle_logits(folder: Path) -> np.ndarray:
    return load_ensemble([folder], ModelOptions(), ComputeOptions(precision="fp32")).logits(TEXTS)


EXPORTS: dict[str, Callable[[Path], np.ndarray]] = {"hf": hf_logits, "onnx": onnx_logits, "bundle": bundle_logits}


@pytest.mark.parametrize("to", EXPORTS)
def test_every_export_has_the_temperature(adapter: Path, raw: np.ndarray, to: str, tmp_path: Path) -> None:
    loaded = load_classifier(adapter)
    out = tmp_path / "exported"
    if to == "hf":
        export_hf(loaded.artifact, loaded, out)
    elif to == "bundle":
        export_bundle(loaded.artifact, loaded, out)
    else:
        export_onnx(loaded.artifact, loaded, out, None, int8=False)
    assert np.abs(EXPORTS[to](out) - raw / TEMPERATURE).max() <= 1e-4
    card = (out / "README.md").read_text()
    assert "the temperature of the logits, 2.5," in card
    assert ("divided into the weights and the bias" in card) == (to != "bundle")


def test_an_average_needs_a_temperature_of_its_own(pair: Pair) -> None:
    assert average({"a": scaled_run(pair), "b": scaled_run(pair)}, "made").temperature == 1.0


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "2", None])
def test_an_invalid_temperature_is_rejected(pair: Pair, value: object) -> None:
    described = scaled_run(pair).describe()
    assert read_description(json.loads(json.dumps(described))).temperature == TEMPERATURE
    with pytest.raises(ValueError, match="temperature is "):
        read_description(described | {"temperature": value})


def write_rows(path: Path, count: int, seed: int) -> None:
    """Texts of letters. Each label has its own letters, and all labels share some."""
    words = {"apple": "a b c d", "bird": "h i j k", "cat": "p q r s"}
    generator = np.random.default_rng(seed)
    lines = ["text,label"]
    for label in (list(words) * count)[:count]:
        letters = generator.choice([*words[label].split(), *"xyz"], generator.integers(2, 12))
        lines.append(f"{' '.join(letters)},{label}")
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with enough validation rows for a temperature."""
    folder = tmp_path_factory.mktemp("temperature")
    make_pair(folder / "model")
    (folder / "data").mkdir()
    for name, count, seed in (("train", 60, 0), ("validation", 150, 1), ("test", 120, 2)):
        write_rows(folder / "data" / f"{name}.csv", count, seed)
    done = command(
        folder, "study", "data", "--models", "model", "--ranks", "4", "--alphas", "8", "--lrs", "1e-2", "--no-default",
        "--seeds", "0", "1", "--steps", "60", "--batch-size", "8", "--targets", "all-linear", "--combine",
        "--precision", "fp32", "--quiet", "--out", "grid",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_training_fits_the_temperature_on_the_validation_split(studied: Path) -> None:
    results = read_results(studied / "grid")
    rows = {run.id: run for run in results.runs}
    calibrated = [run for run in results.runs if run.role in ("lora", "linear-probe", "average")]
    assert len(calibrated) == 5
    for run in calibrated:
        assert run.calibration
        assert run.validation
        assert run.test
        assert (run.calibration.rows, run.calibration.fitted) == (150, True)
        folder = studied / "grid" / "adapters" / run.id
        assert load_artifact(folder).temperature == run.calibration.temperature
        for split in ("validation", "test"):
            error = getattr(run.calibration, split)
            found = command(studied, "evaluate", str(folder), f"data/{split}.csv", "--format", "json")
            scores = json.loads(found.stdout)
            recorded = getattr(run, split)
            assert scores["loss"] == pytest.approx(recorded.loss, abs=1e-4)
            assert scores["accuracy"] == recorded["accuracy"]
            assert scores["ece"] == pytest.approx(error.after, abs=2e-3)
    assert any(abs(run.calibration.temperature - 1) > 0.05 for run in calibrated if run.calibration)
    for role in ("majority", "tfidf-svm", "random-head", "ensemble"):
        assert all(run.calibration is None for run in results.runs if run.role == role)
    probabilities = load_file(studied / "grid" / "predictions.safetensors")
    texts = [line.split(",")[0] for line in (studied / "data" / "test.csv").read_text().splitlines()[1:]]
    chosen = TextClassifier.load(studied / "grid", backbone=str(studied / "model"))
    assert np.abs(probabilities[chosen_run(results).id] - chosen.predict_proba(texts)).max() <= 1e-4
    members = rows["ensemble"].members or ()
    mean = np.mean([probabilities[member] for member in members], 0)
    assert np.abs(probabilities["ensemble"] - mean).max() <= 1e-6


@pytest.mark.parametrize("format", ["table", "jsonl", "csv"])
def test_logits_that_overflow_give_an_error_and_no_predictions(pair: Pair, tmp_path: Path, format: str) -> None:
    artifact = scaled_run(pair)
    tensors = {**artifact.tensors, "classifier.weight": torch.full((4, 32), 3e38)}
    save_artifact(tmp_path / "broken", replace(artifact, tensors=tensors), pair.ours)
    done = command(tmp_path, "predict", "broken", *TEXTS, "--format", format)
    assert (done.returncode, done.stdout) == (2, "")
    assert "the logits of 4 of 4 texts are not finite" in done.stderr
    with pytest.raises(RunError, match="not finite"):
        TextClassifier.load(tmp_path / "broken").predict_proba(TEXTS)
