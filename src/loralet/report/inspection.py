"""What lies at a path: a model, an adapter, a run folder, a data set. Facts as plain records; nothing is printed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loralet.artifacts.folder import ADAPTER_FILES, Artifact, load_artifact
from loralet.artifacts.peft import is_peft_folder, load_peft
from loralet.data.files import SUFFIXES, Columns
from loralet.data.sources import Split, load_dataset
from loralet.errors import HubError, RunError, UserError
from loralet.hub import client as hub
from loralet.hub.backbone import Backbone, load_backbone
from loralet.hub.bundled import DATA, bundled
from loralet.models.encoder import Weights
from loralet.runs.folder import TRAINED, chosen_run, read_results

PARTS = ("embeddings", "layers", "pooler", "classifier")


@dataclass(frozen=True)
class Inspection:
    """What was found at one path.

    Args:
        path: as it was named.
        kind: ``model``, ``adapter``, ``run folder`` or ``data set``.
        facts: by heading, a table: its rows' names and values, as JSON has them.
        weights: a model's tensors, for comparing; None for all else.
    """

    path: str
    kind: str
    facts: dict[str, dict[str, Any]]
    weights: Weights | None = None


@dataclass(frozen=True)
class Difference:
    """One tensor of two models. ``largest`` is the largest difference of a number, None where only one model has it or the shapes differ."""

    tensor: str
    first: str
    second: str
    largest: float | None


@dataclass(frozen=True)
class Comparison:
    """Two models, tensor by tensor: names, how many tensors are equal bit for bit, and those that are not."""

    first: str
    second: str
    equal: int
    differing: tuple[Difference, ...]

    @property
    def encoders_equal(self) -> bool:
        """Whether the encoders' weights are equal; a pooler that only one of the models has does not count."""
        return all(d.tensor.startswith("pooler.") for d in self.differing)


def inspect_path(path: str) -> Inspection:
    """Find out what lies at a path or behind a hub id.

    Raises:
        RunError: nothing is there, or nothing that loralet knows; the message says what each way of reading it found wrong.
        UserError: what is there is broken.
    """
    folder = Path(path)
    if (
        folder.is_file()
        or (folder.suffix.lower() in SUFFIXES and not folder.is_dir())
        or (path == DATA and bundled(path))
    ):
        return _data(path)
    if folder.is_dir():
        return _folder(path, folder)
    problems: list[str] = []
    for read in (_hub_adapter, _model, _data):
        try:
            return read(path)
        except UserError as error:
            problems.append(str(error).splitlines()[0])
    raise RunError(
        "\n".join(
            [
                f"{path}: not an adapter, a model or a data set:",
                *(f"  - {problem}" for problem in dict.fromkeys(problems)),
            ]
        )
    )


def compare(first: Inspection, second: Inspection) -> Comparison:
    """Compare two models' tensors, in fp32, by their canonical names."""
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
    if (folder / "loralet.json").exists() or is_peft_folder(folder):
        return _adapter(path, folder)
    if (folder / "results.json").exists() or (folder / "config.toml").exists():
        return _run(path, folder)
    if (folder / "config.json").exists():
        return _model(path)
    return _data(path)


def _hub_adapter(path: str) -> Inspection:
    def choose(names: Sequence[str]) -> list[str]:
        return (
            [name for name in names if name in ADAPTER_FILES]
            if {"loralet.json", "adapter_config.json"} & set(names)
            else []
        )

    if not hub.is_hub_id(path) or bundled(path):
        raise HubError(f"{path}: no adapter of that name")
    return _adapter(path, hub.fetch(path, choose))


def _model(path: str) -> Inspection:
    backbone = load_backbone(path)
    return Inspection(path, "model", _model_facts(backbone) | {"files": _sizes(Path(path))}, backbone.weights)


def _model_facts(backbone: Backbone) -> dict[str, dict[str, Any]]:
    shape = backbone.shape
    return {
        "architecture": {
            "type": backbone.architecture.model_type,
            "layers": shape.layers,
            "width": shape.width,
            "heads": shape.heads,
            "feed-forward": shape.feed_forward,
            "activation": shape.activation,
            "pooler": backbone.has_pooler,
            "fingerprint": backbone.fingerprint,
        },
        "parameters": _parts(backbone.weights),
        "vocabulary": {
            "tokens": backbone.tokenizer.get_vocab_size(),
            "embedding rows": shape.vocabulary,
            "longest text (tokens)": shape.longest,
        },
    }


def _parts(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers by part of the model, and in all."""
    counted = {part: sum(t.numel() for name, t in tensors.items() if name.startswith(f"{part}.")) for part in PARTS}
    return {part: count for part, count in counted.items() if count} | {"all": sum(t.numel() for t in tensors.values())}


def _adapter(path: str, folder: Path) -> Inspection:
    artifact = load_peft(folder)[0] if is_peft_folder(folder) else load_artifact(folder)
    facts: dict[str, dict[str, Any]] = {"adapter": _adapter_facts(artifact), "labels": _numbered(artifact.labels)}
    facts["parameters"] = _parts(artifact.tensors)
    if artifact.role == "full":
        backbone = load_backbone(str(folder))
        facts |= _model_facts(backbone)
        return Inspection(path, "adapter", facts | _history(artifact, folder), backbone.weights)
    return Inspection(path, "adapter", facts | _history(artifact, folder))


def _adapter_facts(artifact: Artifact) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "run": artifact.id,
        "role": artifact.role,
        "head": artifact.head,
        "max length": artifact.max_length,
    }
    if artifact.rank:
        facts |= {
            "rank": artifact.rank,
            "alpha": artifact.alpha,
            "scaling": artifact.scaling,
            "dropout": artifact.dropout,
        }
        facts |= {"targets": " ".join(artifact.targets)}
    return facts | {
        "backbone": artifact.backbone,
        "backbone fingerprint": artifact.backbone_fingerprint,
        "data fingerprint": artifact.data_fingerprint or None,
    }


def _history(artifact: Artifact, folder: Path) -> dict[str, dict[str, Any]]:
    facts: dict[str, dict[str, Any]] = {}
    if artifact.training:
        facts["training"] = artifact.training | artifact.data
    facts |= {f"{split} scores": values for split, values in artifact.metrics.items()}
    return facts | {"files": _sizes(folder)}


def _run(path: str, folder: Path) -> Inspection:
    results = read_results(folder)
    trained = [run for run in results["runs"] if run["role"] in TRAINED]
    facts: dict[str, dict[str, Any]] = {
        "run folder": {
            "kind": results["kind"],
            "made with": f"loralet {results['loralet']}",
            "runs": len(trained),
            "test reads": results["test_reads"],
        },
        "data": {key: value for key, value in results["data"].items() if key != "labels"},
        "labels": _numbered(results["data"]["labels"]),
        "validation accuracy": {
            run["id"]: run["validation"]["accuracy"] if run["validation"] else run["status"] for run in trained
        },
    }
    if any(run["validation"] for run in trained):
        facts["run folder"]["chosen on validation"] = chosen_run(results)["id"]
    return Inspection(path, "run folder", facts | {"files": _sizes(folder)})


def _data(path: str) -> Inspection:
    dataset = load_dataset(path, Columns())
    # Sizes and class counts only: no classifier looks at the test split here, so it does not count as read.
    splits = {"train": dataset.train, "validation": dataset.validation}
    facts: dict[str, dict[str, Any]] = {
        "data set": {"fingerprint": dataset.fingerprint},
        "labels": _numbered(dataset.labels),
    }
    facts |= {name: _split_facts(split, dataset.labels) for name, split in splits.items() if split is not None}
    if dataset.test is not None:
        facts["test"] = {"rows": len(dataset.test)}
    if dataset.notes:
        facts["notes"] = _numbered(dataset.notes)
    return Inspection(path, "data set", facts)


def _split_facts(split: Split, labels: Sequence[str]) -> dict[str, Any]:
    counts = np.bincount(split.labels, minlength=len(labels))
    lengths = np.array([len(text) for text in split.texts.to_pylist()])
    facts: dict[str, Any] = {"source": split.source, "rows": len(split)}
    facts |= {f"rows of {name}": int(count) for name, count in zip(labels, counts, strict=True)}
    return facts | {"characters, median": int(np.median(lengths)), "characters, longest": int(lengths.max())}


def _numbered(values: Sequence[str]) -> dict[str, Any]:
    return {str(number): value for number, value in enumerate(values)}


def _sizes(folder: Path) -> dict[str, Any]:
    """Sizes in bytes of the files in a folder."""
    return {p.name: p.stat().st_size for p in sorted(folder.iterdir()) if p.is_file()} if folder.is_dir() else {}
