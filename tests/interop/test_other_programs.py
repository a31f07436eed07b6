"""One export in transformers.js, ONNX Runtime in Node.js, optimum and OpenVINO; ``make interop`` installs them."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command_line import command
from places import PACKAGES, PYTHON, needs_node, needs_python, node

from loralet import TextClassifier
from loralet.hub.bundled import FOLDER

LEAST_AGREEMENT = 0.99
TOLERANCE = 1e-4
"""Both sides compute in fp32, in another order."""


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """The bundled test texts, some of other lengths and characters, and one that is truncated."""
    with (FOLDER / "news-mini" / "test.csv").open(newline="", encoding="utf-8") as file:
        rows = [row["text"] for row in csv.DictReader(file)]
    return [*rows, "x", "Élan vital — 東京 50 €", "oil " * 400]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interop")
    done = command(folder, "train", "news-mini", "--steps", "80", "--folds", "0", "--hybrid", "off", "--out", "run")
    assert done.returncode == 0, done.stderr
    done = command(folder, "export", "run", "--to", "hf", "--out", "news")
    assert done.returncode == 0, done.stderr
    return folder / "news"


@pytest.fixture(scope="module")
def wanted(export: Path, texts: list[str]) -> np.ndarray:
    """Probabilities of the run."""
    found = TextClassifier.load(export.parent / "run").predict_proba(texts)
    assert len(set(found.argmax(1).tolist())) == 4
    return found


def labels_of(export: Path) -> list[str]:
    names = json.loads((export / "config.json").read_text())["id2label"]
    return [names[str(i)] for i in range(len(names))]


@needs_node
@pytest.mark.parametrize(
    ("dtype", "graph"), [("fp32", "model.onnx"), ("q8", "model_quantized.onnx"), ("fp16", "model_fp16.onnx")]
)
def test_transformers_js_and_onnxruntime_node(
    export: Path, texts: list[str], wanted: np.ndarray, dtype: str, graph: str
) -> None:
    script = str(Path(__file__).with_name("classify.mjs"))
    arguments = (script, str(PACKAGES), str(export), dtype, f"onnx/{graph}")
    found = json.loads(node(*arguments, stdin=json.dumps(texts)))
    labels = labels_of(export)
    by_label = [{entry["label"]: entry["score"] for entry in row} for row in found["scores"]]
    scores = np.array([[row[label] for label in labels] for row in by_label])
    agreement = (scores.argmax(1) == wanted.argmax(1)).mean()
    print(f"{dtype}: {agreement:.4f} of {len(texts)} labels, largest difference {np.abs(scores - wanted).max():.2g}")
    assert agreement >= LEAST_AGREEMENT
    assert found["keys"] == ["input_ids", "attention_mask", "token_type_ids"]
    settings = json.loads((export / "tokenizer_config.json").read_text())
    assert found["longest"] == settings["model_max_length"]  # the longest text is truncated as in training
    all_inputs, without = (np.array(found["logits"][kind]["data"]) for kind in ("all", "without types"))
    assert np.array_equal(all_inputs, without)
    logits = all_inputs.reshape(found["logits"]["all"]["dims"])
    if dtype == "fp32":
        softmax = np.exp(logits - logits.max(1, keepdims=True))
        for found_here in (scores, softmax / softmax.sum(1, keepdims=True)):
            # transformers.js cuts a text after adding [SEP], so a truncated text has none.
            assert np.abs(found_here - wanted)[:-1].max() <= TOLERANCE
            assert np.abs(found_here - wanted)[-1].max() > TOLERANCE
    else:
        assert np.abs(scores - wanted).max() > TOLERANCE / 100  # another graph


@needs_node
def test_the_cards_javascript_runs(export: Path, tmp_path: Path) -> None:
    shutil.copytree(export, tmp_path / "news")
    (tmp_path / "news" / "node_modules").symlink_to(PACKAGES.resolve())
    (script,) = re.findall(r"```javascript\n(.*?)```", (export / "README.md").read_text(), re.DOTALL)
    (tmp_path / "news" / "card.mjs").write_text(script)
    printed = node("card.mjs", cwd=tmp_path / "news")
    (label,) = re.findall(r"label: '([^']+)'", printed)
    assert label == TextClassifier.load(export).predict(["A text to classify."])[0]


OPTIMUM = """
import json, sys
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer
folder, file, texts = sys.argv[1], sys.argv[2], json.load(sys.stdin)
model = ORTModelForSequenceClassification.from_pretrained(folder, subfolder="onnx", file_name=file)
batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="pt")
print(json.dumps([model(**batch).logits.softmax(-1).tolist(), model.config.id2label]))
"""
OPENVINO = """
import json, sys
import numpy as np
import openvino
from transformers import AutoTokenizer
folder, file, texts = sys.argv[1], sys.argv[2], json.load(sys.stdin)
model = openvino.Core().compile_model(f"{folder}/onnx/{file}", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="np")
names = {name for port in model.inputs for name in port.names}
logits = model({name: value for name, value in batch.items() if name in names})[0]
softmax = np.exp(logits - logits.max(1, keepdims=True))
print(json.dumps([(softmax / softmax.sum(1, keepdims=True)).tolist(), sorted(names)]))
"""


@needs_python
@pytest.mark.parametrize("program", ["optimum", "openvino"])
@pytest.mark.parametrize("file", ["model.onnx", "model_quantized.onnx", "model_fp16.onnx"])
def test_optimum_and_openvino(export: Path, texts: list[str], wanted: np.ndarray, program: str, file: str) -> None:
    code = {"optimum": OPTIMUM, "openvino": OPENVINO}[program]
    known = subprocess.run([PYTHON, "-c", f"import {program}"], capture_output=True, check=False)
    if known.returncode:
        pytest.skip(f"{PYTHON} has no {program}")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [PYTHON, "-c", code, export, file],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found = np.array(json.loads(done.stdout.splitlines()[-1])[0])
    agreement = (found.argmax(1) == wanted.argmax(1)).mean()
    print(f"{program} {file}: {agreement:.4f}, largest difference {np.abs(found - wanted).max():.2g}")
    assert agreement >= LEAST_AGREEMENT
    if file == "model.onnx":
        assert np.abs(found - wanted).max() <= TOLERANCE
