"""Classifiers that are an ONNX graph: folders of ``loralet export``, computed by onnxruntime without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from tokenizers import Tokenizer

from loralet.adapters.spec import HEAD_ALONE
from loralet.artifacts.artifact import Artifact
from loralet.artifacts.fields import SHORTEST, name_problems
from loralet.backends.info import BackendInfo
from loralet.config import ModelOptions
from loralet.data.order import BATCH_TOKENS, flat_rows, sorted_batches
from loralet.data.tokens import Tokens
from loralet.errors import ConfigError, RunError
from loralet.hub.tensors import lfs_advice
from loralet.records import read_json, require_files, shown
from loralet.runtime import prevent_telemetry, thread_count

GRAPHS = ("model.onnx", "onnx/model.onnx")
"""Places of the fp32 graph in a folder."""
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "logits"
"""Names in a graph."""
INSTALL = "pip install 'loralet[onnx]'"


@dataclass(frozen=True)
class Graph:
    """A classifier without tensors that loralet can read.

    Args:
        artifact: labels and maximum length; the temperature is part of the graph.
        path: the ONNX file.
        tokenizer: its tokenizer.
        labels: label names in its files, in the order of the logits; empty if the user has given others.
    """

    artifact: Artifact
    path: Path
    tokenizer: Tokenizer
    labels: tuple[str, ...]


def graph_in(folder: Path) -> Path | None:
    """The fp32 graph of a folder; None if it has none."""
    return next((folder / name for name in GRAPHS if (folder / name).is_file()), None)


def read_graph(folder: Path, options: ModelOptions = ModelOptions()) -> Graph:
    """Read labels and tokenizer of a folder with a graph.

    Args:
        folder: has labels.json (``export --to onnx``) or config.json, a tokenizer.json, and one of :data:`GRAPHS`.
        options: label names, in the order of the logits. A graph has no backbone, so the path of one is refused.

    Raises:
        RunError: a file is missing or cannot be read.
        ConfigError: a backbone is given.
    """
    require_files(folder)
    path = graph_in(folder)
    if path is None:
        raise RunError(f"{folder}: no {' and no '.join(GRAPHS)}")
    if options.source.backbone:
        raise ConfigError(f"backbone is given, but {folder} is an ONNX graph, which contains its backbone")
    try:
        labels, length = _settings(folder)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
    except (KeyboardInterrupt, SystemExit, MemoryError, RunError):
        raise
    except BaseException as error:  # a panic of the library, which is written in Rust, is not an Exception
        files = [path for name in ("labels.json", "tokenizer.json") if (path := folder / name).is_file()]
        reason = next(filter(None, map(lfs_advice, files)), "") or str(error)
        raise RunError(f"{folder}: cannot be read as a folder with an ONNX graph ({reason})") from error
    if options.label_names and len(options.label_names) != len(labels):
        raise RunError(
            f"{folder}: {len(options.label_names)} label names given, but the classifier has {len(labels)} labels "
            f"({', '.join(labels)})"
        )
    artifact = Artifact(
        id=folder.resolve().name,
        role="full",
        labels=tuple(options.label_names) or labels,
        adapter=HEAD_ALONE,
        head="pooler",
        max_length=length,
        backbone=str(folder),
        backbone_fingerprint="",
        architecture="",
        data_fingerprint="",
        tensors={},
    )
    return Graph(artifact, path, tokenizer, () if options.label_names else labels)


def _settings(folder: Path) -> tuple[tuple[str, ...], int]:
    """Labels and maximum length, from labels.json or from config.json and tokenizer_config.json.

    Raises:
        RunError: they are missing or of a wrong type.
    """
    if (folder / "labels.json").exists():
        settings = _object(folder / "labels.json")
        labels, length = settings.get("labels"), settings.get("max_length")
    else:
        config = _object(folder / "config.json")
        names, tokenizer = config.get("id2label"), _object(folder / "tokenizer_config.json")
        labels = [names.get(str(i)) for i in range(len(names))] if isinstance(names, dict) else None
        limits = (tokenizer.get("model_max_length"), config.get("max_position_embeddings"))
        length = min((n for n in limits if isinstance(n, (int, float)) and not isinstance(n, bool)), default=None)
    if not isinstance(labels, list) or len(labels) < 2 or not all(isinstance(label, str) for label in labels):
        raise RunError(f"{folder}: labels is {str(labels)[:200]}; two or more strings are expected")
    if problems := list(name_problems("labels", labels)):
        raise RunError(f"{folder}: {'; '.join(problems)}")
    if isinstance(length, bool) or not isinstance(length, (int, float)) or not length >= SHORTEST or length % 1:
        raise RunError(f"{folder}: max_length is {shown(length)}; a whole number from {SHORTEST} is expected")
    return tuple(labels), int(length)


def _object(path: Path) -> Mapping[str, object]:
    found = read_json(path)
    if not isinstance(found, dict):
        raise RunError(f"{path}: a JSON object is expected")
    return found


@dataclass(frozen=True)
class GraphEngine:
    """A graph in onnxruntime; see :class:`loralet.inference.engine.Engine`."""

    session: Any
    info: BackendInfo
    path: Path

    def logits(self, tokens: Tokens) -> Float[np.ndarray, "1 m c"]:
        """Logits of every row, in the order of the rows.

        Raises:
            RunError: onnxruntime cannot compute them, for example because tokenizer and graph are not of one model.
        """
        rows: list[np.ndarray] = []
        logits: list[np.ndarray] = []
        for own in sorted_batches(tokens.lengths, BATCH_TOKENS):
            flat = flat_rows(tokens, own)
            lengths = np.diff(flat.offsets)
            mask = np.arange(int(lengths.max())) < lengths[:, None]
            ids = np.zeros(mask.shape, np.int64)
            ids[mask] = flat.ids
            found = self._run(ids, mask.astype(np.int64))
            rows.append(own)
            logits.append(found)
        out = np.empty((1, len(tokens), logits[0].shape[1]), np.float32)
        out[0, np.concatenate(rows)] = np.concatenate(logits)
        return out

    def _run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        try:
            (found,) = self.session.run([OUTPUT], dict(zip(INPUTS, (ids, mask), strict=True)))
        except MemoryError:
            raise
        except Exception as error:  # the library's exceptions have no common base
            raise RunError(
                f"{self.path}: onnxruntime cannot compute it ({_first_line(error)}); graph, tokenizer and max_length "
                "must be those of one model"
            ) from error
        logits = np.asarray(found)
        if logits.ndim != 2 or len(logits) != len(ids) or not np.issubdtype(logits.dtype, np.floating):
            raise RunError(
                f"{self.path}: {OUTPUT} has shape {list(logits.shape)} and type {logits.dtype}, for {len(ids)} rows"
            )
        return logits


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def open_graph(path: Path, wanted: Graph | None = None) -> GraphEngine:
    """Load a graph.

    Args:
        path: the file.
        wanted: what the other files say of it; None: not compared.

    Raises:
        ConfigError: onnxruntime is not installed.
        RunError: onnxruntime cannot read the file, or it is not the graph that the other files describe.
    """
    if advice := lfs_advice(path):
        raise RunError(f"{path}: {advice}")
    prevent_telemetry()
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(f"{path} is an ONNX graph, which onnxruntime computes: {INSTALL}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count()
    options.log_severity_level = 4  # errors are raised, too
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's exceptions have no common base
        raise RunError(f"{path}: onnxruntime cannot read it ({_first_line(error)})") from error
    if problems := list(_graph_problems(session, wanted)):
        raise RunError(f"{path}: {'; '.join(problems)}; use files of one export")
    return GraphEngine(session, BackendInfo("onnxruntime", "cpu", "", "fp32", options.intra_op_num_threads), path)


def _graph_problems(session: Any, wanted: Graph | None) -> Iterator[str]:
    """Messages about a graph that has other inputs or outputs, or that is not the one that other files describe."""
    inputs = [value.name for value in session.get_inputs()]
    outputs = {value.name: value.shape for value in session.get_outputs()}
    if not set(inputs) <= set(INPUTS) or OUTPUT not in outputs:
        found = f"the inputs {', '.join(inputs)} and the outputs {', '.join(outputs)}"
        yield f"has {found}; expected {', '.join(INPUTS)} and {OUTPUT}"
        return
    if wanted is None:
        return
    shape, classes = outputs[OUTPUT], len(wanted.artifact.labels)
    if shape and isinstance(shape[-1], int) and shape[-1] != classes:
        yield f"has {shape[-1]} logits, but the folder has {classes} labels ({', '.join(wanted.artifact.labels)})"
    own, labels = session.get_modelmeta().custom_metadata_map, json.dumps(list(wanted.labels), ensure_ascii=False)
    if wanted.labels and own.get("labels", labels) != labels:
        yield f"has the labels {own['labels'][:200]}, but those of the folder are {labels[:200]}"
    longest, length = own.get("longest", ""), wanted.artifact.max_length
    if longest.isdecimal() and length > int(longest[:18]):
        yield f"computes texts of at most {longest[:18]} tokens, but max_length is {length}"
