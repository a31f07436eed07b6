"""Describes the machine of a benchmark."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from loralet.backends.choice import choose_dtype
from loralet.backends.native.backend import NativeBackend, NativeUnavailable
from loralet.backends.torch import DTYPES, TorchBackend
from loralet.cpu import cpu_model

PACKAGES = ("loralet", "torch", "transformers", "peft", "scikit-learn", "tokenizers", "onnxruntime")


def describe_machine() -> dict[str, object]:
    """CPU, precision, versions and commit.

    ``instructions`` is the instruction set of the native backend, None if it is not available. ``dtype`` is the choice
    of ``--precision auto`` for an encoder that the native backend supports.
    """
    native, plain = native_backend(), TorchBackend()
    return {
        "cpu": cpu_model(),
        "instructions": native_instructions(),
        "dtype": DTYPES[choose_dtype("auto", native if native and plain.device.type == "cpu" else plain)],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def native_backend() -> NativeBackend | None:
    """The native backend; None if it is not available."""
    try:
        return NativeBackend()
    except NativeUnavailable:
        return None


def native_instructions() -> str | None:
    """The instruction set of the native backend; None if it is not available."""
    native = native_backend()
    return native.info(torch.float32).instructions if native else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
