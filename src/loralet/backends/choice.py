"""Choice of the backend and the arithmetic type of a session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from loralet.backends.base import Backend
from loralet.backends.info import BackendInfo, wanted_backend
from loralet.backends.native.backend import NativeBackend, NativeUnavailable
from loralet.backends.native.support import unsupported
from loralet.backends.torch import TorchBackend
from loralet.errors import ConfigError
from loralet.models.table import EncoderTable

SLOWDOWN = "training takes 2 to 3 times as long"
"""One run, torch backend versus native backend, by instruction set (benchmarks/matrix.py; dev/LOG.md). Only for
training that native would compute."""


@dataclass(frozen=True)
class Chosen:
    """A backend for one encoder.

    Args:
        backend: the backend.
        dtype: type of the encoder's arithmetic.
        info: the backend's entry in the run folder.
    """

    backend: Backend
    dtype: torch.dtype
    info: BackendInfo

    @property
    def announcement(self) -> str:
        """One line for the user."""
        return f"backend: {self.info}"


def choose_backend(
    table: EncoderTable,
    precision: str = "auto",
    wanted: str = "auto",
    methods: Sequence[str] = ("lora",),
    training: bool = False,
) -> Chosen:
    """Choose the backend of a session.

    Args:
        table: the encoder's layer table.
        precision: ``fp32``, ``bf16``, or ``auto``: the faster of the two on the backend.
        wanted: ``native``, ``torch``, or ``auto``: the environment variable ``LORALET_BACKEND`` if set, else torch if
            there is a GPU, else native if it supports the session, else torch.
        methods: adapter methods that the session needs.
        training: whether the session trains adapters; the reason then also says how much slower torch is.

    Raises:
        ConfigError: ``native`` is requested but not available, or the variable is not the name of a backend.
    """
    wanted, asked = wanted_backend(wanted)
    plain = TorchBackend()
    if wanted == "torch" or (wanted == "auto" and plain.device.type != "cpu"):
        return _chosen(plain, precision, "")
    try:
        native = NativeBackend()
    except NativeUnavailable as error:
        if wanted == "native":
            raise ConfigError(f"{asked}: {error}") from error
        slower = training and not any(unsupported(table, method) for method in methods)
        return _chosen(plain, precision, f"{error}; {SLOWDOWN}" if slower else str(error))
    dtype = choose_dtype(precision, native)
    reasons = (native.supports(table, dtype, method) for method in methods)
    reason = next(filter(None, reasons), None)
    if reason is None:
        return Chosen(native, dtype, native.info(dtype))
    if wanted == "native":
        raise ConfigError(f"{asked}: the native backend cannot be used: {reason}")
    return _chosen(plain, precision, f"the native backend cannot be used: {reason}")


def _chosen(backend: Backend, precision: str, reason: str) -> Chosen:
    dtype = choose_dtype(precision, backend)
    return Chosen(backend, dtype, backend.info(dtype, reason))


def choose_dtype(precision: str, backend: Backend) -> torch.dtype:
    """The type of the encoder's arithmetic.

    Args:
        precision: ``fp32``, ``bf16``, or ``auto``: the faster of the two.
        backend: the backend that computes the encoder.
    """
    if precision == "auto":
        return backend.fastest_dtype
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
