"""The instruction sets of the speed matrix, and the environment variables that limit each library to one of them."""

from __future__ import annotations

from collections.abc import Mapping

from loralet.backends.native.build import FORCED, available_instructions

PORTABLE = "portable"
LIMITS: Mapping[str, Mapping[str, str]] = {
    "amx": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX", "ATEN_CPU_CAPABILITY": "avx512"},
    "avx512-bf16": {
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16",
        "ATEN_CPU_CAPABILITY": "avx512",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512_E3",
    },
    "avx512": {
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "ATEN_CPU_CAPABILITY": "avx512",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
    },
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
}
"""Variables of oneDNN (bf16 products of torch), ATen (its other kernels) and oneMKL (its fp32 products).

oneMKL obeys its variable on Intel CPUs only; on others it uses AVX2. ONNX Runtime has no such variable: its kernels
follow CPUID. OpenVINO obeys oneDNN's variable only in part: its own kernels have a separate variable,
``OV_CPU_MAX_ISA``, which its releases up to 2026.4 ignore.
"""
WITH_BF16 = ("amx", "avx512-bf16")
"""Instruction sets with bf16 arithmetic."""
WITHOUT_BF16_KERNELS = ("avx2", PORTABLE)
"""Instruction sets for which oneDNN has no bf16 kernels: products of torch in bf16 then reach about 2 GFLOP/s."""


def measured_instructions() -> list[str]:
    """The instruction sets of this machine, best first, without ``portable`` if there is another."""
    available = available_instructions()
    return [name for name in available if name != PORTABLE] or available


def has_bf16(forced: str | None) -> bool:
    """Whether a forced instruction set has bf16 arithmetic; true if none is forced."""
    return not forced or forced in WITH_BF16


def limits(name: str) -> dict[str, str]:
    """Environment variables that limit loralet and torch to an instruction set."""
    return {FORCED: name, **LIMITS.get(name, {})}
