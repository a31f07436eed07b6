"""Train many LoRA adapters on one small frozen encoder in parallel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loralet.errors import (
    CheckError,
    CheckpointError,
    ConfigError,
    DataError,
    HubError,
    InputError,
    LoraletError,
    RunError,
    TrainingError,
    UserError,
)

if TYPE_CHECKING:
    from loralet.classifier import TextClassifier, load

__version__ = "0.1.0"
__all__ = [
    "CheckError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "HubError",
    "InputError",
    "LoraletError",
    "RunError",
    "TextClassifier",
    "TrainingError",
    "UserError",
    "__version__",
    "load",
]


def __getattr__(name: str) -> object:
    """Import the classifier on first access, so that ``import loralet`` is fast."""
    if name in ("TextClassifier", "load"):
        from loralet import classifier

        return getattr(classifier, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
