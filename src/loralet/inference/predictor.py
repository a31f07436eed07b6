"""A trained run with the tensors, encoder and backend in torch, for exports, averages and Python."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from loralet.artifacts.artifact import Artifact
from loralet.artifacts.verify import pack_of
from loralet.backends.base import Backend, Logits
from loralet.backends.choice import choose_backend
from loralet.config import ComputeOptions, ModelOptions
from loralet.config.commands import fp32
from loralet.hub.backbone import Backbone, backbone_of
from loralet.inference.adapters import read_adapter


@dataclass(frozen=True)
class LoadedClassifier:
    """A run on its backbone, in torch's tensors, for exports. :class:`loralet.inference.ensemble.Ensemble` predicts.

    Args:
        artifact: the run.
        backbone: its encoder.
        backend: the compute backend.
        forward: its forward pass; its logits are not divided by the temperature.
    """

    artifact: Artifact
    backbone: Backbone
    backend: Backend
    forward: Logits


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
    return LoadedClassifier(artifact, backbone, chosen.backend, forward)
