"""Read the tensors of a weight file as numpy arrays. torch is imported only for pickled files."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open

TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "U8": np.uint8}
"""Types of safetensors files that are read, without bf16."""


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file or a pickled state dict; bf16 is converted to fp32.

    Raises:
        ValueError: the file cannot be read as weights; the message gives the reason.
        OSError: the file cannot be opened.
    """
    try:
        return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    with safe_open(path, framework="numpy") as file:
        types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a mapping
        if set(types.values()) <= TYPES.keys():
            return {name: file.get_tensor(name) for name in types}
    # numpy has no bf16, so the library does not convert it.
    found = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    return {name: _array(name, **tensor) for name, tensor in found}


def _array(name: str, dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    if dtype == "BF16":
        bits = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(shape)
    if dtype not in TYPES:
        raise ValueError(f"{name} has the type {dtype}, which is not supported")
    return np.frombuffer(data, TYPES[dtype]).reshape(shape)


def _read_pickled(path: Path) -> dict[str, np.ndarray]:
    import torch

    tensors = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(tensors, Mapping):
        raise TypeError(f"contains a {type(tensors).__name__}, not a mapping of names to tensors")
    found = {str(name): tensor for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)}
    return {name: _plain(tensor) for name, tensor in found.items()}


def _plain(tensor: object) -> np.ndarray:
    import torch

    assert isinstance(tensor, torch.Tensor)
    plain: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
    return plain
