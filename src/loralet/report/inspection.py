"""Inspects a path: a model, an adapter, a run folder or a data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from loralet.artifacts.artifact import Artifact
from loralet.artifacts.folder import load_artifact
from loralet.artifacts.foreign import has_weights, is_classifier, read_classifier
from loralet.artifacts.peft import load_peft
from loralet.artifacts.peft_config import read_config
from loralet.artifacts.reading import is_peft_folder, peft_subfolders
from loralet.data.files import Columns
from loralet.data.readers.records import format_of
from loralet.data.sources import Split, load_dataset
from loralet.errors import HubError, RunError, UserError
from loralet.hub.backbone import Backbone, backbone_of, load_backbone
from loralet.hub.bundled import DATA, bundled
from loralet.hub.models import resolve_model
from loralet.hub.names import parse_name
from loralet.inference.adapters import find_adapter
from loralet.inference.graph import graph_in, read_graph
from loralet.models.forward import Weights
from loralet.records import plain, require_files
from loralet.runs.results import read_results, unfinished_text
from loralet.runs.run import TRAINED
from loralet.runs.selection import chosen_run

Facts = dict[str, object]
"""JSON-serialisable values by name."""

PARTS = ("embeddings", "layers", "pooler", "classifier")
"""Parts of a model whose parameters are counted."""


@dataclass(frozen=True)
class Inspection:
    """What was found at one path.

    Args:
        path: path as given by the user.
        kind: ``model``, ``adapter``, ``classifier`` (of transformers, or an ONNX graph), ``run folder``
            or ``data set``.
        facts: one table per heading.
        weights: tensors of a model, for comparisons; None otherwise.
    """

    path: str
    kind: str
    facts: dict[str, Facts]
    weights: Weights | None = None


@dataclass(frozen=True)
class Difference:
    """A tensor that differs between two models.

    Args:
        tensor: its name.
        first, second: its shape in each model; a dash if the model does not have it.
        largest: largest absolute difference; None if the shapes differ.
    """

    tensor: str
    first: str
    second: str
    largest: float | None


@dataclass(frozen=True)
class Comparison:
    """Comparison of two models, tensor by tensor.

    Args:
        first, second: their paths.
        equal: number of bitwise equal tensors.
        differing: the other tensors.
    """

    first: str
    second: str
    equal: int
    differing: tuple[Difference, ...]

    @property
    def encoders_equal(self) -> bool:
        """Whether the encoders' weights are equal, ignoring the pooler."""
        return all(d.tensor.startswith("pooler.") for d in self.differing)


def inspect_path(path: str) -> Inspection:
    """Inspect a path or hub id.

    Args:
        path: a file, a folder, a hub id, or the name of a bundled model or data set.

    Raises:
        RunError: the path does not exist or cannot be read; the message has one line per attempt.
        UserError: the file or folder is invalid.
    """
    folder = Path(path)
    is_table = bool(format_of(path)) and not folder.is_dir()
    if folder.is_file() or is_table or (path == DATA and bundled(path)):
        return _data(path)
    if folder.is_dir():
        return _folder(path, folder)
    problems: list[str] = []
    for read in (_hub_adapter, _model, _data):
        try:
            return read(path)
        except UserError as error:
            problems.append(str(error).splitlines()[0])
    listed = [f"  - {problem}" for problem in dict.fromkeys(problems)]
    raise RunError("\n".join([f"{path}: not an adapter, a model or a data set:", *listed]))


def compare(first: Inspection, second: Inspection) -> Comparison:
    """Compare the tensors of two models in fp32, by canonical name."""
    a, b = first.weights or {}, second.weights or {}
    differing: list[Difference] = []
    for name in [*a, *(name for name in b if name not in a)]:
        shapes = ["x".join(map(str, w[name].shape)) if name in w else "–" for w in (a, b)]
        if shapes[0] != shapes[1]:
            differing.append(Difference(name, shapes[0], shapes[1], None))
        elif not a[name].equal(b[name]):
            differing.append(Difference(name, shapes[0], shapes[1], float((a[name] - b[name]).abs().max())))
    return Comparison(first.path, second.path, len(a.keys() | b.keys()) - len(differing), tuple(differing))


def _folder(path: str, folder: Path) -> Inspection:
    require_files(folder)
    if (folder / "loralet.json").exists() or is_peft_folder(folder):
        return _adapter(path, folder)
    if (folder / "results.json").exists() or (folder / "config.toml").exists():
        return _run(path, folder)
    if len(inner := peft_subfolders(folder)) == 1:
        return _adapter(str(inner[0]), inner[0])
    if is_classifier(folder):
        return _classifier(path, folder)
    if graph_in(folder) and not has_weights(folder):
        return _graph(path, folder)
    if (folder / "config.json").exists():
        return _model(path)
    return _data(path)


def _hub_adapter(path: str) -> Inspection:
    if parse_name(path) is None or bundled(path) or resolve_model(path) != path:
        raise HubError(f"{path}: no adapter of that name")
    return _adapter(path, find_adapter(Path(path)))


def _model(path: str) -> Inspection:
    backbone = load_backbone(path)
    return Inspection(path, "model", _model_facts(backbone) | {"files": _sizes(Path(path))}, backbone.weights)


def _classifier(path: str, folder: Path) -> Inspection:
    artifact, head, found = read_classifier(folder)
    backbone = backbone_of(found)
    parts = backbone.weights | {name: torch.from_numpy(array) for name, array in head.items()}
    facts: dict[str, Facts] = {
        "classifier": {"head": artifact.head, "max length": artifact.max_length},
        "labels": _numbered(artifact.labels),
    }
    facts |= _model_facts(backbone) | {"parameters": _parts(parts), "files": _sizes(folder)}
    return Inspection(path, "classifier", facts, backbone.weights)


def _graph(path: str, folder: Path) -> Inspection:
    graph = read_graph(folder)
    return Inspection(
        path,
        "classifier",
        {
            "classifier": {"ONNX graph": graph.path.name, "max length": graph.artifact.max_length},
            "labels": _numbered(graph.artifact.labels),
            "vocabulary": {"tokens": graph.tokenizer.get_vocab_size()},
            "files": _sizes(folder),
        },
    )


def _model_facts(backbone: Backbone) -> dict[str, Facts]:
    table = backbone.table
    return {
        "architecture": {
            "type": backbone.family.model_type,
            "layers": table.layers,
            "width": table.width,
            "heads": table.heads,
            "feed-forward": table.feed_forward,
            "activation": table.activation,
            "pooler": backbone.has_pooler,
            "fingerprint": backbone.fingerprint,
        },
        "parameters": _parts(backbone.weights),
        "vocabulary": {
            "tokens": backbone.tokenizer.get_vocab_size(),
            "embedding rows": table.vocabulary,
            "longest text (tokens)": table.longest,
        },
    }


def _parts(tensors: Mapping[str, Tensor]) -> Facts:
    """Number of parameters of each part of the model, and in total."""
    counted = {part: sum(t.numel() for name, t in tensors.items() if name.startswith(f"{part}.")) for part in PARTS}
    found: Facts = {part: count for part, count in counted.items() if count}
    return found | {"all": sum(t.numel() for t in tensors.values())}


def _adapter(path: str, folder: Path) -> Inspection:
    artifact = load_peft(folder)[0] if is_peft_folder(folder) else load_artifact(folder)
    facts = {
        "adapter": _adapter_facts(artifact) | (_peft_facts(folder) if is_peft_folder(folder) else {}),
        "labels": _numbered(artifact.labels),
        "parameters": _parts(artifact.tensors),
    }
    history = _history(artifact) | {"files": _sizes(folder)}
    if artifact.role == "full":
        backbone = load_backbone(str(folder))
        return Inspection(path, "adapter", facts | _model_facts(backbone) | history, backbone.weights)
    return Inspection(path, "adapter", facts | history)


def _adapter_facts(artifact: Artifact) -> Facts:
    facts: Facts = {
        "run": artifact.id,
        "role": artifact.role,
        "task": artifact.task,
        "head": artifact.head,
        "max length": artifact.max_length,
    }
    if artifact.words is not None:
        facts |= {"encoder weight": artifact.mixing.weight, "words and pairs": len(artifact.words.idf)}
    if artifact.adapter.rank:
        facts |= plain(artifact.adapter) | {"targets": " ".join(artifact.adapter.targets)}
    if artifact.temperature != 1.0:
        facts["temperature of the logits"] = artifact.temperature
    return facts | {
        "backbone": artifact.backbone,
        "backbone fingerprint": artifact.backbone_fingerprint,
        "data fingerprint": artifact.data_fingerprint or None,
    }


def _peft_facts(folder: Path) -> Facts:
    """Rank and alpha as adapter_config.json has them, with those of single modules; a pack has one of each."""
    config = read_config(folder)
    patterns = {key: config.get(f"{key}_pattern") for key in ("rank", "alpha")}
    facts: Facts = {"rank": config.get("r") or 8, "alpha": float(str(config.get("lora_alpha") or 8))}
    facts["scaling"] = "rslora" if config.get("use_rslora") else "alpha/r"
    return facts | {f"{key} pattern": json.dumps(value) for key, value in patterns.items() if value}


def _history(artifact: Artifact) -> dict[str, Facts]:
    """How an adapter was trained, if known, and its scores."""
    provenance = artifact.provenance
    options = [plain(part) for part in (provenance.training, provenance.compute) if part]
    own = plain(replace(provenance, training=None, compute=None, merged_adapter=None))
    training: Facts = {name: value for name, value in own.items() if value not in (None, "", [])}
    for part in options:
        training |= part
    facts = {"training": training} if training else {}
    if provenance.merged_adapter:
        facts["merged adapter"] = plain(provenance.merged_adapter)
    for split, measured in artifact.metrics.items():
        facts[f"{split} scores"] = {"rows": measured.rows, **measured.scores.to_json()}
    return facts


def _run(path: str, folder: Path) -> Inspection:
    results = read_results(folder)
    trained = [run for run in results.runs if run.role in TRAINED]
    metric = results.metric
    facts: dict[str, Facts] = {
        "run folder": {
            "kind": results.kind,
            "task": results.task,
            "made with": f"loralet {results.loralet}",
            "runs": len(trained),
            "test reads": results.test_reads,
            "state": "finished" if results.finished else unfinished_text(folder, results),
        },
        "data": {name: value for name, value in plain(results.data).items() if name != "labels"},
        "labels": _numbered(results.data.labels),
        f"{results.data.held_out} {metric}": {
            run.id: run.validation[metric] if run.validation else run.status for run in trained
        },
    }
    if any(run.trained for run in trained):
        name = "classifier" if results.data.folds else "chosen on validation"
        facts["run folder"][name] = chosen_run(results).id
    return Inspection(path, "run folder", facts | {"files": _sizes(folder)})


def _data(path: str) -> Inspection:
    dataset = load_dataset(path, Columns())
    # Only the size of the test split is shown, so this does not count as a test read.
    splits = {"train": dataset.train, "validation": dataset.validation}
    labels = dataset.task.labels
    facts: dict[str, Facts] = {
        "data set": {"task": dataset.task.name, "fingerprint": dataset.fingerprint},
        "labels": _numbered(labels),
    }
    facts |= {name: _split_facts(split, labels) for name, split in splits.items() if split is not None}
    if dataset.test is not None:
        facts["test"] = {"rows": len(dataset.test)}
    notes = (*dataset.notes, *dataset.findings)
    if notes:
        facts["notes"] = _numbered(notes)
    return Inspection(path, "data set", facts)


def _split_facts(split: Split, labels: Sequence[str]) -> Facts:
    facts: Facts = {"source": split.source, "rows": len(split)}
    if split.targets.ndim == 1:  # one label per row
        counts = np.bincount(split.targets, minlength=len(labels))
        facts |= {f"rows of {name}": int(count) for name, count in zip(labels, counts, strict=True)}
    lengths = np.array([len(text) for text in split.texts.to_pylist()])
    return facts | {"characters, median": int(np.median(lengths)), "characters, longest": int(lengths.max())}


def _numbered(values: Sequence[str]) -> Facts:
    return {str(number): value for number, value in enumerate(values)}


def _sizes(folder: Path) -> Facts:
    """Sizes of the files in a folder, in bytes."""
    return {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if p.is_file()} if folder.is_dir() else {}
