"""The forward pass of trained runs with a backend that needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from loralet.adapters.pack import Pack
from loralet.artifacts.layout import layout_of
from loralet.backends.base import Backend, Logits
from loralet.backends.choice import choose_backend
from loralet.backends.info import BackendInfo
from loralet.config import ComputeOptions
from loralet.data.tokens import Tokens
from loralet.hub.backbone import backbone_of
from loralet.inference.adapters import Opened
from loralet.inference.evaluation import logits_of


@dataclass(frozen=True)
class TorchEngine:
    """See :class:`loralet.inference.engine.Engine`."""

    backend: Backend
    info: BackendInfo
    forward: Logits
    adapters: int

    def logits(self, tokens: Tokens) -> Float[np.ndarray, "k m c"]:
        return logits_of(self.backend, self.forward, tokens, self.adapters)


def torch_engine(
    members: Sequence[Opened], parameters: Float[np.ndarray, "k n"], compute: ComputeOptions
) -> TorchEngine:
    """See :func:`loralet.inference.engine.open_engine`.

    Args:
        members: the runs.
        parameters: their parameters.
        compute: backend and precision.

    Raises:
        ConfigError: the requested backend is not available.
    """
    backbone = backbone_of(members[0].checkpoint)
    shape, adapters, method = layout_of([member.artifact for member in members], backbone.table)
    chosen = choose_backend(backbone.table, compute.precision, compute.backend, [method])
    encoder = chosen.backend.load(backbone.weights, backbone.table, chosen.dtype)
    forward = encoder.program(Pack(shape, adapters, method)).logits(
        torch.from_numpy(parameters).to(chosen.backend.device)
    )
    return TorchEngine(chosen.backend, chosen.info, forward, len(members))
