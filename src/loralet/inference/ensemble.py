"""Several trained runs as one classifier: the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from loralet.artifacts.artifact import Artifact
from loralet.artifacts.verify import pack_of
from loralet.backends.base import Backend, BackendInfo, Logits
from loralet.backends.choice import choose_backend
from loralet.config import ComputeOptions, ModelOptions, SeveralRuns
from loralet.data.tokens import Tokens, tokenise
from loralet.errors import RunError
from loralet.hub.backbone import Backbone
from loralet.inference.evaluation import logits_of
from loralet.inference.predictor import CHUNK, Prediction, find_adapter, open_adapter, predictions
from loralet.tasks.base import Task


@dataclass(frozen=True)
class Group:
    """Members computed as one pack: same backbone, kind of head, adapter method and maximum length.

    Args:
        backend, info: the compute backend and its description.
        forward: their forward pass.
        backbone: the shared backbone.
        max_length: number of tokens to which texts are truncated.
        orders: for each member, the index of each of the ensemble's labels among its own.
    """

    backend: Backend
    info: BackendInfo
    forward: Logits
    backbone: Backbone
    max_length: int
    orders: tuple[Tensor, ...]


@dataclass(frozen=True)
class Ensemble:
    """One or more runs with the same labels; ``task`` has the labels in the order of the first run."""

    artifacts: tuple[Artifact, ...]
    groups: tuple[Group, ...]
    task: Task

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names."""
        return self.task.labels

    def logits(self, texts: pa.ChunkedArray) -> Tensor:
        """Logits ``[m c]`` whose probabilities are the mean of the members', in the order of the texts."""
        tokens: dict[tuple[str, int], Tokens] = {}
        members: list[Tensor] = []
        for group in self.groups:
            key = (group.backbone.tokenizer.to_str(), group.max_length)
            if key not in tokens:
                tokens[key] = tokenise(texts, group.backbone.tokenizer, group.max_length)
            logits = logits_of(group.backend, group.forward, tokens[key], len(group.orders))
            members += [own[:, order] for own, order in zip(logits, group.orders, strict=True)]
        return self.task.average(members)

    def predict(self, texts: Sequence[str]) -> Iterator[Prediction]:
        """Predictions in the order of the texts."""
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            logits = self.logits(pa.chunked_array([pa.array(chunk, pa.string())]))
            yield from predictions(self.task, chunk, self.task.probabilities(logits))


def find_adapters(runs: SeveralRuns) -> list[Path]:
    """The adapter folders of an ensemble.

    Raises:
        RunError: an adapter does not exist or is given twice.
        HubError: see :func:`loralet.inference.predictor.find_adapter`.
    """
    folder = Path(runs.one.folder)
    found = [find_adapter(folder, name) for name in runs.runs or (runs.one.run,)]
    found += [find_adapter(Path(other)) for other in runs.also]
    resolved = [path.resolve() for path in found]
    twice = sorted({str(path) for path, place in zip(found, resolved, strict=True) if resolved.count(place) > 1})
    if twice:
        raise RunError(f"{', '.join(twice)}: given twice; give each run once")
    return found


def load_ensemble(adapters: Sequence[Path], options: ModelOptions, compute: ComputeOptions) -> Ensemble:
    """Load adapter folders. Adapters that share a backbone are computed in one pass.

    Args:
        adapters: the folders.
        options: how to load them, see :func:`loralet.inference.predictor.open_adapter`.
        compute: backend, precision and threads.

    Raises:
        RunError: the labels differ, or an adapter cannot be read.
        ConfigError: the requested backend is not available.
        CheckpointError, HubError: a backbone cannot be loaded.
    """
    opened = {str(adapter): open_adapter(adapter, options) for adapter in adapters}
    _check_labels({name: artifact.labels for name, (artifact, _) in opened.items()})
    shared: dict[tuple[object, ...], list[tuple[Artifact, Backbone]]] = {}
    for artifact, found in opened.values():
        form = (artifact.head, artifact.pooling, artifact.max_length, artifact.adapter.method)
        shared.setdefault((found.fingerprint, found.tokenizer.to_str(), *form), []).append((artifact, found))
    artifacts = tuple(artifact for artifact, _ in opened.values())
    task = artifacts[0].as_task()
    groups = tuple(_group([a for a, _ in members], members[0][1], task, compute) for members in shared.values())
    return Ensemble(artifacts, groups, task)


def _group(artifacts: Sequence[Artifact], backbone: Backbone, task: Task, compute: ComputeOptions) -> Group:
    first = artifacts[0]
    chosen = choose_backend(backbone.table, compute.precision, compute.backend, [first.adapter.method])
    pack, parameters = pack_of(artifacts, backbone.table)
    encoder = chosen.backend.load(backbone.weights, backbone.table, chosen.dtype)
    forward = encoder.program(pack).logits(parameters.to(chosen.backend.device))
    orders = tuple(_order(artifact.labels, task.labels) for artifact in artifacts)
    return Group(chosen.backend, chosen.info, forward, backbone, first.max_length, orders)


def _order(own: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """The index of each wanted label among a member's own. Equal lists may contain a label twice."""
    return torch.arange(len(own)) if own == wanted else torch.tensor([own.index(label) for label in wanted])


def _check_labels(labels: Mapping[str, Sequence[str]]) -> None:
    """Check that all members have the same labels, in any order.

    Raises:
        RunError: some members have other labels; the message lists all of them.
    """
    (first, wanted), *others = labels.items()
    different = [(name, own) for name, own in others if set(own) != set(wanted)]
    if different:
        lines = (f"  - {name}: {', '.join(own)}" for name, own in different)
        advice = "set the same names for all with --label-names, in the order of the logits, or remove these runs"
        title = f"the labels of these runs differ; {first}: {', '.join(wanted)}"
        raise RunError("\n".join([title, *lines, advice]))
