"""Code shared by all exports: the report, and the comparison with the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from loralet import __version__
from loralet.artifacts.artifact import Artifact
from loralet.artifacts.verify import trial_rows
from loralet.atomic import write_json
from loralet.errors import CheckError
from loralet.hub.tokenizer_config import tokenizer_config
from loralet.inference.predictor import LoadedClassifier
from loralet.records import plain

TOLERANCE = 1e-4
"""Largest difference of a logit between an export and the run, which compute in fp32 but in another order."""


@dataclass(frozen=True)
class Gate:
    """Comparison of the 8-bit graph with the fp32 graph on ``rows`` labelled rows of ``data``.

    The 8-bit graph is ``kept`` if ``metric`` drops by at most ``largest_drop``.
    """

    rows: int
    data: str
    metric: str
    fp32: float
    int8: float
    largest_drop: float
    kept: bool


@dataclass(frozen=True)
class Compared:
    """A graph of the folder onnx/, compared with the run on ``rows`` rows of ``data``.

    Args:
        file: its name.
        rows, data: the rows.
        agreement: share of rows with the run's label.
        largest_difference: largest difference of a logit.
        kept: whether the export has the file.
    """

    file: str
    rows: int
    data: str
    agreement: float
    largest_difference: float
    kept: bool


@dataclass(frozen=True)
class Exported:
    """Report of an export, written to export.json.

    Args:
        folder: the output folder.
        to: the format.
        run: id of the run.
        backbone, backbone_fingerprint, labels: as in the run.
        bytes: size of each file, by its path in the folder.
        opset: operator set of the ONNX graph.
        largest_difference: largest difference of a logit between export and run, over ``rows_compared`` rows.
        int8: comparison of the 8-bit graph; None if none was requested.
        refused: why the 8-bit graph was not kept; empty if it was kept or not requested.
        omitted: what the export does not contain; empty if it contains the whole run.
        graphs: the graphs of the folder onnx/.
    """

    folder: Path
    to: str
    run: str
    backbone: str
    backbone_fingerprint: str
    labels: tuple[str, ...]
    bytes: Mapping[str, int] = field(default_factory=dict)
    opset: int | None = None
    largest_difference: float | None = None
    rows_compared: int | None = None
    int8: Gate | None = None
    refused: str = ""
    omitted: str = ""
    graphs: tuple[Compared, ...] = ()


def write_report(
    to: str,
    artifact: Artifact,
    out: Path,
    written: Path,
    opset: int | None = None,
    compared: tuple[float, int] | None = None,
    gate: Gate | None = None,
    refused: str = "",
    omitted: str = "",
    graphs: tuple[Compared, ...] = (),
) -> Exported:
    """Write export.json.

    Args:
        to: the format.
        artifact: the run.
        out: the final folder of the export.
        written: the folder that contains the files now.
        opset, gate, refused, omitted, graphs: see :class:`Exported`; ``gate`` is its ``int8``.
        compared: largest difference of a logit, and number of rows compared.
    """
    done = Exported(
        folder=out,
        to=to,
        run=artifact.id,
        backbone=artifact.backbone,
        backbone_fingerprint=artifact.backbone_fingerprint,
        labels=artifact.labels,
        bytes={name: size for name, size in sizes(written).items() if name != "export.json"},
        opset=opset,
        largest_difference=compared[0] if compared else None,
        rows_compared=compared[1] if compared else None,
        int8=gate,
        refused=refused,
        omitted=omitted,
        graphs=graphs,
    )
    described = {name: value for name, value in plain(done).items() if name != "folder" and value not in (None, "", [])}
    write_json(written / "export.json", {"loralet": __version__} | described)
    return done


def sizes(folder: Path) -> dict[str, int]:
    """Sizes in bytes of all files of a folder, by their paths in it, without hidden ones."""
    files = (path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    return {name: named[name] for name in sorted(named) if not name.startswith(".") and "/." not in name}


def write_tokenizer(folder: Path, artifact: Artifact, classifier: LoadedClassifier) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    classifier.backbone.tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", tokenizer_config(classifier.backbone.tokenizer, artifact.max_length))


def compare(what: str, found: Tensor, classifier: LoadedClassifier) -> float:
    """Compare logits on a few fixed rows with those of the run; returns the largest difference.

    Raises:
        CheckError: they differ by more than :data:`TOLERANCE`.
    """
    apart = float((found - fixed_logits(classifier)).abs().max())
    if not apart <= TOLERANCE:
        raise CheckError(
            f"{classifier.artifact.id}: {what} gives different logits than the run (largest difference {apart:.2g})"
        )
    return apart


def fixed_logits(classifier: LoadedClassifier) -> Tensor:
    """Logits ``[b c]`` on a few fixed rows of token ids."""
    return classifier.forward(trial_rows(classifier.backbone.table))[0]
