"""A trained run, loaded and ready to predict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor

from loralet.adapters.pack import Logits
from loralet.artifacts.folder import ADAPTER_FILES, Artifact, load_artifact
from loralet.artifacts.peft import is_peft_folder, load_peft
from loralet.artifacts.verify import beside, pack_of
from loralet.backends.device import choose_device, choose_dtype, place
from loralet.data.sources import require_no_exchange
from loralet.data.tokens import tokenise
from loralet.errors import CheckpointError, HubError, RunError
from loralet.hub import client as hub
from loralet.hub.backbone import Backbone, load_backbone
from loralet.inference.evaluation import logits_of
from loralet.runs.folder import chosen_run, read_results

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
        return logits_of(
            self.forward, tokenise(texts, self.backbone.tokenizer, self.artifact.max_length), 1, self.device
        )[0]

    def predict(self, texts: Sequence[str]) -> Iterator[Prediction]:
        """Predictions in the order of the texts."""
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            rows = self.logits(pa.chunked_array([pa.array(chunk, pa.string())])).softmax(-1).tolist()
            for text, p in zip(chunk, rows, strict=True):
                yield Prediction(text, self.artifact.labels[p.index(max(p))], tuple(p))


def find_adapter(folder: Path, run: str = "") -> Path:
    """The adapter folder meant by a run folder (the run that validation chose, or the one named), by an adapter folder, or by a hub id.

    Raises:
        RunError: no such folder, no finished run in it, or no run of that name.
        HubError: a name of the form owner/name that is neither a folder nor an adapter on the hub.
    """
    if not folder.is_dir():
        owner, _, name = folder.as_posix().partition("/")
        if not name or Path(owner).exists() or not hub.is_hub_id(folder.as_posix()):
            raise RunError(f"{folder}: no such folder")
        return hub.fetch(folder.as_posix(), _wanted)
    if (folder / "loralet.json").exists() or is_peft_folder(folder):
        if run and run != folder.name:
            raise RunError(f"{folder} is one adapter, not a study; leave --run out")
        return folder
    if (folder / "config.json").exists():
        raise RunError(
            f"{folder}: a model without a trained classifier of loralet's; a base model alone would only guess"
        )
    results = read_results(folder)
    adapters = folder / "adapters"
    if not run:
        run = str(chosen_run(results)["id"])
    if (adapters / run).is_dir() and not (adapters / run / "loralet.json").exists():
        raise RunError(
            f"{adapters / run}: loralet.json is missing, so nobody knows its labels; copy the run folder again, or train anew"
        )
    if not (adapters / run / "loralet.json").exists():
        known = sorted(path.name for path in adapters.iterdir()) if adapters.is_dir() else []
        raise RunError(f"{folder} has no trained run {run!r}; it has: {', '.join(known) or 'none'}")
    return adapters / run


def _wanted(names: Sequence[str]) -> list[str]:
    """The files of an adapter's repository; none of a repository without an adapter."""
    return (
        [name for name in names if name in ADAPTER_FILES]
        if {"loralet.json", "adapter_config.json"} & set(names)
        else []
    )


def open_adapter(
    adapter: Path, force: bool = False, labels: Sequence[str] = (), backbone: str = ""
) -> tuple[Artifact, Backbone]:
    """Read an adapter folder, ours or PEFT's, and the backbone that it belongs to.

    Args:
        adapter: the folder.
        force: take the backbone even if it is not the one that the adapter was trained on.
        labels: names for the labels, in the order of the logits; the adapter's own when empty.
        backbone: where the backbone is; where the adapter says when empty.

    Raises:
        RunError: the folder cannot be read, or the backbone found is not the one it was trained on.
        DataError: one of the adapter's own labels is given as the name of another.
        CheckpointError, HubError: the backbone cannot be loaded.
    """
    if is_peft_folder(adapter):
        with _backbone_named(adapter, backbone):
            return load_peft(adapter, labels, backbone)
    artifact = load_artifact(adapter)
    if labels:
        if len(labels) != len(artifact.labels):
            raise RunError(
                f"{adapter}: {len(labels)} label names are given, the classifier has {len(artifact.labels)} ({', '.join(artifact.labels)})"
            )
        require_no_exchange(str(adapter), artifact.labels, labels)
        artifact = replace(artifact, labels=tuple(labels), label_type="str")
    if artifact.role == "full":
        return beside(adapter, artifact)
    with _backbone_named(adapter, backbone):
        found = load_backbone(backbone or artifact.backbone)
    if found.fingerprint != artifact.backbone_fingerprint and not force:
        raise RunError(
            f"{adapter}: trained on another model than the one now at {found.name} "
            f"(fingerprint {artifact.backbone_fingerprint[:12]}, found {found.fingerprint[:12]}); its predictions would be meaningless. "
            "--any-backbone (force=True in Python) loads it all the same"
        )
    return artifact, found


@contextmanager
def _backbone_named(adapter: Path, given: str) -> Iterator[None]:
    """Where the adapter's own word for its backbone leads nowhere, the error says how to give another."""
    try:
        yield
    except (CheckpointError, HubError) as error:
        if given:
            raise
        raise type(error)(
            f"{adapter}: the backbone it names cannot be loaded here ({error}); "
            "if you have it elsewhere, name it with --backbone (backbone=... in Python)"
        ) from error


def load_classifier(
    adapter: Path, precision: str = "fp32", force: bool = False, labels: Sequence[str] = (), backbone: str = ""
) -> LoadedClassifier:
    """Load an adapter folder, ours or PEFT's, onto its backbone; for arguments and errors see :func:`open_adapter`.

    ``precision`` is the encoder's arithmetic, see :func:`loralet.backends.device.choose_dtype`.
    """
    return ready(*open_adapter(adapter, force, labels, backbone), precision)


def ready(artifact: Artifact, backbone: Backbone, precision: str = "fp32") -> LoadedClassifier:
    """The classifier that an artifact makes of its backbone."""
    device = choose_device()
    pack = pack_of([artifact], place(backbone.weights, device, choose_dtype(precision, device)), backbone.shape)
    return LoadedClassifier(artifact, backbone, pack.logits(pack.fill([artifact.tensors])), device)
