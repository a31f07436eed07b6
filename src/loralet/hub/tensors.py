"""Read the tensors of a weight file as numpy arrays. torch is imported only for pickled files."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open

if TYPE_CHECKING:
    from torch import Tensor

TYPES: dict[str, np.dtype] = {
    **{f"F{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    "BOOL": np.dtype(np.bool_),
}
"""Types of safetensors files that are read, without bf16. Tensors of other types, such as fp8, are skipped."""
LFS = b"version https://git-lfs.github.com/spec/"
"""Beginning of a Git LFS pointer."""
WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile add to the names of a state dict."""
NESTED = "state_dict"
"""The key under which trainers save a state dict with other values."""


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file or a pickled state dict; bf16 is converted to fp32.

    Wrappers of state dicts are removed: a mapping under ``state_dict``, and the prefixes :data:`WRAPPERS`.

    Raises:
        ValueError: the file cannot be read as weights; the message gives the reason.
        OSError: the file cannot be opened.
    """
    if advice := lfs_advice(path):
        raise ValueError(advice)
    try:
        found = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)
    except SafetensorError as error:
        raise ValueError(f"{_first_line(error)}; the download may be incomplete") from error
    return {_unwrapped(name): array for name, array in found.items()}


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _unwrapped(name: str) -> str:
    """The name of a tensor without the prefixes of torch's wrappers, which may be nested."""
    while name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    return name


def lfs_advice(path: Path) -> str:
    """What to do if a file is the placeholder that Git LFS leaves for a file that was not downloaded; else empty."""
    with path.open("rb") as file:
        found = file.read(len(LFS)) == LFS
    return "it is a Git LFS pointer instead of the file; run `git lfs pull`, or download the file" if found else ""


def number_problems(arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Messages about tensors that are not floating-point numbers, or that have values that are not finite."""
    for name, array in arrays.items():
        if not np.issubdtype(array.dtype, np.floating):
            yield f"{name} has the type {array.dtype}; floating-point numbers are expected"
        elif broken := _not_finite(array):
            yield f"{name} has {broken} of {array.size} values that are not finite (NaN or infinity)"


def _not_finite(array: np.ndarray) -> int:
    """Number of values that are not finite."""
    finite = np.isfinite(array)
    return 0 if finite.all() else array.size - int(finite.sum())


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

    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's message advises to execute the pickle.
        raise ValueError(
            "the download may be incomplete, or the file contains pickled code, which is never executed; "
            "save its tensors as model.safetensors where you trust the file"
        ) from error
    except Exception as error:  # the damage decides which
        if isinstance(error, MemoryError) or getattr(error, "filename", None):
            raise
        raise ValueError(f"{_first_line(error)}; the download may be incomplete") from error
    if isinstance(tensors, Mapping) and isinstance(tensors.get(NESTED), Mapping):
        tensors = tensors[NESTED]
    if not isinstance(tensors, Mapping):
        raise ValueError(f"contains a {type(tensors).__name__}, not a mapping of names to tensors")
    found = {str(name): tensor for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)}
    size = path.stat().st_size
    return {name: _plain(name, tensor, size) for name, tensor in found.items()}


def _plain(name: str, tensor: Tensor, size: int) -> np.ndarray:
    """A dense tensor of the CPU as an array.

    Args:
        name: its name, for messages.
        tensor: the tensor.
        size: bytes of its file. A tensor with more values is a view that repeats them, of any size.

    Raises:
        ValueError: another kind of tensor.
    """
    import torch

    if tensor.device.type == "meta" or tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        kind = "without values" if tensor.device.type == "meta" else f"{tensor.dtype} and {tensor.layout}"
        raise ValueError(f"{name} is a tensor {kind}; dense tensors of floating-point numbers are expected")
    if tensor.numel() > size:
        raise ValueError(f"{name} has shape {list(tensor.shape)}, more values than the file has bytes")
    plain: np.ndarray = (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
    return plain
