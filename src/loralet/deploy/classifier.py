"""A trained run, loaded and ready to predict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from loralet.data.tokens import tokenise
from loralet.engine.device import choose_device, choose_dtype, place
from loralet.engine.evaluate import logits_of
from loralet.engine.packs import Run, build_pack
from loralet.engine.runs import chosen_run, read_results
from loralet.errors import RunError
from loralet.nn.pack import Logits
from loralet.store.adapters import Artifact, load_artifact
from loralet.store.backbone import Backbone, load_backbone

CHUNK = 20_000
"""Texts tokenised and scored at once, so that memory does not grow with the file."""


@dataclass(frozen=True)
class Prediction:
    """One text's prediction; ``probabilities`` are in the order of the classifier's labels."""

    text: str
    label: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class LoadedClassifier:
    """A backbone, a run's tensors and its labels."""

    artifact: Artifact
    backbone: Backbone
    forward: Logits
    device: torch.device

    def logits(self, texts: pa.ChunkedArray) -> Tensor:
        """Logits ``[m c]`` in the order of the texts; computed in batches of like length."""
        return logits_of(self.forward, tokenise(texts, self.backbone.tokenizer, self.artifact.max_length), 1, self.device)[0]

    def predict(self, texts: Sequence[str]) -> Iterator[Prediction]:
        """Predictions in the order of the texts."""
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            rows = self.logits(pa.chunked_array([pa.array(chunk, pa.string())])).softmax(-1).tolist()
            for text, p in zip(chunk, rows, strict=True):
                yield Prediction(text, self.artifact.labels[p.index(max(p))], tuple(p))


def find_adapter(folder: Path, run: str = "") -> Path:
    """The adapter folder meant by a run folder (the run that validation chose, or the one named) or by an adapter folder itself.

    Raises:
        RunError: no such folder, no finished run in it, or no run of that name.
    """
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder")
    if (folder / "loralet.json").exists():
        if run and run != folder.name:
            raise RunError(f"{folder} is one adapter, not a study; leave --run out")
        return folder
    results = read_results(folder)
    adapters = folder / "adapters"
    if not run:
        run = str(chosen_run(results)["id"])
    if not (adapters / run / "loralet.json").exists():
        known = sorted(path.name for path in adapters.iterdir()) if adapters.is_dir() else []
        raise RunError(f"{folder} has no trained run {run!r}; it has: {', '.join(known) or 'none'}")
    return adapters / run


def load_classifier(adapter: Path, precision: str = "fp32") -> LoadedClassifier:
    """Load an adapter folder onto its backbone.

    Args:
        adapter: the folder.
        precision: arithmetic of the encoder, see :func:`loralet.engine.device.choose_dtype`.

    Raises:
        RunError: the folder cannot be read, or the backbone found is not the one it was trained on.
        CheckpointError, HubError: the backbone cannot be loaded.
    """
    artifact = load_artifact(adapter)
    if artifact.role == "full":
        backbone = load_backbone(str(adapter))
        # The checkpoint beside it holds the trained pooler, so it is a frozen one now.
        artifact = replace(artifact, head="mean" if artifact.head == "mean" else "pooler")
    else:
        backbone = load_backbone(artifact.backbone)
        if backbone.fingerprint != artifact.backbone_fingerprint:
            raise RunError(
                f"{adapter}: trained on another model than the one now at {artifact.backbone} "
                f"(fingerprint {artifact.backbone_fingerprint[:12]}, found {backbone.fingerprint[:12]}); its predictions would be meaningless"
            )
    device = choose_device()
    weights = place(backbone.weights, device, choose_dtype(precision, device))
    run = Run(artifact.id, artifact.backbone, "lora", artifact.rank, artifact.alpha, 0.0, artifact.targets, artifact.scaling, 0.0, 0)
    pack = build_pack([run], weights, backbone.shape, len(artifact.labels), artifact.head, 0.0)
    return LoadedClassifier(replace(artifact, tensors={}), backbone, pack.logits(pack.fill([artifact.tensors])), device)
