"""The choice of a backend for prediction. torch is imported only if the native backend cannot be used."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from loralet.adapters.layout import Layout
from loralet.backends.info import wanted_backend
from loralet.backends.native.build import NativeUnavailable
from loralet.backends.native.inference import NativeInference

__all__ = ["NativeInference", "native_inference"]

GPU_DEVICES = ("nvidia[0-9]*", "kfd", "dxg")
"""Device files in /dev of GPUs that torch may support."""


def native_inference(
    arrays: Mapping[str, np.ndarray],
    layout: Layout,
    parameters: Float[np.ndarray, "k n"],
    method: str,
    precision: str = "auto",
    wanted: str = "auto",
) -> NativeInference | None:
    """The forward pass in C, or None if torch is to be used: it is requested, there is a GPU, or the kernels are not
    available or do not support the pack.

    Args:
        arrays: the encoder's frozen tensors in fp32.
        layout, parameters: the pack.
        method: its adapter method.
        precision, wanted: see :func:`loralet.backends.choice.choose_backend`.

    Raises:
        ConfigError: ``LORALET_BACKEND`` is not the name of a backend.
    """
    wanted, _ = wanted_backend(wanted)
    if wanted == "torch" or (wanted == "auto" and may_have_gpu()) or not NativeInference.supports(layout, method):
        return None
    try:
        return NativeInference(arrays, layout, parameters, precision)
    except NativeUnavailable:
        return None


def may_have_gpu() -> bool:
    """Whether torch may find a GPU; it is not imported to find out."""
    if torch := sys.modules.get("torch"):
        return bool(torch.cuda.is_available())
    devices = any(any(Path("/dev").glob(pattern)) for pattern in GPU_DEVICES)
    return devices and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")
