"""Logits of trained runs: in C without torch if the native backend supports them, else with torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

from loralet.adapters.layout import Layout
from loralet.artifacts.layout import layout_of, unfitting
from loralet.backends.inference import NativeInference, native_inference
from loralet.backends.info import BackendInfo
from loralet.config import ComputeOptions
from loralet.data.order import BATCH_TOKENS, flat_rows, sorted_batches
from loralet.data.tokens import Tokens
from loralet.inference.adapters import Opened
from loralet.runtime import apply_threads


class Engine(Protocol):
    """The forward pass of k runs that share an encoder."""

    @property
    def info(self) -> BackendInfo:
        """The compute backend."""
        ...

    def logits(self, tokens: Tokens) -> Float[np.ndarray, "k m c"]:
        """Logits of every row for every run, in the order of the rows."""
        ...


@dataclass(frozen=True)
class NativeEngine:
    """See :class:`Engine`."""

    inference: NativeInference
    adapters: int

    @property
    def info(self) -> BackendInfo:
        return self.inference.info

    def logits(self, tokens: Tokens) -> Float[np.ndarray, "k m c"]:
        out: np.ndarray | None = None
        for rows in sorted_batches(tokens.lengths, max(1, BATCH_TOKENS // self.adapters)):
            logits = self.inference.logits(flat_rows(tokens, rows))
            if out is None:
                out = np.empty((len(logits), len(tokens), logits.shape[2]), np.float32)
            out[:, rows] = logits
        assert out is not None
        return out


def open_engine(members: Sequence[Opened], compute: ComputeOptions) -> Engine:
    """The forward pass of runs that share encoder, kind of head, adapter method and number of labels.

    Raises:
        ConfigError: the requested backend is not available.
        RunError: a run's tensors do not match its configuration.
    """
    apply_threads()  # reading a pickled backbone or an adapter of PEFT imports torch
    artifacts, checkpoint = [member.artifact for member in members], members[0].checkpoint
    shape, adapters, method = layout_of(artifacts, checkpoint.table)
    layout = Layout(shape, adapters, method)
    try:
        parameters = layout.fill_array([member.arrays for member in members])
    except ValueError as error:
        raise unfitting(artifacts, error) from error
    found = native_inference(checkpoint.arrays, layout, parameters, method, compute.precision, compute.backend)
    if found is not None:
        return NativeEngine(found, len(members))
    from loralet.inference.torch_engine import torch_engine

    return torch_engine(members, parameters, compute)
