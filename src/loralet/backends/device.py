"""Where and in which arithmetic to compute."""

from __future__ import annotations

import torch

from loralet.models.encoder import Weights


def choose_device() -> torch.device:
    """The first GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The encoder's floating type.

    Args:
        precision: ``fp32``, ``bf16``, or ``auto``: bf16 where the device has bf16 arithmetic (AVX512-BF16, AMX, or a GPU that reports it).
        device: where the encoder runs.
    """
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    has = torch.cpu.get_capabilities()
    return torch.bfloat16 if has.get("avx512_bf16") or has.get("amx_bf16") else torch.float32


def place(weights: Weights, device: torch.device, dtype: torch.dtype) -> Weights:
    """The weights on a device and in a type; the encoder's arithmetic is of that type."""
    return {name: tensor.to(device, dtype) for name, tensor in weights.items()}
