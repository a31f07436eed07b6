"""One or more trained runs as one classifier: the mean of their probabilities. torch is imported only if needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from loralet.artifacts.artifact import Artifact
from loralet.artifacts.foreign import is_classifier
from loralet.artifacts.reading import is_peft_folder
from loralet.config import ComputeOptions, ModelOptions
from loralet.data.tokens import TextTokenizer, Tokens
from loralet.errors import ConfigError, RunError
from loralet.inference.adapters import Opened, read_adapter
from loralet.inference.engine import Engine, open_engine
from loralet.inference.graph import Graph, graph_in, open_graph, read_graph
from loralet.inference.hybrid import final_logits
from loralet.inference.predictions import CHUNK, Prediction, predictions
from loralet.tasks.base import Task

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Group:
    """Members computed as one pack: same backbone, kind of head, adapter method and maximum length.

    Args:
        artifacts: the members.
        engine: their forward pass.
        tokenizer: their tokenizer, with the number of tokens to which texts are truncated.
        orders: for each member, the index of each of the ensemble's labels among its own.
    """

    artifacts: tuple[Artifact, ...]
    engine: Engine
    tokenizer: TextTokenizer
    orders: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Ensemble:
    """One or more runs with the same labels; ``task`` has the labels in the order of the first run.

    Threads may use it at the same time.
    """

    artifacts: tuple[Artifact, ...]
    groups: tuple[Group, ...]
    task: Task

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names."""
        return self.task.labels

    @property
    def backends(self) -> tuple[str, ...]:
        """The compute backends, each as one line."""
        return tuple(dict.fromkeys(str(group.engine.info) for group in self.groups))

    def logits(self, texts: Sequence[str] | pa.ChunkedArray) -> np.ndarray:
        """Logits ``[m c]`` whose probabilities are the mean of the members', in the order of the texts.

        They are calibrated (:func:`loralet.inference.hybrid.final_logits`).

        Raises:
            RunError: some logits are not finite, so there is no prediction.
        """
        tokens: dict[int, Tokens] = {}
        members: list[np.ndarray] = []
        for group in self.groups:
            key = id(group.tokenizer)
            if key not in tokens:
                tokens[key] = _encode(group.tokenizer, texts)
            logits = group.engine.logits(tokens[key])
            forms = zip(group.artifacts, logits, group.orders, strict=True)
            members += [final_logits(artifact, own, texts)[:, order] for artifact, own, order in forms]
        found = members[0] if len(members) == 1 else self.task.average(members)
        _require_finite(found, self.artifacts)
        return found

    def predict(self, texts: Sequence[str]) -> Iterator[Prediction]:
        """Predictions in the order of the texts. An empty text has no label and no probabilities.

        Raises:
            RunError: some logits are not finite, so there is no prediction.
        """
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            full = [text for text in chunk if text.strip()]
            probabilities = self.task.probabilities(self.logits(full)) if full else np.zeros((0, len(self.labels)))
            found = predictions(self.task, full, probabilities)
            yield from (next(found) if text.strip() else Prediction(text, None, None) for text in chunk)


def _require_finite(logits: np.ndarray, artifacts: Sequence[Artifact]) -> None:
    """Check the logits of all texts.

    Raises:
        RunError: some are not finite.
    """
    broken = int((~np.isfinite(logits)).any(-1).sum())
    if broken:
        names = ", ".join(artifact.id for artifact in artifacts)
        raise RunError(
            f"{names}: the logits of {broken} of {len(logits)} texts are not finite, so the weights are damaged or the "
            "run diverged; copy the folder again, or train again with a lower learning rate"
        )


def _encode(tokenizer: TextTokenizer, texts: Sequence[str] | pa.ChunkedArray) -> Tokens:
    return tokenizer.encode_column(texts) if hasattr(texts, "chunks") else tokenizer.encode(texts)


def load_ensemble(adapters: Sequence[Path], options: ModelOptions, compute: ComputeOptions) -> Ensemble:
    """Load adapter folders and classifiers of other kinds.

    Errors as for :func:`ensemble_of`, :func:`read_adapter` and :func:`loralet.inference.graph.read_graph`.

    Args:
        adapters: the folders.
        options: label names, in the order of the logits, and the path of the backbone.
        compute: backend, precision and threads.
    """
    return ensemble_of({str(adapter): _read(adapter, options) for adapter in adapters}, compute)


def _read(folder: Path, options: ModelOptions) -> Opened | Graph:
    own = (folder / "loralet.json").exists() or is_peft_folder(folder) or is_classifier(folder)
    return read_graph(folder, options) if not own and graph_in(folder) else read_adapter(folder, options)


def ensemble_of(opened: Mapping[str, Opened | Graph], compute: ComputeOptions) -> Ensemble:
    """Combine runs. Those that share a backbone are computed in one pass.

    Args:
        opened: the runs by name, for messages.
        compute: backend, precision and threads.

    Raises:
        RunError: the labels differ, or a run's tensors do not match its configuration.
        ConfigError: the requested backend is not available.
    """
    _check_labels({name: one.artifact.labels for name, one in opened.items()})
    shared: dict[tuple[object, ...], list[Opened | Graph]] = {}
    for one in opened.values():
        shared.setdefault(_shared(one, len(opened)), []).append(one)
    artifacts = tuple(one.artifact for one in opened.values())
    task, tokenizers, groups = artifacts[0].as_task(), dict[tuple[str, int], TextTokenizer](), list[Group]()
    for members in shared.values():
        first, key = members[0], _reading(members[0], len(opened))
        if key not in tokenizers:
            tokenizers[key] = TextTokenizer(first.tokenizer, first.artifact.max_length)
        orders = tuple(_order(member.artifact.labels, task.labels) for member in members)
        runs = tuple(member.artifact for member in members)
        groups.append(Group(runs, _engine(members, compute), tokenizers[key], orders))
    return Ensemble(artifacts, tuple(groups), task)


def _shared(one: Opened | Graph, members: int) -> tuple[object, ...]:
    """What runs share that are computed as one pack; a graph is computed alone."""
    if isinstance(one, Graph):
        return (one.path,)
    form = (one.artifact.head, one.artifact.pooling, one.artifact.adapter.method)
    return (one.checkpoint.fingerprint, *_reading(one, members), *form)


def _engine(members: Sequence[Opened | Graph], compute: ComputeOptions) -> Engine:
    """The forward pass of members that :func:`_shared` puts together.

    Raises:
        ConfigError: the requested backend cannot compute a graph.
    """
    opened = [member for member in members if isinstance(member, Opened)]
    if opened:
        return open_engine(opened, compute)
    (graph,) = (member for member in members if isinstance(member, Graph))
    if compute.backend != "auto":
        raise ConfigError(f"backend is {compute.backend}, but {graph.path} is an ONNX graph: onnxruntime computes it")
    return open_graph(graph.path, graph)


def _reading(one: Opened | Graph, members: int) -> tuple[str, int]:
    """How a run reads texts: its tokenizer, if there are others to compare it with, and its maximum length."""
    return one.tokenizer.to_str() if members > 1 else "", one.artifact.max_length


def _order(own: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """The index of each wanted label among a member's own. Equal lists may contain a label twice."""
    return np.arange(len(own)) if own == wanted else np.array([own.index(label) for label in wanted])


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
