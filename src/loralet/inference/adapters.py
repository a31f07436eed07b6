"""Find and read trained runs, without torch, except for adapters of PEFT."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from loralet.artifacts.artifact import Artifact, read_description
from loralet.artifacts.checking import require_fitting
from loralet.artifacts.foreign import is_classifier, names_classifier, read_classifier, without_classifier
from loralet.artifacts.layout import settled
from loralet.artifacts.reading import (
    ADAPTER_FILES,
    CONFIG,
    is_peft_folder,
    peft_subfolders,
    read_artifact,
    require_own_checkpoint,
)
from loralet.config import ModelOptions, SeveralRuns
from loralet.errors import CheckpointError, ConfigError, HubError, RunError
from loralet.hub import client
from loralet.hub.checkpoint import Checkpoint, checkpoint_files, read_checkpoint
from loralet.hub.names import parse_name, pinned
from loralet.inference.graph import graph_in
from loralet.records import read_json, require_files
from loralet.runs.results import NAME as RESULTS
from loralet.runs.results import Results, read_results, unfinished_text
from loralet.runs.selection import chosen_run
from loralet.tasks.single_label import require_no_exchange

if TYPE_CHECKING:
    from loralet.hub.backbone import Backbone

LOGGER = logging.getLogger("loralet")


@dataclass(frozen=True)
class Opened:
    """A trained run and its encoder, as read from their folders.

    Args:
        artifact: the run, without tensors.
        arrays: its tensors by slot name.
        checkpoint: the encoder.
    """

    artifact: Artifact
    arrays: Mapping[str, np.ndarray]
    checkpoint: Checkpoint

    @property
    def tokenizer(self) -> Tokenizer:
        """The encoder's tokenizer."""
        return self.checkpoint.tokenizer


def find_adapter(folder: Path, run: str = "") -> Path:
    """Find an adapter folder.

    Args:
        folder: a run folder (the run chosen on validation, or ``run``), an adapter folder, a folder with a classifier
            of transformers or an ONNX graph, or a hub id, which may have a revision and a folder:
            ``owner/name@revision/folder``.
        run: id of a run of a study.

    Raises:
        RunError: the folder does not exist, or has no finished run or no run of that name.
        HubError: a name of the form owner/name that is neither a folder nor an adapter on the hub.
    """
    if not folder.is_dir():
        return _downloaded(folder)
    require_files(folder)
    is_adapter = (folder / "loralet.json").exists() or is_peft_folder(folder)
    is_study = (folder / RESULTS).exists()
    if is_adapter or (not is_study and (is_classifier(folder) or graph_in(folder))):
        if run and run != folder.name:
            raise RunError(f"{folder} is one {'adapter' if is_adapter else 'classifier'}, not a study; remove --run")
        return folder
    if not is_study and (inner := peft_subfolders(folder)):
        return _named(folder, inner, run)
    if (folder / "config.json").exists() or (folder / "labels.json").exists():
        raise RunError(without_classifier(folder))
    results = read_results(folder)
    if not results.finished:
        LOGGER.warning(unfinished_text(folder, results))
    return _trained(folder, results, run or chosen_run(results).id)


def _downloaded(folder: Path) -> Path:
    """An adapter or a classifier from a hub; its name may have a revision, and a folder of the repository.

    Raises:
        RunError: the name is not that of a repository with an owner, or it is a base model.
        HubError: see :func:`loralet.hub.client.fetch`; also a repository with adapters in folders only.
    """
    name = folder.as_posix()
    found = parse_name(name)
    if found is None or "/" not in found.repo or Path(name.partition("/")[0]).exists():
        raise RunError(f"{folder}: no such folder")

    def choose(names: Sequence[str]) -> list[str]:
        inner = sorted(one.removesuffix(f"/{CONFIG}") for one in names if one.endswith(f"/{CONFIG}"))
        if inner and not found.folder and not {"loralet.json", CONFIG} & set(names):
            raise HubError(
                f"{found} has adapters in folders ({', '.join(inner)}); give one of them: {found}/{inner[0]}"
            )
        return _wanted(names)

    path = client.fetch(name, choose)
    if {file.name for file in path.iterdir()} & {"loralet.json", CONFIG, "labels.json"}:
        return path
    if not names_classifier(path):
        raise RunError(f"{name}: no trained classifier; a base model alone would only guess")
    return client.fetch(name, checkpoint_files)


def _trained(folder: Path, results: Results, run: str) -> Path:
    """The adapter folder of a run.

    Raises:
        RunError: there is none, or it is damaged.
    """
    adapters = folder / "adapters"
    if run in (".", "..") or Path(run).name != run:
        raise RunError(f"{folder}: {run!r} is not the name of a run")
    if (adapters / run).is_dir() and not (adapters / run / "loralet.json").exists():
        raise RunError(
            f"{adapters / run}: loralet.json is missing, so the labels are unknown; "
            "copy the run folder again, or train again"
        )
    if not (adapters / run / "loralet.json").exists():
        known = sorted(path.name for path in adapters.iterdir()) if adapters.is_dir() else []
        if run in results.pending:
            raise RunError(f"{folder}: {run} is not trained yet; {unfinished_text(folder, results)}")
        raise RunError(f"{folder} has no trained run {run!r}; it has: {', '.join(known) or 'none'}")
    require_files(adapters / run)
    return adapters / run


def _named(folder: Path, adapters: Sequence[Path], run: str) -> Path:
    """One of the PEFT adapters in a folder: the only one, or the one with the given name.

    Raises:
        RunError: there are several, or none of that name.
    """
    found = [path for path in adapters if not run or path.name == run]
    if len(found) != 1:
        names = ", ".join(path.name for path in adapters)
        raise RunError(f"{folder} has the PEFT adapters {names}; set one of them with --run")
    return found[0]


def _wanted(names: Sequence[str]) -> list[str]:
    """The files to fetch from a repository: of an adapter, of an ONNX export, or the config of a checkpoint."""
    if {"loralet.json", "adapter_config.json"} & set(names):
        return [name for name in names if name in ADAPTER_FILES]
    graph = ["labels.json", "model.onnx", "tokenizer.json"]
    return graph if set(graph) <= set(names) else [name for name in names if name == "config.json"]


def find_adapters(runs: SeveralRuns) -> list[Path]:
    """The adapter folders of an ensemble.

    Raises:
        RunError: an adapter does not exist or is given twice.
        HubError: see :func:`find_adapter`.
    """
    folder = Path(runs.one.folder)
    found = [find_adapter(folder, name) for name in runs.runs or (runs.one.run,)]
    found += [find_adapter(Path(other)) for other in runs.also]
    require_different(found)
    return found


def require_different(folders: Sequence[Path]) -> None:
    """Check that no folder is given twice, also under several names.

    Raises:
        RunError: one is.
    """
    resolved = [path.resolve() for path in folders]
    twice = sorted({str(path) for path, place in zip(folders, resolved, strict=True) if resolved.count(place) > 1})
    if twice:
        raise RunError(f"{', '.join(twice)}: given twice; give each run once")


def trained_columns(adapters: Sequence[Path]) -> tuple[tuple[str, ...], str]:
    """The text columns and the label column that all of these runs were trained on; empty where they differ or are not
    known.

    Args:
        adapters: adapter folders.
    """
    found = {_columns_of(adapter) for adapter in adapters}
    return found.pop() if len(found) == 1 else ((), "")


def _columns_of(adapter: Path) -> tuple[tuple[str, ...], str]:
    """The columns in the description of an adapter; of an older one, those in the results of its run folder."""
    try:
        made = read_description(read_json(adapter / "loralet.json")).provenance
        if made.text_columns or not (adapter.parent.parent / RESULTS).exists():
            return made.text_columns, made.label_column
        data = read_results(adapter.parent.parent).data
        return data.text_columns, data.label_column
    except (OSError, ValueError, RunError):
        return (), ""  # reading the run reports what is wrong with it


def read_adapter(adapter: Path, options: ModelOptions = ModelOptions()) -> Opened:
    """Read an adapter folder of loralet or PEFT and its backbone, or a classifier of transformers.

    Args:
        adapter: the folder.
        options: label names, in the order of the logits, and the path of the backbone.

    Raises:
        RunError: the folder cannot be read, or it was trained on another backbone.
        DataError: one of the adapter's own labels is given as the name of another label.
        CheckpointError, HubError: the backbone cannot be loaded.
    """
    require_files(adapter)
    labels, source = options.label_names, options.source
    if is_peft_folder(adapter):
        with _backbone_named(adapter, source.backbone):
            return _read_peft(adapter, labels, source.backbone)
    if not (adapter / "loralet.json").exists() and (is_classifier(adapter) or graph_in(adapter)):
        return _read_checkpoint(adapter, options)
    artifact, arrays = read_artifact(adapter)
    if labels:
        artifact = _renamed(adapter, artifact, labels)
    if artifact.role == "full":
        head = {name: array for name, array in arrays.items() if name.startswith("classifier")}
        own = read_checkpoint(str(adapter))
        require_own_checkpoint(adapter, own.fingerprint)
        artifact = settled(artifact)
        require_fitting(adapter, artifact, head, own)
        return Opened(artifact, head, own)
    with _backbone_named(adapter, source.backbone):
        found = read_checkpoint(source.backbone or artifact.backbone)
        if found.fingerprint != artifact.backbone_fingerprint and not source.backbone:
            found = _of_training(artifact) or found
    if found.fingerprint != artifact.backbone_fingerprint and not source.any_backbone:
        raise RunError(
            f"{adapter}: trained on another model than {found.name} "
            f"(fingerprint {artifact.backbone_fingerprint[:12]}, found {found.fingerprint[:12]}), so its predictions "
            "would be meaningless. --any-backbone (force=True in Python) loads it anyway"
        )
    require_fitting(adapter, artifact, arrays, found)
    return Opened(_limited(artifact, found), arrays, found)


def _of_training(artifact: Artifact) -> Checkpoint | None:
    """The backbone at the recorded commit of the hub, if it has another commit now; None if it cannot be loaded."""
    name = pinned(artifact.backbone, artifact.provenance.backbone_commit)
    if name == artifact.backbone:
        return None
    try:
        found = read_checkpoint(name)
    except (CheckpointError, HubError):
        return None
    if found.fingerprint != artifact.backbone_fingerprint:
        return None
    LOGGER.warning("%s has changed on the hub; using %s, on which %s was trained", artifact.backbone, name, artifact.id)
    return found


def _limited(artifact: Artifact, backbone: Checkpoint) -> Artifact:
    """The artifact with texts truncated to the positions of another backbone, as transformers does."""
    longest = backbone.table.longest
    if artifact.max_length <= longest:
        return artifact
    message = "texts are truncated to %d tokens instead of %d, as %s has no more positions"
    LOGGER.warning(message, longest, artifact.max_length, backbone.name)
    return replace(artifact, max_length=longest)


def _renamed(adapter: Path, artifact: Artifact, labels: Sequence[str]) -> Artifact:
    """The artifact with other label names.

    Raises:
        RunError: another number of names than labels.
        DataError: see :func:`read_adapter`.
    """
    if len(labels) != len(artifact.labels):
        raise RunError(
            f"{adapter}: {len(labels)} label names given, but the classifier has {len(artifact.labels)} labels "
            f"({', '.join(artifact.labels)})"
        )
    require_no_exchange(str(adapter), artifact.labels, labels)
    values = artifact.label_values or artifact.labels
    return replace(artifact, labels=tuple(labels), label_type="str", label_values=values)


def _read_checkpoint(folder: Path, options: ModelOptions) -> Opened:
    """Read a classifier of transformers.

    Raises:
        RunError: see :func:`loralet.artifacts.foreign.read_classifier`; or the folder has only an ONNX graph.
        ConfigError: a backbone is given.
    """
    if not is_classifier(folder):
        raise RunError(
            f"{folder} has an ONNX graph and no weights; `loralet predict` and `loralet evaluate` compute it, with "
            "onnxruntime. For this, give the run, or its export --to hf or --to safetensors-bundle"
        )
    if options.source.backbone:
        raise ConfigError(f"backbone is given, but {folder} is a whole classifier, which contains its backbone")
    return Opened(*read_classifier(folder, options.label_names))


def _read_peft(adapter: Path, labels: Sequence[str], backbone: str) -> Opened:
    from loralet.artifacts.peft import load_peft  # imports torch

    artifact, found = load_peft(adapter, labels, backbone)
    return opened_of(artifact, found)


def opened_of(artifact: Artifact, backbone: Backbone) -> Opened:
    """A run in memory; the arrays share memory with its tensors."""
    arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in artifact.tensors.items()}
    weights = {name: tensor.numpy() for name, tensor in backbone.weights.items()}
    found = Checkpoint(
        backbone.name,
        backbone.family,
        backbone.table,
        weights,
        backbone.tokenizer,
        backbone.fingerprint,
        backbone.config,
        backbone.own_tokenizer,
        backbone.commit,
    )
    return Opened(replace(artifact, tensors={}), arrays, found)


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
