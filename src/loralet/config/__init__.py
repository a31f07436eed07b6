"""Every option, once: name, default, help and limits. The command line and the saved TOML are made from these classes.

Standard library and tyro's markers only, so that ``loralet --help`` needs nothing else.
"""

from __future__ import annotations

from loralet.config.commands import (
    AverageConfig,
    EvaluateConfig,
    ExportConfig,
    InspectConfig,
    Interface,
    Planning,
    PredictConfig,
    PushConfig,
    ReportConfig,
    ShowConfig,
)
from loralet.config.data import (
    DataOptions,
)
from loralet.config.distil import (
    DistillConfig,
)
from loralet.config.limits import (
    ALL_LINEAR,
    TARGETS,
    lora_problems,
    resolve_targets,
    seed_problems,
    sets_of_targets,
    student_problems,
    target_problems,
    thread_problems,
)
from loralet.config.presets import (
    PRESETS,
    Preset,
    with_preset,
)
from loralet.config.study import (
    GridOptions,
    StudyConfig,
)
from loralet.config.training import (
    Head,
    LoraOptions,
    Precision,
    Scaling,
    Schedule,
    TrainConfig,
    TrainingOptions,
)

__all__ = [
    "ALL_LINEAR",
    "PRESETS",
    "TARGETS",
    "AverageConfig",
    "DataOptions",
    "DistillConfig",
    "EvaluateConfig",
    "ExportConfig",
    "GridOptions",
    "Head",
    "InspectConfig",
    "Interface",
    "LoraOptions",
    "Planning",
    "Precision",
    "PredictConfig",
    "Preset",
    "PushConfig",
    "ReportConfig",
    "Scaling",
    "Schedule",
    "ShowConfig",
    "StudyConfig",
    "TrainConfig",
    "TrainingOptions",
    "lora_problems",
    "resolve_targets",
    "seed_problems",
    "sets_of_targets",
    "student_problems",
    "target_problems",
    "thread_problems",
    "with_preset",
]
