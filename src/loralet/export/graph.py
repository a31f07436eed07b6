"""ONNX: the merged classifier as one graph, and the same graph in 8-bit integers.

Inputs: ``input_ids`` and ``attention_mask``, int64, ``[batch tokens]``, padded on the right. Output: ``logits``
``[batch classes]``.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loralet.artifacts.merge import Merged
from loralet.data.batches import gather
from loralet.data.order import sorted_batches
from loralet.data.tokens import Tokens
from loralet.errors import ConfigError
from loralet.models.forward import Padded, encode, frozen
from loralet.models.heads import POOLING_ACTIVATIONS, first_token, mean_over_tokens
from loralet.runtime import prevent_telemetry

OPSET = 20
"""The newest operator set that the exporter writes without conversion; it introduced Gelu."""
BATCH_TOKENS = 8192


class Classifier(nn.Module):
    """The forward pass with the weights as buffers, for export with any batch size and length."""

    def __init__(self, merged: Merged) -> None:
        super().__init__()
        self.table, self.mean, self.pooling = merged.backbone.table, merged.mean, merged.artifact.pooling
        self.names = {name: name.replace(".", "__") for name in (*merged.weights, *merged.classifier)}
        for name, tensor in (merged.weights | merged.classifier).items():
            self.register_buffer(self.names[name], tensor.float())

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits ``[b c]`` of ids ``[b t]`` with a mask ``[b t]``: ones, then zeros."""
        weights = {name: self.get_buffer(buffer) for name, buffer in self.names.items()}
        batch = Padded(input_ids, attention_mask.sum(1))
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
    """Write the classifier as an ONNX graph with dynamic batch size and length."""
    ids = torch.arange(10).view(2, 5) % merged.backbone.table.vocabulary
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    batch, tokens = (
        torch.export.Dim("batch", min=1),
        torch.export.Dim("tokens", min=2, max=merged.backbone.table.longest),
    )
    with _quietly():
        program = torch.onnx.export(
            Classifier(merged).eval(),
            (ids, mask),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": {0: batch, 1: tokens}, "attention_mask": {0: batch, 1: tokens}},
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        assert program is not None
        program.save(path)


def write_int8(source: Path, path: Path) -> None:
    """Write the graph with weights and embeddings in 8-bit integers (dynamic quantisation)."""
    require_onnx()
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_suffix(".prepared.onnx")
    with _quietly():
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_dynamic(str(prepared), str(path), weight_type=QuantType.QInt8, per_channel=True)
    prepared.unlink()


def onnx_logits(path: Path, tokens: Tokens) -> np.ndarray:
    """Logits ``[m c]`` of every row, in order, computed by onnxruntime on the CPU."""
    require_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    out: dict[int, np.ndarray] = {}
    for rows in sorted_batches(tokens.lengths, BATCH_TOKENS):
        batch = gather(tokens, rows).padded()
        mask = (torch.arange(batch.ids.shape[1]) < batch.lengths[:, None]).long()
        (logits,) = session.run(["logits"], {"input_ids": batch.ids.numpy(), "attention_mask": mask.numpy()})
        out |= dict(zip(rows.tolist(), logits, strict=True))
    return np.stack([out[i] for i in range(len(tokens))])


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence the logs and warnings of the exporters."""
    loggers: list[Any] = [logging.getLogger(name) for name in (None, "torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
