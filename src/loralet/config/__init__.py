"""The options: name, default, help and limits. The command line and the saved TOML are generated from these classes.

Imports only the standard library and tyro's markers, so that ``loralet --help`` imports nothing else.
"""

from __future__ import annotations

from loralet.adapters.spec import AdapterSpec
from loralet.config.checking import CheckConfig
from loralet.config.commands import (
    AverageConfig,
    CompareConfig,
    EvaluateConfig,
    ExportConfig,
    InspectConfig,
    Interface,
    ModelsConfig,
    Planning,
    PredictConfig,
    PushConfig,
    ReportConfig,
    ResumeConfig,
    RunFolderOption,
    RunsConfig,
    ShowConfig,
    Upload,
)
from loralet.config.compute import ComputeOptions
from loralet.config.data import ColumnOptions, DataOptions, LabelledRows, TextInput
from loralet.config.distil import DistillConfig
from loralet.config.prediction import PredictionOptions
from loralet.config.presets import PRESETS, Preset, with_preset
from loralet.config.selection import BackboneOptions, ModelOptions, OneRun, SeveralRuns
from loralet.config.study import GridOptions, StudyConfig
from loralet.config.teaching import TeachConfig
from loralet.config.training import Head, HybridChoice, Schedule, TrainConfig, TrainingOptions

__all__ = [
    "PRESETS",
    "AdapterSpec",
    "AverageConfig",
    "BackboneOptions",
    "CheckConfig",
    "ColumnOptions",
    "CompareConfig",
    "ComputeOptions",
    "DataOptions",
    "DistillConfig",
    "EvaluateConfig",
    "ExportConfig",
    "GridOptions",
    "Head",
    "HybridChoice",
    "InspectConfig",
    "Interface",
    "LabelledRows",
    "ModelOptions",
    "ModelsConfig",
    "OneRun",
    "Planning",
    "PredictConfig",
    "PredictionOptions",
    "Preset",
    "PushConfig",
    "ReportConfig",
    "ResumeConfig",
    "RunFolderOption",
    "RunsConfig",
    "Schedule",
    "SeveralRuns",
    "ShowConfig",
    "StudyConfig",
    "TeachConfig",
    "TextInput",
    "TrainConfig",
    "TrainingOptions",
    "Upload",
    "with_preset",
]
