"""A trained run, loaded and ready to predict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
from torch import Tensor

from loralet.artifacts.artifact import Artifact
from loralet.artifacts.folder import ADAPTER_FILES, load_artifact
from loralet.artifacts.peft import is_peft_folder, load_peft
from loralet.artifacts.verify import load_full, pack_of
from loralet.backends.base import Backend, BackendInfo, Logits
from loralet.backends.choice import choose_backend
from loralet.config import ComputeOptions, ModelOptions
from loralet.config.commands import fp32
from loralet.data.tokens import tokenise
from loralet.errors import CheckpointError, HubError, RunError
from loralet.hub import client
from loralet.hub.backbone import Backbone, load_backbone
from loralet.inference.evaluation import logits_of
from loralet.runs.results import read_results
from loralet.runs.selection import chosen_run
from loralet.tasks.base import Task
from loralet.tasks.single_label import require_no_exchange

CHUNK = 20_000
"""Texts tokenised and scored at once, which bounds the memory for large files."""


@dataclass(frozen=True)
class Prediction:
    """One text's prediction; ``probabilities`` are in the order of the classifier's labels."""

    text: str
    label: str
    probabilities: tuple[float, ...]


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

    def logits(self, texts: pa.ChunkedArray) -> Tensor:
        """Logits ``[m c]`` in the order of the texts, computed in batches of similar length."""
        tokens = tokenise(texts, self.backbone.tokenizer, self.artifact.max_length)
        return logits_of(self.backend, self.forward, tokens, 1)[0]

    def predict(self, texts: Sequence[str]) -> Iterator[Prediction]:
        """Predictions in the order of the texts."""
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            logits = self.logits(pa.chunked_array([pa.array(chunk, pa.string())]))
            yield from predictions(self.task, chunk, self.task.probabilities(logits))


def predictions(task: Task, texts: Sequence[str], probabilities: Tensor) -> Iterator[Prediction]:
    """Predictions from probabilities ``[m c]``."""
    for text, p in zip(texts, probabilities.tolist(), strict=True):
        yield Prediction(text, task.decode(p), tuple(p))


def find_adapter(folder: Path, run: str = "") -> Path:
    """Find an adapter folder.

    Args:
        folder: a run folder (the run chosen on validation, or ``run``), an adapter folder, or a hub id.
        run: id of a run of a study.

    Raises:
        RunError: the folder does not exist, or has no finished run or no run of that name.
        HubError: a name of the form owner/name that is neither a folder nor an adapter on the hub.
    """
    if not folder.is_dir():
        owner, _, name = folder.as_posix().partition("/")
        if not name or Path(owner).exists() or not client.is_hub_id(folder.as_posix()):
            raise RunError(f"{folder}: no such folder")
        return client.fetch(folder.as_posix(), _wanted)
    if (folder / "loralet.json").exists() or is_peft_folder(folder):
        if run and run != folder.name:
            raise RunError(f"{folder} is one adapter, not a study; remove --run")
        return folder
    if (folder / "config.json").exists():
        raise RunError(f"{folder}: no trained classifier; a base model alone would only guess")
    results = read_results(folder)
    adapters = folder / "adapters"
    run = run or chosen_run(results).id
    if (adapters / run).is_dir() and not (adapters / run / "loralet.json").exists():
        raise RunError(
            f"{adapters / run}: loralet.json is missing, so the labels are unknown; "
            "copy the run folder again, or train again"
        )
    if not (adapters / run / "loralet.json").exists():
        known = sorted(path.name for path in adapters.iterdir()) if adapters.is_dir() else []
        raise RunError(f"{folder} has no trained run {run!r}; it has: {', '.join(known) or 'none'}")
    return adapters / run


def _wanted(names: Sequence[str]) -> list[str]:
    """The files to fetch from an adapter's repository; empty if the repository has no adapter."""
    found = {"loralet.json", "adapter_config.json"} & set(names)
    return [name for name in names if name in ADAPTER_FILES] if found else []


def open_adapter(adapter: Path, options: ModelOptions = ModelOptions()) -> tuple[Artifact, Backbone]:
    """Read an adapter folder of loralet or PEFT, and its backbone.

    Args:
        adapter: the folder.
        options: label names, in the order of the logits, and the path of the backbone.

    Raises:
        RunError: the folder cannot be read, or it was trained on another backbone.
        DataError: one of the adapter's own labels is given as the name of another label.
        CheckpointError, HubError: the backbone cannot be loaded.
    """
    labels, source = options.label_names, options.source
    if is_peft_folder(adapter):
        with _backbone_named(adapter, source.backbone):
            return load_peft(adapter, labels, source.backbone)
    artifact = load_artifact(adapter)
    if labels:
        if len(labels) != len(artifact.labels):
            raise RunError(
                f"{adapter}: {len(labels)} label names given, but the classifier has {len(artifact.labels)} labels "
                f"({', '.join(artifact.labels)})"
            )
        require_no_exchange(str(adapter), artifact.labels, labels)
        artifact = replace(artifact, labels=tuple(labels), label_type="str")
    if artifact.role == "full":
        return load_full(adapter, artifact)
    with _backbone_named(adapter, source.backbone):
        found = load_backbone(source.backbone or artifact.backbone)
    if found.fingerprint != artifact.backbone_fingerprint and not source.any_backbone:
        raise RunError(
            f"{adapter}: trained on another model than {found.name} "
            f"(fingerprint {artifact.backbone_fingerprint[:12]}, found {found.fingerprint[:12]}), so its predictions "
            "would be meaningless. --any-backbone (force=True in Python) loads it anyway"
        )
    return artifact, found


@contextmanager
def _backbone_named(adapter: Path, given: str) -> Iterator[None]:
    """If the adapter's own backbone cannot be loaded, extend the error with how to set another path."""
    try:
        yield
    except (CheckpointError, HubError) as error:
        if given:
            raise
        raise type(error)(
            f"{adapter}: the backbone cannot be loaded ({error}); "
            "if it is at another path, set --backbone (backbone=... in Python)"
        ) from error


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
