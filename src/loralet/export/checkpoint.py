"""Export a trained run as a checkpoint for transformers, or as a self-contained folder for loralet.

Every export is compared with the run before its folder is created.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loralet.adapters.spec import HEAD_ALONE
from loralet.artifacts.artifact import Artifact
from loralet.artifacts.card import export_card, omission
from loralet.artifacts.folder import save_artifact
from loralet.artifacts.foreign import CLASSIFICATION
from loralet.artifacts.merge import Merged, calibrated, merge
from loralet.atomic import new_folder, write_json
from loralet.data.sources import Split
from loralet.errors import CheckError, RunError
from loralet.export.exported import Exported, compare, fixed_logits, write_report, write_tokenizer
from loralet.export.graphs import INT8, write_graphs
from loralet.hub.backbone import Backbone
from loralet.inference.predictor import LoadedClassifier, ready


def export_hf(
    artifact: Artifact, classifier: LoadedClassifier, out: Path, calibration: Split | None = None, graphs: bool = False
) -> Exported:
    """Write a merged checkpoint with label names for ``pipeline("text-classification")`` of transformers.

    The linear model on words of a hybrid is not part of it.

    Args:
        artifact: the run.
        classifier: the run, loaded.
        out: the output folder.
        calibration: rows on which graphs and run are compared; None: the bundled texts.
        graphs: also write the folder onnx/, for transformers.js, optimum and ONNX Runtime.

    Raises:
        RunError: transformers has no class with this head.
        CheckError: the logits of graph and run differ by more than 1e-4, or the file that was written differs from the
            tensors; nothing is kept.
    """
    family = classifier.backbone.family
    if artifact.head == "mean" or artifact.pooling != family.head.pooling:
        found = "the mean over tokens" if artifact.head == "mean" else f"a pooler with {artifact.pooling.activation}"
        raise RunError(
            f"{artifact.id}: transformers has no {family.model_type} classifier that reads {found} "
            f"(it has a pooler with {family.head.pooling.activation}); "
            "export it with --to onnx or --to safetensors-bundle, or train with --head pooler or trained-pooler"
        )
    merged = calibrated(merge(artifact, classifier.backbone))
    tensors, config = _hf_tensors(merged), hf_config(artifact, classifier.backbone)
    with new_folder(out) as temporary:
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        written = load_file(temporary / "model.safetensors")
        if set(written) != set(tensors) or not all(torch.equal(written[name], t) for name, t in tensors.items()):
            raise CheckError(f"{artifact.id}: model.safetensors differs from what was written; nothing was kept")
        compared = write_graphs(temporary, merged, classifier, calibration) if graphs else ()
        if any(graph.file == INT8 and not graph.kept for graph in compared):
            config |= {"transformers.js_config": {"dtype": "fp32"}}  # browsers load the 8-bit graph otherwise
        write_json(temporary / "config.json", config)
        write_tokenizer(temporary, artifact, classifier)
        card = export_card(artifact, "hf", [graph.file for graph in compared if graph.kept])
        (temporary / "README.md").write_text(card, encoding="utf-8")
        return write_report("hf", artifact, out, temporary, omitted=omission(artifact), graphs=compared)


def hf_config(artifact: Artifact, backbone: Backbone) -> dict[str, object]:
    """The content of config.json for the merged run: that of the backbone, with classification head and label names."""
    names = dict(enumerate(artifact.labels))
    family = backbone.family
    config = backbone.config | {
        "architectures": [f"{family.transformers}{CLASSIFICATION}"],
        "model_type": family.model_type,
        "id2label": names,
        "label2id": {name: number for number, name in names.items()},
        "problem_type": artifact.as_task().problem_type,
        "torch_dtype": "float32",
    }
    config.pop("dtype", None)
    return config | dict(family.hf_config)


def _hf_tensors(merged: Merged) -> dict[str, Tensor]:
    """The tensors, by their names in transformers."""
    family = merged.backbone.family
    head = {ours: theirs for theirs, ours in family.head.tensors().items()}
    tensors = merged.weights | merged.classifier
    return {head.get(ours) or family.prefix + family.tensor(ours): t.contiguous() for ours, t in tensors.items()}


def export_bundle(artifact: Artifact, classifier: LoadedClassifier, out: Path) -> Exported:
    """Write one folder with merged weights, tokenizer and labels, which loads without hub or cache.

    Its loralet.json has the temperature of the run. The linear model on words of a hybrid is part of it.

    Raises:
        CheckError: the written files give other logits than the run; nothing is kept.
    """
    merged = merge(artifact, classifier.backbone)
    provenance = artifact.provenance
    if artifact.adapter.rank:
        provenance = replace(provenance, merged_from=artifact.id, merged_adapter=artifact.adapter)
    whole = replace(
        artifact,
        role="full",
        adapter=HEAD_ALONE,
        head="mean" if merged.mean else "pooler",
        tensors=merged.weights | merged.classifier,
        provenance=provenance,
    )
    plain = replace(
        classifier.backbone, weights={n: t for n, t in classifier.backbone.weights.items() if n in merged.weights}
    )
    save_artifact(out, whole, plain)
    alone = replace(whole, tensors=merged.classifier)
    compare("the bundle", fixed_logits(ready(alone, replace(plain, weights=merged.weights))), classifier)
    return write_report("safetensors-bundle", artifact, out, out)
