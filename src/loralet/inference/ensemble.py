"""Several trained runs as one classifier: the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from loralet.adapters.pack import Logits
from loralet.artifacts.folder import Artifact
from loralet.artifacts.verify import pack_of
from loralet.backends.device import choose_device, choose_dtype, place
from loralet.data.tokens import Tokens, tokenise
from loralet.errors import RunError
from loralet.hub.backbone import Backbone
from loralet.inference.evaluation import logits_of
from loralet.inference.predictor import CHUNK, Prediction, find_adapter, open_adapter


@dataclass(frozen=True)
class Side:
    """Members that are computed as one pack: one backbone, one kind of head, one cut of the texts.

    Args:
        forward: their forward pass.
        backbone: what they share.
        max_length: tokens that they read of a text.
        orders: for each member, where each of the ensemble's labels stands among its own.
    """

    forward: Logits
    backbone: Backbone
    max_length: int
    orders: tuple[Tensor, ...]


@dataclass(frozen=True)
class Ensemble:
    """One or more runs that know the same labels; ``labels`` are in the first one's order."""

    artifacts: tuple[Artifact, ...]
    sides: tuple[Side, ...]
    device: torch.device

    @property
    def labels(self) -> tuple[str, ...]:
        return self.artifacts[0].labels

    def log_probabilities(self, texts: pa.ChunkedArray) -> Tensor:
        """Logarithms ``[m c]`` of the mean probabilities, in the order of the texts."""
        tokens: dict[tuple[str, int], Tokens] = {}
        members: list[Tensor] = []
        for side in self.sides:
            key = (side.backbone.tokenizer.to_str(), side.max_length)
            if key not in tokens:
                tokens[key] = tokenise(texts, side.backbone.tokenizer, side.max_length)
            logits = logits_of(side.forward, tokens[key], len(side.orders), self.device)
            members += [own[:, order].log_softmax(-1) for own, order in zip(logits, side.orders, strict=True)]
        return torch.stack(members).logsumexp(0) - log(len(members))

    def predict(self, texts: Sequence[str]) -> Iterator[Prediction]:
        """Predictions in the order of the texts."""
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            rows = self.log_probabilities(pa.chunked_array([pa.array(chunk, pa.string())])).exp().tolist()
            for text, p in zip(chunk, rows, strict=True):
                yield Prediction(text, self.labels[p.index(max(p))], tuple(p))


def find_adapters(folder: Path, run: str = "", runs: Sequence[str] = (), also: Sequence[str] = ()) -> list[Path]:
    """The adapter folders of an ensemble.

    Args:
        folder: a run folder, an adapter folder or a hub id.
        run: id of a run in it; the one that validation chose when empty.
        runs: ids of several runs in it, instead of ``run``.
        also: further folders or hub ids, of each the run that validation chose.

    Raises:
        RunError: one is not there, or is named twice.
        HubError: see :func:`loralet.inference.predictor.find_adapter`.
    """
    found = [find_adapter(folder, name) for name in runs or (run,)] + [find_adapter(Path(other)) for other in also]
    resolved = [path.resolve() for path in found]
    twice = sorted({str(path) for path, place in zip(found, resolved, strict=True) if resolved.count(place) > 1})
    if twice:
        raise RunError(f"{', '.join(twice)}: named twice; a run counts once")
    return found


def load_ensemble(
    adapters: Sequence[Path],
    precision: str = "fp32",
    force: bool = False,
    labels: Sequence[str] = (),
    backbone: str = "",
) -> Ensemble:
    """Load adapter folders, those that share a backbone onto one copy of it.

    ``precision`` is the encoder's arithmetic, see :func:`loralet.backends.device.choose_dtype`; for the others see
    :func:`loralet.inference.predictor.open_adapter`.

    Raises:
        RunError: their labels are not the same, or one cannot be read.
        CheckpointError, HubError: a backbone cannot be loaded.
    """
    opened = {str(adapter): open_adapter(adapter, force, labels, backbone) for adapter in adapters}
    _check_labels({name: artifact.labels for name, (artifact, _) in opened.items()})
    sides: dict[tuple[str, str, str, str, int], list[tuple[Artifact, Backbone]]] = {}
    for artifact, found in opened.values():
        key = (
            found.fingerprint,
            found.tokenizer.to_str(),
            artifact.head,
            artifact.head_activation,
            artifact.max_length,
        )
        sides.setdefault(key, []).append((artifact, found))
    artifacts = tuple(artifact for artifact, _ in opened.values())
    device = choose_device()
    made = tuple(
        _side([a for a, _ in members], members[0][1], artifacts[0].labels, precision, device)
        for members in sides.values()
    )
    return Ensemble(artifacts, made, device)


def _side(
    artifacts: Sequence[Artifact], backbone: Backbone, labels: tuple[str, ...], precision: str, device: torch.device
) -> Side:
    pack = pack_of(artifacts, place(backbone.weights, device, choose_dtype(precision, device)), backbone.shape)
    forward = pack.logits(pack.fill([artifact.tensors for artifact in artifacts]))
    orders = tuple(
        torch.arange(len(labels)) if a.labels == labels else torch.tensor([a.labels.index(label) for label in labels])
        for a in artifacts
    )
    return Side(forward, backbone, artifacts[0].max_length, orders)


def _check_labels(labels: Mapping[str, Sequence[str]]) -> None:
    """Members are asked for the same labels, in whatever order.

    Raises:
        RunError: one has others; every one that has is listed.
    """
    (first, wanted), *others = labels.items()
    unlike = [(name, own) for name, own in others if set(own) != set(wanted)]
    if unlike:
        lines = (f"  - {name}: {', '.join(own)}" for name, own in unlike)
        advice = "give all the same with --label-names, in the order of the logits, or leave the odd ones out"
        raise RunError(
            "\n".join([f"these runs do not know the same labels; {first}: {', '.join(wanted)}", *lines, advice])
        )
