"""The CPU's name, vendor and features, read without torch: the lowest supported release, 2.10, does not report them."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from pathlib import Path

ON_X86 = platform.machine().lower() in ("x86_64", "amd64")
DESCRIPTION = Path("/proc/cpuinfo")
"""Description of the CPU on Linux."""
AMD = "AuthenticAMD"
"""The name by which AMD's CPUs identify their vendor."""


def cpu_model(described: Path = DESCRIPTION) -> str:
    """Name of the CPU. On Linux, with family and model numbers, as virtual machines often name only the product line.

    Args:
        described: path of the CPU description on Linux.
    """
    facts = _facts(described)
    if "model name" not in facts:
        return platform.processor() or platform.machine()
    numbers = [f"{name} {facts[key]}" for name, key in (("family", "cpu family"), ("model", "model")) if key in facts]
    return facts["model name"] + (f" ({', '.join(numbers)})" if numbers else "")


def cpu_vendor(described: Path = DESCRIPTION) -> str:
    """The name by which the CPU identifies its vendor, such as :data:`AMD`; empty if it is not known.

    Args:
        described: path of the CPU description on Linux.
    """
    return _facts(described).get("vendor_id", "")


def cpu_features(described: Path = DESCRIPTION) -> frozenset[str]:
    """Instruction set extensions that the CPU and the operating system support, by the names of GCC's ``-m`` options.

    Examples: ``avx2``, ``fma``, ``avx512bw``, ``avx512bf16``, ``amx-bf16``. On other systems than Linux, torch reports
    them; the result is empty there if torch is not imported or its release does not report them.

    Args:
        described: path of the CPU description on Linux.
    """
    facts = _facts(described)
    names = facts.get("flags", facts.get("Features", "")).split()
    if not facts and "torch" in sys.modules:
        report = getattr(sys.modules["torch"].cpu, "get_capabilities", dict)
        names = [name for name, present in report().items() if present is True]
    return frozenset(name.replace("avx512_", "avx512").replace("amx_", "amx-").replace("fma3", "fma") for name in names)


def _facts(described: Path) -> Mapping[str, str]:
    """The values of the first core; empty on other systems than Linux."""
    try:
        lines = described.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    facts: dict[str, str] = {}
    for name, _, value in (line.partition(":") for line in lines):
        facts.setdefault(name.strip(), value.strip())
    return facts
