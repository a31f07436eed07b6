"""The folder onnx/ of an export for transformers: the graph in fp32, in 8-bit integers and in fp16.

The names are those that transformers.js and optimum look for. Each file is compared with the run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from loralet.artifacts.artifact import Artifact
from loralet.artifacts.merge import Merged
from loralet.data.sources import Split
from loralet.data.tokens import Tokens, tokenise
from loralet.errors import CheckError
from loralet.export.exported import TOLERANCE, Compared
from loralet.export.graph import onnx_logits, write_fp16, write_int8, write_onnx
from loralet.hub.bundled import DATA, FOLDER
from loralet.inference.evaluation import logits_of
from loralet.inference.predictor import LoadedClassifier

FOLDER_NAME = "onnx"
FP32, INT8, FP16 = "model.onnx", "model_quantized.onnx", "model_fp16.onnx"
LEAST_AGREEMENT = 0.99
"""Least share of rows on which a smaller graph predicts the run's label. Sound ones reach it (dev/LOG.md)."""
COMPARED_ROWS = 512
"""Most rows on which graphs are compared."""


def write_graphs(
    folder: Path, merged: Merged, classifier: LoadedClassifier, calibration: Split | None
) -> tuple[Compared, ...]:
    """Write the graphs, and keep the smaller ones if they predict what the run predicts.

    Args:
        folder: the export; the graphs are in its folder onnx/.
        merged: the run, merged and calibrated.
        classifier: the run, loaded.
        calibration: rows to compare on, such as validation rows; None: the bundled texts.

    Raises:
        CheckError: the logits of the fp32 graph and the run differ by more than 1e-4.
    """
    place = folder / FOLDER_NAME
    place.mkdir()
    rows, source = _rows(calibration, merged.artifact, classifier)
    expected = logits_of(classifier.backend, classifier.forward, rows, 1)[0] / merged.artifact.temperature
    write_onnx(merged, place / FP32)
    compared = [_compare(place / FP32, rows, source, expected)]
    if not compared[0].largest_difference <= TOLERANCE:
        raise CheckError(
            f"{merged.artifact.id}: the graph's logits differ from the run's by {compared[0].largest_difference:.2g}, "
            f"above {TOLERANCE:g}; nothing was kept"
        )
    for name, write in ((INT8, write_int8), (FP16, write_fp16)):
        write(place / FP32, place / name)
        found = _compare(place / name, rows, source, expected)
        if found.agreement < LEAST_AGREEMENT:
            (place / name).unlink()
            found = replace(found, kept=False)
        compared.append(found)
    return tuple(compared)


def _rows(calibration: Split | None, artifact: Artifact, classifier: LoadedClassifier) -> tuple[Tokens, str]:
    """The rows to compare on, evenly spread over the given ones, and where they are from."""
    if calibration is None:
        from loralet.data.files import Columns, read_table

        texts, source = read_table(FOLDER / DATA / "test.csv", Columns()).texts, f"texts of {DATA}"
    else:
        count = min(len(calibration), COMPARED_ROWS)
        chosen = calibration.take(np.linspace(0, len(calibration) - 1, count).astype(np.int64))
        texts, source = chosen.texts, chosen.source
    return tokenise(texts, classifier.backbone.tokenizer, artifact.max_length), source


def _compare(path: Path, rows: Tokens, source: str, expected: np.ndarray) -> Compared:
    logits = onnx_logits(path, rows)
    agreement = float((logits.argmax(-1) == expected.argmax(-1)).mean())
    return Compared(path.name, len(rows), source, agreement, float(np.abs(logits - expected).max()), True)
