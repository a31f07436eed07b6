"""A trained run with the tensors, encoder and backend in torch, for exports and Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from loralet.artifacts.artifact import Artifact
from loralet.artifacts.verify import pack_of
from loralet.backends.base import Backend, Logits
from loralet.backends.choice import choose_backend
from loralet.backends.info import BackendInfo
from loralet.config import ComputeOptions, ModelOptions
from loralet.config.commands import fp32
from loralet.data.tokens import tokenise
from loralet.hub.backbone import Backbone, backbone_of
from loralet.inference.adapters import read_adapter
from loralet.inference.evaluation import logits_of
from loralet.inference.predictions import CHUNK, Prediction, predictions
from loralet.tasks.base import Task


@dataclass(frozen=True)
class LoadedClassifier:
    """A run on its backbone.

    Args:
        artifact: the run.
        backbone: its encoder.
        task: its task and labels.
        backend, info: the compute backend and its description.
        forward: its forward pass.
    """

    artifact: Artifact
    backbone: Backbone
    task: Task
    backend: Backend
    info: BackendInfo
    forward: Logits

    def logits(self, texts: pa.ChunkedArray) -> np.ndarray:
        """Logits ``[m c]`` in the order of the texts, computed in batches of similar length."""
        tokens = tokenise(texts, self.backbone.tokenizer, self.artifact.max_length)
        logits: np.ndarray = logits_of(self.backend, self.forward, tokens, 1)[0]
        return logits

    def predict(self, texts: Sequence[str]) -> Iterator[Prediction]:
        """Predictions in the order of the texts."""
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            logits = self.logits(pa.chunked_array([pa.array(chunk, pa.string())]))
            yield from predictions(self.task, chunk, self.task.probabilities(logits))


def open_adapter(adapter: Path, options: ModelOptions = ModelOptions()) -> tuple[Artifact, Backbone]:
    """Read an adapter folder and its backbone; see :func:`loralet.inference.adapters.read_adapter`."""
    opened = read_adapter(adapter, options)
    tensors = {name: torch.tensor(array) for name, array in opened.arrays.items()}
    return replace(opened.artifact, tensors=tensors), backbone_of(opened.checkpoint)


def load_classifier(
    adapter: Path, options: ModelOptions = ModelOptions(), compute: ComputeOptions | None = None
) -> LoadedClassifier:
    """Load an adapter folder of loralet or PEFT with its backbone; raises as :func:`open_adapter` and :func:`ready`."""
    return ready(*open_adapter(adapter, options), compute)


def ready(artifact: Artifact, backbone: Backbone, compute: ComputeOptions | None = None) -> LoadedClassifier:
    """Combine an artifact and its backbone into a classifier.

    Args:
        artifact: the run.
        backbone: its encoder.
        compute: backend, precision and threads; if None, fp32 on the fastest backend.

    Raises:
        ConfigError: the requested backend is not available.
        RunError: the artifact's tensors do not match its configuration.
    """
    compute = compute or fp32()
    chosen = choose_backend(backbone.table, compute.precision, compute.backend, [artifact.adapter.method])
    pack, parameters = pack_of([artifact], backbone.table)
    encoder = chosen.backend.load(backbone.weights, backbone.table, chosen.dtype)
    forward = encoder.program(pack).logits(parameters.to(chosen.backend.device))
    return LoadedClassifier(artifact, backbone, artifact.as_task(), chosen.backend, chosen.info, forward)
