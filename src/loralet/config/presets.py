"""Named grids. A preset replaces defaults; options given by the user take precedence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from loralet.config.study import StudyConfig

Preset = Literal["", "base-vs-lora", "rank-alpha"]

PRESETS: dict[str, dict[str, Any]] = {
    "base-vs-lora": {
        "models": ("google/bert_uncased_L-2_H-128_A-2", "prajjwal1/bert-tiny"),
        "ranks": (16,),
        "alphas": (64.0,),
        "dropouts": (0.1,),
    },
    "rank-alpha": {"ranks": (4, 16, 32), "alphas": (64.0, 256.0, 512.0), "dropouts": (0.0,)},
}
"""Grid values by preset name."""


def with_preset(config: StudyConfig, name: str) -> StudyConfig:
    """Apply a preset to the options. An unknown preset changes nothing; the command line reports it."""
    return replace(config, grid=replace(config.grid, **PRESETS.get(name, {})))
