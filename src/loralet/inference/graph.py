"""Classifiers that are an ONNX graph: folders of ``loralet export``, computed by onnxruntime without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from tokenizers import Tokenizer

from loralet.adapters.spec import HEAD_ALONE
from loralet.artifacts.artifact import Artifact
from loralet.artifacts.fields import SHORTEST
from loralet.backends.info import BackendInfo
from loralet.config import ModelOptions
from loralet.data.order import BATCH_TOKENS, flat_rows, sorted_batches
from loralet.data.tokens import Tokens
from loralet.errors import ConfigError, RunError
from loralet.records import read_json
from loralet.runtime import prevent_telemetry, thread_count

GRAPHS = ("model.onnx", "onnx/model.onnx")
"""Places of the fp32 graph in a folder."""
INSTALL = "pip install 'loralet[onnx]'"


@dataclass(frozen=True)
class Graph:
    """A classifier without tensors that loralet can read.

    Args:
        artifact: labels and maximum length; the temperature is part of the graph.
        path: the ONNX file.
        tokenizer: its tokenizer.
    """

    artifact: Artifact
    path: Path
    tokenizer: Tokenizer


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
        raise RunError(f"{folder}: cannot be read as a folder with an ONNX graph ({error})") from error
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
    return Graph(artifact, path, tokenizer)


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
    if not isinstance(length, (int, float)) or isinstance(length, bool) or not length >= SHORTEST:
        raise RunError(f"{folder}: max_length is {length!r}; a whole number from {SHORTEST} is expected")
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

    def logits(self, tokens: Tokens) -> Float[np.ndarray, "1 m c"]:
        """Logits of every row, in the order of the rows."""
        rows: list[np.ndarray] = []
        logits: list[np.ndarray] = []
        for own in sorted_batches(tokens.lengths, BATCH_TOKENS):
            flat = flat_rows(tokens, own)
            lengths = np.diff(flat.offsets)
            mask = np.arange(int(lengths.max())) < lengths[:, None]
            ids = np.zeros(mask.shape, np.int64)
            ids[mask] = flat.ids
            (found,) = self.session.run(["logits"], {"input_ids": ids, "attention_mask": mask.astype(np.int64)})
            rows.append(own)
            logits.append(found)
        out = np.empty((1, len(tokens), logits[0].shape[1]), np.float32)
        out[0, np.concatenate(rows)] = np.concatenate(logits)
        return out


def open_graph(path: Path) -> GraphEngine:
    """Load a graph.

    Raises:
        ConfigError: onnxruntime is not installed.
        RunError: onnxruntime cannot read the file.
    """
    prevent_telemetry()
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(f"{path} is an ONNX graph, which onnxruntime computes: {INSTALL}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's exceptions have no common base
        raise RunError(f"{path}: onnxruntime cannot read it ({str(error).strip().splitlines()[0][:300]})") from error
    return GraphEngine(session, BackendInfo("onnxruntime", "cpu", "", "fp32", options.intra_op_num_threads))
