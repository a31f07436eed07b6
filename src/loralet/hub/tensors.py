"""Read the tensors of a weight file as numpy arrays. torch is imported only for pickled files."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open

TYPES: dict[str, np.dtype] = {
    **{f"F{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    "BOOL": np.dtype(np.bool_),
}
"""Types of safetensors files that are read, without bf16. Tensors of other types, such as fp8, are skipped."""
LFS = b"version https://git-lfs.github.com/spec/"
"""Beginning of a Git LFS pointer."""


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file or a pickled state dict; bf16 is converted to fp32.

    Raises:
        ValueError: the file cannot be read as weights; the message gives the reason.
        OSError: the file cannot be opened.
    """
    if is_lfs_pointer(path):
        raise ValueError("it is a Git LFS pointer instead of the file; run `git lfs pull`, or download the file itself")
    try:
        return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is the placeholder that Git LFS leaves if a file was not downloaded."""
    with path.open("rb") as file:
        return file.read(len(LFS)) == LFS


def number_problems(arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Messages about tensors that are not floating-point numbers, or that have values that are not finite."""
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.floating):
            yield f"{name} has the type {array.dtype}; floating-point numbers are expected"
        elif broken := array.size - int(np.isfinite(array).sum()):
            yield f"{name} has {broken} of {array.size} values that are not finite (NaN or infinity)"


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    with safe_open(path, framework="numpy") as file:
        types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a mapping
        if set(types.values()) <= TYPES.keys():
            return {name: file.get_tensor(name) for name in types}
    # numpy has no bf16, so the library does not convert it.
    found = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    return {name: _array(**tensor) for name, tensor in found if tensor["dtype"] in (*TYPES, "BF16")}


def _array(dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    if dtype == "BF16":
        bits = np.frombuffer(data, np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(shape)
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
    plain: np.ndarray = (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
    return plain
