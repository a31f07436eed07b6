"""Export a trained run as an ONNX graph with tokenizer and labels, and in 8-bit integers if that is accurate enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from loralet.artifacts.artifact import Artifact
from loralet.artifacts.card import export_card, omission
from loralet.artifacts.merge import calibrated, merge
from loralet.artifacts.verify import trial_rows
from loralet.atomic import new_folder, write_json
from loralet.data.sources import Split
from loralet.data.tokens import Tokens, tokenise
from loralet.errors import CheckError
from loralet.export.checkpoint import hf_config
from loralet.export.exported import TOLERANCE, Exported, Gate, write_report, write_tokenizer
from loralet.export.graph import OPSET, onnx_logits, write_int8, write_onnx
from loralet.inference.evaluation import logits_of
from loralet.inference.predictor import LoadedClassifier

LARGEST_DROP = 0.005
"""Largest accepted drop of the main metric by the 8-bit graph, as a share: half a point."""
CHECKED_ROWS = 256
"""Rows on which a graph is compared with torch."""


def export_onnx(
    artifact: Artifact, classifier: LoadedClassifier, out: Path, calibration: Split | None, int8: bool
) -> Exported:
    """Write an ONNX graph with tokenizer and labels, and optionally an 8-bit graph.

    The linear model on words of a hybrid is not part of it.

    Args:
        artifact: the run.
        classifier: the run, loaded.
        out: the output folder.
        calibration: labelled rows, on which graph and run are compared and the 8-bit graph is evaluated. None: compare
            on a few fixed rows of token ids.
        int8: also quantise; needs ``calibration``. The 8-bit graph is kept if it loses at most half a point.

    Raises:
        CheckError: the logits of graph and run differ by more than 1e-4; nothing is kept.
    """
    merged = calibrated(merge(artifact, classifier.backbone))
    gate, refused = None, ""
    with new_folder(out) as temporary:
        write_onnx(merged, temporary / "model.onnx")
        rows = _tokens(calibration, artifact, classifier)
        expected = logits_of(classifier.backend, classifier.forward, rows, 1)[0] / artifact.temperature
        sample = rows if len(rows) <= CHECKED_ROWS else _first(rows, CHECKED_ROWS)
        apart = float(np.abs(onnx_logits(temporary / "model.onnx", sample) - expected[: len(sample)]).max())
        if not apart <= TOLERANCE:
            raise CheckError(
                f"{artifact.id}: the graph's logits differ from the run's by {apart:.2g}, above {TOLERANCE:g}; "
                "nothing was kept"
            )
        write_json(temporary / "labels.json", {"labels": list(artifact.labels), "max_length": artifact.max_length})
        write_json(temporary / "config.json", hf_config(artifact, classifier.backbone))
        write_tokenizer(temporary, artifact, classifier)
        (temporary / "README.md").write_text(export_card(artifact, "onnx"), encoding="utf-8")
        if int8 and calibration is not None:
            gate, refused = _gate(temporary, rows, expected, calibration, classifier)
        compared = (apart, len(sample))
        return write_report("onnx", artifact, out, temporary, OPSET, compared, gate, refused, omission(artifact))


def _gate(
    folder: Path, rows: Tokens, expected: np.ndarray, calibration: Split, classifier: LoadedClassifier
) -> tuple[Gate, str]:
    """Quantise, evaluate both graphs on the same rows, and keep the 8-bit graph if it is accurate enough."""
    path, task = folder / "model.int8.onnx", classifier.artifact.as_task()
    write_int8(folder / "model.onnx", path)
    before, after = (
        task.score(logits, calibration.targets)[task.selection] for logits in (expected, onnx_logits(path, rows))
    )
    kept, reason = holds(before, after)
    if not kept:
        path.unlink()
    return Gate(len(rows), calibration.source, task.selection, before, after, LARGEST_DROP, kept), reason


def holds(before: float, after: float) -> tuple[bool, str]:
    """Whether the drop of a metric is accepted, and the reason if not."""
    if before - after <= LARGEST_DROP + 1e-9:  # 1e-9: 0.905 - 0.9 is a little above 0.005 in binary
        return True, ""
    return False, (
        f"the 8-bit graph was not kept: it scores {after:.4f}, the fp32 graph {before:.4f}. "
        f"The drop of {100 * (before - after):.2f} points exceeds {100 * LARGEST_DROP:g}"
    )


def _tokens(calibration: Split | None, artifact: Artifact, classifier: LoadedClassifier) -> Tokens:
    if calibration is not None:
        return tokenise(calibration.texts, classifier.backbone.tokenizer, artifact.max_length)
    batch = trial_rows(classifier.backbone.table)
    return Tokens(batch.ids.numpy().astype(np.int32), batch.offsets.numpy())


def _first(rows: Tokens, count: int) -> Tokens:
    return Tokens(rows.ids[: rows.starts[count]], rows.starts[: count + 1])
