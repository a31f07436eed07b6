"""The peers of loralet's prediction: the transformers pipeline, ONNX Runtime and OpenVINO.

Each function imports its own libraries, because the memory of each contender is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ours import grid_run, open_pack
from work import LENGTH, Measured, Work, latency, timed

from loralet.artifacts.artifact import Artifact
from loralet.config import DataOptions, TrainingOptions
from loralet.data.batches import gather
from loralet.data.order import BATCH_TOKENS, sorted_batches
from loralet.data.tokens import Tokens, tokenise
from loralet.hub.backbone import Backbone, load_backbone
from loralet.training.row import Row
from loralet.training.session import make_artifact

PIPELINE_ROWS = 1000
"""Texts for the transformers pipeline, if the number of rows is not given."""
FP32_GRAPH, INT8_GRAPH = "model.onnx", "model.int8.onnx"

Graph = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Logits of token ids and mask, both int64."""


def untrained(work: Work) -> tuple[Artifact, Backbone]:
    """An untrained run on the backbone, and the backbone."""
    opened = open_pack(work, [grid_run(work.model)], TrainingOptions())
    session, state = opened.session, opened.state
    row = Row(state.active[0].run, tensors=state.pack.extract(state.parameters, 0))
    artifact = make_artifact(row, session, opened.corpus, work.data, DataOptions(max_length=LENGTH))
    return artifact, session.backbone


def _classifier(work: Work, bf16: bool) -> Callable[..., Any]:
    """The transformers pipeline of the backbone with a new classifier."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        work.model,
        num_labels=len(work.corpus().dataset.task.labels),
        dtype=torch.bfloat16 if bf16 else torch.float32,
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(work.model)
    pipeline: Callable[..., Any] = transformers.pipeline(
        "text-classification", model=model, tokenizer=tokenizer, device="cpu"
    )
    return pipeline


def pipeline(work: Work, bf16: bool = False) -> Measured:
    """Texts to labels with the transformers pipeline in batches of 32."""
    classify = _classifier(work, bf16)
    texts = work.corpus().validation.texts.to_pylist()[: work.rows or PIPELINE_ROWS]
    classify(texts[:64], batch_size=32, truncation=True, max_length=LENGTH)
    return timed(lambda: classify(texts, batch_size=32, truncation=True, max_length=LENGTH), len(texts), work)


def pipeline_one_text(work: Work) -> Measured:
    """One text at a time with the transformers pipeline."""
    classify = _classifier(work, bf16=False)
    return latency(lambda text: classify(text, truncation=True, max_length=LENGTH))


def onnx(work: Work) -> Measured:
    """Texts to probabilities, including tokenising, with ONNX Runtime and the graph exported by loralet.

    Texts of similar length are batched and loralet tokenises, which is the fastest form of this peer.
    """
    from loralet.artifacts.merge import merge
    from loralet.export.graph import onnx_logits, write_onnx

    artifact, backbone = untrained(work)
    texts, path, task = work.corpus().validation.texts, work.folder / "peer.onnx", artifact.as_task()
    write_onnx(merge(artifact, backbone), path)
    onnx_logits(path, tokenise(texts.slice(0, 64), backbone.tokenizer, LENGTH))

    def run() -> None:
        task.probabilities(onnx_logits(path, tokenise(texts, backbone.tokenizer, LENGTH))).tolist()

    return timed(run, len(texts), work)


def onnx_graph(path: Path) -> Graph:
    """A graph, loaded by ONNX Runtime with as many threads as torch uses."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]


def openvino_graph(path: Path) -> Graph:
    """A graph, loaded by OpenVINO in its default precision: bf16 on a CPU with bf16 arithmetic."""
    import openvino
    import torch

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": torch.get_num_threads()})
    return lambda ids, mask: compiled({"input_ids": ids, "attention_mask": mask})["logits"]


def graph_labels(work: Work, load: Callable[[Path], Graph], name: str = FP32_GRAPH) -> Measured:
    """Texts to labels, including tokenising, with a graph loaded in advance.

    Texts of similar length are batched and loralet tokenises, which is the fastest form of these peers.
    """
    graph, tokenizer = load(Path(work.prepared) / name), load_backbone(work.model).tokenizer
    texts = work.corpus().validation.texts
    _labels(graph, tokenise(texts.slice(0, 64), tokenizer, LENGTH))
    return timed(lambda: _labels(graph, tokenise(texts, tokenizer, LENGTH)).tolist(), len(texts), work)


def _labels(graph: Graph, tokens: Tokens) -> np.ndarray:
    """The most probable class of each row."""
    found = np.empty(len(tokens), np.int64)
    for rows in sorted_batches(tokens.lengths, BATCH_TOKENS):
        batch = gather(tokens, rows).padded()
        mask = np.arange(batch.ids.shape[1]) < batch.lengths.numpy()[:, None]
        found[rows] = graph(batch.ids.numpy(), mask.astype(np.int64)).argmax(-1)
    return found


def graph_one_text(work: Work, load: Callable[[Path], Graph]) -> Measured:
    """One text at a time with a graph, including tokenising."""
    graph, tokenizer = load(Path(work.prepared) / FP32_GRAPH), load_backbone(work.model).tokenizer

    def answer(text: str) -> int:
        ids = np.array([tokenizer.encode(text).ids])
        return int(graph(ids, np.ones_like(ids)).argmax())

    return latency(answer)
