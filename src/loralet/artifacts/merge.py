"""A trained run as one plain model: its adapters multiplied out and added to the frozen weights."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from loralet.adapters.lora import scale_of
from loralet.artifacts.folder import HEAD_SLOTS, Artifact
from loralet.hub.backbone import Backbone
from loralet.models.encoder import Weights


@dataclass(frozen=True)
class Merged:
    """A classifier without adapters.

    Args:
        artifact: what it was made from.
        backbone: the encoder it was made from; sizes, names and tokenizer are its own.
        weights: the encoder's tensors with the adapters added, and ``pooler.*`` where the head reads one, fp32.
        classifier: ``classifier.weight`` ``[c d]`` and ``classifier.bias`` ``[c]``.
    """

    artifact: Artifact
    backbone: Backbone
    weights: Weights
    classifier: dict[str, Tensor]

    @property
    def mean(self) -> bool:
        """Whether the classifier reads the mean over tokens, not the pooled first token."""
        return self.artifact.head == "mean"


def merge(artifact: Artifact, backbone: Backbone) -> Merged:
    """Add ``scale * B A`` to each adapted weight (Hu et al. 2021, section 4.1), in fp32."""
    weights = {
        name: tensor
        for name, tensor in backbone.weights.items()
        if not (name.startswith("pooler.") and artifact.head == "mean")
    }
    scale = scale_of(artifact.rank, artifact.alpha, artifact.scaling)
    for name, a in artifact.tensors.items():
        linear, _, matrix = name.rpartition(".")
        if matrix == "A":
            weights[f"{linear}.weight"] = weights[f"{linear}.weight"] + (artifact.tensors[f"{linear}.B"] * scale) @ a
    trained = {name: tensor for name, tensor in artifact.tensors.items() if name.startswith("pooler.")}
    classifier = {name: artifact.tensors[name] for name in HEAD_SLOTS if name.startswith("classifier.")}
    return Merged(artifact, backbone, weights | trained, classifier)
