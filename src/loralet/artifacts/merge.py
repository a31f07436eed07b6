"""Merging of an adapter into the frozen weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from loralet.adapters.registry import METHODS
from loralet.artifacts.artifact import Artifact, is_head
from loralet.hub.backbone import Backbone
from loralet.models.forward import Weights


@dataclass(frozen=True)
class Merged:
    """A classifier without adapters.

    Args:
        artifact: the merged run.
        backbone: the encoder of the run.
        weights: the encoder's tensors with the adapter merged, and ``pooler.*`` if the head reads a pooler, fp32.
        classifier: ``classifier.weight`` ``[c d]`` and ``classifier.bias`` ``[c]``.
    """

    artifact: Artifact
    backbone: Backbone
    weights: Weights
    classifier: dict[str, Tensor]

    @property
    def mean(self) -> bool:
        """Whether the input of the classifier is the mean over tokens."""
        return self.artifact.head == "mean"


def merge(artifact: Artifact, backbone: Backbone) -> Merged:
    """Merge an adapter, in fp32.

    Args:
        artifact: the run.
        backbone: the run's frozen encoder; for full fine-tuning, the trained encoder.
    """
    table, method = backbone.table, METHODS[artifact.adapter.method]
    wanted = table.tensors() | ({} if artifact.head == "mean" else artifact.pooling.tensors(table.width))
    weights = {name: tensor for name, tensor in backbone.weights.items() if name in wanted}
    for linear in dict.fromkeys(name.rpartition(".")[0] for name in artifact.tensors if not is_head(name)):
        parts = {part: artifact.tensors[f"{linear}.{part}"] for part in method.format.peft_names}
        weights[f"{linear}.weight"] = method.merge(weights[f"{linear}.weight"], parts, artifact.adapter.scale)
    trained = {name: tensor for name, tensor in artifact.tensors.items() if name.startswith("pooler.")}
    classifier = {name: tensor for name, tensor in artifact.tensors.items() if name.startswith("classifier.")}
    return Merged(artifact, backbone, weights | trained, classifier)


def calibrated(merged: Merged) -> Merged:
    """The classifier with its temperature divided into weight and bias.

    For programs that have no temperature: their logits are those of the run, divided by it.
    """
    temperature = merged.artifact.temperature
    return replace(merged, classifier={name: tensor / temperature for name, tensor in merged.classifier.items()})
