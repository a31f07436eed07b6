"""ONNX: the merged classifier as one graph, and the same graph in 8-bit integers and in fp16.

Inputs: ``input_ids`` and ``attention_mask``, int64, ``[batch tokens]``, padded on the right; for encoders with several
token types also ``token_type_ids``, which may be left out. Output: ``logits`` ``[batch classes]``, fp32.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loralet import __version__
from loralet.artifacts.merge import Merged
from loralet.data.tokens import Tokens
from loralet.errors import ConfigError
from loralet.inference.graph import open_graph
from loralet.models.forward import Padded, encode, frozen
from loralet.models.heads import POOLING_ACTIVATIONS, first_token, mean_over_tokens
from loralet.runtime import prevent_telemetry

OPSET = 20
"""The newest operator set that the exporter writes without conversion; it introduced Gelu."""
TYPES = "token_type_ids"
"""The optional input. Without it, all token types are 0."""


class Classifier(nn.Module):
    """The forward pass with the weights as buffers, for export with any batch size and length."""

    def __init__(self, merged: Merged) -> None:
        super().__init__()
        self.table, self.mean, self.pooling = merged.backbone.table, merged.mean, merged.artifact.pooling
        self.names = {name: name.replace(".", "__") for name in (*merged.weights, *merged.classifier)}
        for name, tensor in (merged.weights | merged.classifier).items():
            self.register_buffer(self.names[name], tensor.float())

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Logits ``[b c]`` of ids ``[b t]`` with a mask ``[b t]``: ones, then zeros."""
        weights = {name: self.get_buffer(buffer) for name, buffer in self.names.items()}
        batch = Padded(input_ids, attention_mask.sum(1), token_type_ids)
        states = encode(weights, self.table, batch, frozen(weights), "all" if self.mean else "first")
        features = self._features(weights, states, batch.lengths)
        return F.linear(features, weights["classifier.weight"], weights["classifier.bias"])

    def _features(self, weights: dict[str, Tensor], states: Tensor, lengths: Tensor) -> Tensor:
        if self.mean:
            return mean_over_tokens(states, lengths)[0]
        return self._pooled(weights, first_token(states)[0])

    def _pooled(self, weights: dict[str, Tensor], first: Tensor) -> Tensor:
        """:func:`loralet.models.heads.pool` for one classifier, without the axis of adapters.

        With that axis, the quantiser would not scale per channel.
        """
        x = F.linear(first, weights["pooler.weight"], weights.get("pooler.bias"))
        x = POOLING_ACTIVATIONS[self.pooling.activation](x)
        if self.pooling.norm:
            x = F.layer_norm(x, x.shape[-1:], weights["pooler.norm.weight"], eps=self.pooling.epsilon)
        return x


def require_onnx() -> None:
    """Check that the ``onnx`` extra is installed.

    Raises:
        ConfigError: it is not.
    """
    prevent_telemetry()
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"ONNX export needs {error.name}: pip install 'loralet[onnx]'") from error
    if hasattr(onnxruntime, "disable_telemetry_events"):
        onnxruntime.disable_telemetry_events()  # it may have been imported before


def write_onnx(merged: Merged, path: Path) -> None:
    """Write the classifier as an ONNX graph with dynamic batch size and length, and with :func:`metadata`."""
    table = merged.backbone.table
    ids = torch.arange(10).view(2, 5) % table.vocabulary
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    batch, tokens = torch.export.Dim("batch", min=1), torch.export.Dim("tokens", min=2, max=table.longest)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if table.token_types > 1:
        inputs[TYPES] = torch.zeros_like(ids)
    with _quietly():
        program = torch.onnx.export(
            Classifier(merged).eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_shapes={name: {0: batch, 1: tokens} for name in inputs},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        assert program is not None
        program.save(path)
    _complete(path, metadata(merged))


def metadata(merged: Merged) -> dict[str, str]:
    """Properties of the graph: labels (a JSON list, in the order of the logits), lengths in tokens, and origin.

    ``max_length`` is the length to which texts were truncated in training. ``longest`` is that of the position table;
    onnxruntime refuses longer rows.
    """
    artifact = merged.artifact
    return {
        "loralet": __version__,
        "run": artifact.provenance.hybrid_of or artifact.id,
        "labels": json.dumps(list(artifact.labels), ensure_ascii=False),
        "max_length": str(artifact.max_length),
        "longest": str(merged.backbone.table.longest),
        "backbone_fingerprint": artifact.backbone_fingerprint,
    }


def _complete(path: Path, properties: Mapping[str, str]) -> None:
    """Add properties to a graph, and make the input of token types optional.

    An input with an initial value may be left out. Its value, 0, has the shape [1, 1]; it is expanded to that of the
    token ids, as onnxruntime fuses the additions that follow and does not broadcast there.
    """
    import onnx

    model = onnx.load(path)
    graph, expanded = model.graph, f"{TYPES}.expanded"
    if TYPES in {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}:
        for node in graph.node:
            node.input[:] = [expanded if name == TYPES else name for name in node.input]
        graph.node.insert(0, onnx.helper.make_node("Shape", ["input_ids"], [f"{TYPES}.shape"]))
        graph.node.insert(1, onnx.helper.make_node("Expand", [TYPES, f"{TYPES}.shape"], [expanded]))
        graph.initializer.append(onnx.helper.make_tensor(TYPES, onnx.TensorProto.INT64, [1, 1], [0]))
    onnx.helper.set_model_props(model, dict(properties))
    onnx.save(model, path)


def write_int8(source: Path, path: Path) -> None:
    """Write the graph with weights and embeddings in 8-bit integers (dynamic quantisation)."""
    require_onnx()
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_suffix(".prepared.onnx")
    with _quietly():
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_dynamic(str(prepared), str(path), weight_type=QuantType.QInt8, per_channel=True)
    prepared.unlink()
    _complete(path, {entry.key: entry.value for entry in onnx.load(source).metadata_props})


def write_fp16(source: Path, path: Path) -> None:
    """Write the graph with weights and operations in fp16; inputs and outputs are those of the graph in fp32."""
    require_onnx()
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(source)
    with _quietly():
        half = convert_float_to_float16(model, keep_io_types=True)
    onnx.save(half, path)
    _complete(path, {entry.key: entry.value for entry in model.metadata_props})


def onnx_logits(path: Path, tokens: Tokens) -> np.ndarray:
    """Logits ``[m c]`` of every row, in order, computed by onnxruntime on the CPU."""
    require_onnx()
    logits: np.ndarray = open_graph(path).logits(tokens)[0]
    return logits


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence the logs and warnings of the exporters."""
    loggers: list[Any] = [logging.getLogger(name) for name in (None, "torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    set_severity = getattr(sys.modules.get("onnxruntime"), "set_default_logger_severity", lambda level: None)
    try:
        set_severity(3)  # it notes that the initial value of an optional input is not a constant
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        set_severity(2)  # its default
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
