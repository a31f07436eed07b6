"""A trained run as files for other programs: a transformers checkpoint, an ONNX graph, or one folder that needs nothing else.

Every export is checked against the run before its folder takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loralet import __version__
from loralet.artifacts.card import export_card
from loralet.artifacts.folder import Artifact, save_artifact
from loralet.artifacts.merge import Merged, merge
from loralet.artifacts.verify import trial_rows
from loralet.atomic import new_folder, write_json
from loralet.data.batches import collate
from loralet.data.sources import Split
from loralet.data.tokens import Tokens, tokenise
from loralet.errors import CheckError, RunError
from loralet.export.onnx import OPSET, TOLERANCE, onnx_logits, write_int8, write_onnx
from loralet.hub.tokenizer_config import tokenizer_config
from loralet.inference.evaluation import logits_of
from loralet.inference.predictor import LoadedClassifier, ready
from loralet.models.families import HEADS, head_names

LARGEST_DROP = 0.005
"""Accuracy that 8-bit integers may cost, as a share: half a point."""
CHECKED_ROWS = 256
"""Rows on which a graph is compared with torch."""
HF_CLASSES = {"bert": "Bert", "roberta": "Roberta", "distilbert": "DistilBert", "electra": "Electra"}
"""Beginning of the name of each architecture's transformers class, ...ForSequenceClassification."""


@dataclass(frozen=True)
class Exported:
    """What an export left.

    Args:
        folder: where.
        report: export.json.
        refused: why the 8-bit graph was not kept; empty where it was, or was not asked for.
    """

    folder: Path
    report: dict[str, Any]
    refused: str = ""


def export_hf(artifact: Artifact, classifier: LoadedClassifier, out: Path) -> Exported:
    """A merged checkpoint that transformers' ``pipeline("text-classification")`` runs, with the label names.

    Raises:
        RunError: transformers has no class with this head.
        CheckError: what was written reads back as something else; nothing is kept.
    """
    kind = artifact.architecture
    if artifact.head == "mean" or artifact.head_activation != HEADS[kind].activation:
        reads = (
            "the mean over tokens"
            if artifact.head == "mean"
            else f"a pooler with {artifact.head_activation} (it has {HEADS[kind].activation})"
        )
        raise RunError(
            f"{artifact.id}: transformers has no {kind} classifier that reads {reads}; export it with --to onnx or --to safetensors-bundle"
        )
    merged = merge(artifact, classifier.backbone)
    tensors = _hf_tensors(merged)
    names = dict(enumerate(artifact.labels))
    config = classifier.backbone.config | {
        "architectures": [f"{HF_CLASSES[kind]}ForSequenceClassification"],
        "model_type": kind,
        "id2label": names,
        "label2id": {name: number for number, name in names.items()},
        "problem_type": "single_label_classification",
        "torch_dtype": "float32",
    }
    config.pop("dtype", None)
    with new_folder(out) as temporary:
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        written = load_file(temporary / "model.safetensors")
        if set(written) != set(tensors) or not all(
            torch.equal(written[name], tensor) for name, tensor in tensors.items()
        ):
            raise CheckError(f"{artifact.id}: model.safetensors reads back as something else; nothing was kept")
        write_json(temporary / "config.json", config)
        _write_tokenizer(temporary, artifact, classifier)
        (temporary / "README.md").write_text(export_card(artifact, "hf"), encoding="utf-8")
        report = _report("hf", artifact, temporary)
    return Exported(out, report)


def export_bundle(artifact: Artifact, classifier: LoadedClassifier, out: Path) -> Exported:
    """One folder, with merged weights, tokenizer and labels, that :func:`loralet.inference.predictor.load_classifier` needs nothing beside.

    Raises:
        CheckError: what was written does not compute what is in memory; nothing is kept.
    """
    merged = merge(artifact, classifier.backbone)
    made_from = {"merged_from": artifact.id, "merged_rank": artifact.rank, "merged_alpha": artifact.alpha}
    whole = replace(
        artifact,
        role="full",
        rank=0,
        alpha=1.0,
        targets=(),
        scaling="alpha/r",
        head="mean" if merged.mean else "pooler",
        tensors=merged.weights | merged.classifier,
        training=artifact.training | (made_from if artifact.rank else {}),
    )
    plain = replace(
        classifier.backbone, weights={n: t for n, t in classifier.backbone.weights.items() if n in merged.weights}
    )
    save_artifact(out, whole, plain)
    _compare("the bundle", _torch_logits(whole, classifier), classifier)
    report = _report("safetensors-bundle", artifact, out)
    return Exported(out, report)


def export_onnx(
    artifact: Artifact, classifier: LoadedClassifier, out: Path, calibration: Split | None, int8: bool
) -> Exported:
    """An ONNX graph with tokenizer and labels, and, if asked for, its 8-bit form behind a measured gate.

    Args:
        artifact: the run.
        classifier: the same, loaded.
        out: the folder.
        calibration: labelled rows for the check against torch and for the gate; a few fixed rows of token ids serve the check without.
        int8: also quantise; needs ``calibration``.

    Raises:
        CheckError: graph and torch differ by more than 1e-4; nothing is kept.
    """
    merged = merge(artifact, classifier.backbone)
    refused = ""
    with new_folder(out) as temporary:
        write_onnx(merged, temporary / "model.onnx")
        rows = _tokens(calibration, artifact, classifier)
        expected = logits_of(classifier.forward, rows, 1, classifier.device)[0]
        sample = rows if len(rows) <= CHECKED_ROWS else _first(rows, CHECKED_ROWS)
        apart = float((onnx_logits(temporary / "model.onnx", sample) - expected[: len(sample)]).abs().max())
        if not apart <= TOLERANCE:
            raise CheckError(
                f"{artifact.id}: the graph's logits differ from torch's by {apart:.2g}, above {TOLERANCE:g}; nothing was kept"
            )
        write_json(temporary / "labels.json", {"labels": list(artifact.labels), "max_length": artifact.max_length})
        _write_tokenizer(temporary, artifact, classifier)
        (temporary / "README.md").write_text(export_card(artifact, "onnx"), encoding="utf-8")
        measured: dict[str, Any] = {"opset": OPSET, "largest_difference": apart, "rows_compared": len(sample)}
        if int8 and calibration is not None:
            measured["int8"], refused = _gate(temporary, rows, expected, calibration)
        report = _report("onnx", artifact, temporary, measured)
    return Exported(out, report, refused)


def _gate(folder: Path, rows: Tokens, expected: Tensor, calibration: Split) -> tuple[dict[str, Any], str]:
    """Quantise, measure both on the same rows, and keep the 8-bit graph only if its accuracy holds."""
    path = folder / "model.int8.onnx"
    write_int8(folder / "model.onnx", path)
    bytes_ = {"model.onnx": (folder / "model.onnx").stat().st_size, path.name: path.stat().st_size}
    before, after = (_accuracy(logits, calibration.labels) for logits in (expected, onnx_logits(path, rows)))
    kept, reason = holds(before, after)
    measured = {
        "rows": len(rows),
        "data": calibration.source,
        "accuracy_fp32": before,
        "accuracy_int8": after,
        "largest_drop": LARGEST_DROP,
        "bytes": bytes_,
        "kept": kept,
    }
    if not kept:
        path.unlink()
    return measured, reason


def holds(before: float, after: float) -> tuple[bool, str]:
    """Whether 8-bit integers keep enough of an accuracy, and, where not, why, in words."""
    if before - after <= LARGEST_DROP + 1e-9:  # 1e-9: 0.905 - 0.9 is a little above 0.005 in binary
        return True, ""
    return False, (
        f"the 8-bit graph was not kept: its accuracy is {after:.4f}, the fp32 graph's {before:.4f}; "
        f"a drop of {100 * (before - after):.2f} points, and at most {100 * LARGEST_DROP:g} are allowed"
    )


def _accuracy(logits: Tensor, labels: np.ndarray) -> float:
    return float((logits.argmax(-1).numpy() == labels).mean())


def _tokens(calibration: Split | None, artifact: Artifact, classifier: LoadedClassifier) -> Tokens:
    if calibration is not None:
        return tokenise(calibration.texts, classifier.backbone.tokenizer, artifact.max_length)
    ids, lengths = trial_rows(classifier.backbone.shape)
    kept = [row[:length] for row, length in zip(ids.numpy(), lengths.tolist(), strict=True)]
    return Tokens(np.concatenate(kept).astype(np.int32), np.concatenate([[0], np.cumsum(lengths.numpy())]))


def _first(rows: Tokens, count: int) -> Tokens:
    return Tokens(rows.ids[: rows.starts[count]], rows.starts[: count + 1])


def _torch_logits(artifact: Artifact, classifier: LoadedClassifier) -> Tensor:
    """Logits on the fixed rows of a merged model."""
    backbone = replace(
        classifier.backbone, weights={n: t for n, t in artifact.tensors.items() if not n.startswith("classifier")}
    )
    head = {n: t for n, t in artifact.tensors.items() if n.startswith("classifier")}
    return _fixed(ready(replace(artifact, tensors=head), backbone))


def _compare(what: str, found: Tensor, classifier: LoadedClassifier) -> None:
    apart = float((found - _fixed(classifier)).abs().max())
    if not apart <= TOLERANCE:
        raise CheckError(
            f"{classifier.artifact.id}: {what} gives other logits than the run (largest difference {apart:.2g})"
        )


@torch.no_grad()
def _fixed(classifier: LoadedClassifier) -> Tensor:
    tokens = _tokens(None, classifier.artifact, classifier)
    ids, lengths = collate(tokens, np.arange(len(tokens)))
    return classifier.forward(ids.to(classifier.device), lengths.to(classifier.device))[0].cpu()


def _hf_tensors(merged: Merged) -> dict[str, Tensor]:
    """The tensors by the names of transformers' classes; all but BERT's have the pooler inside their head."""
    architecture = merged.backbone.architecture
    names = {ours: theirs for theirs, ours in head_names(architecture.model_type).items()}
    tensors = merged.weights | merged.classifier
    return {
        names.get(own) or architecture.prefix + architecture.tensor(own): tensor.contiguous()
        for own, tensor in tensors.items()
    }


def _write_tokenizer(folder: Path, artifact: Artifact, classifier: LoadedClassifier) -> None:
    classifier.backbone.tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", tokenizer_config(classifier.backbone.tokenizer, artifact.max_length))


def _report(to: str, artifact: Artifact, folder: Path, measured: dict[str, Any] | None = None) -> dict[str, Any]:
    """Write export.json: what was exported, from what, and how large it is."""
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != "export.json"}
    report = {
        "loralet": __version__,
        "to": to,
        "run": artifact.id,
        "backbone": artifact.backbone,
        "backbone_fingerprint": artifact.backbone_fingerprint,
        "labels": list(artifact.labels),
        "bytes": files,
    } | (measured or {})
    write_json(folder / "export.json", report)
    return report
