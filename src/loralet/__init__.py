"""loralet: many LoRA adapters on one tiny frozen encoder, trained side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loralet.classifier import TextClassifier

__version__ = "0.1.0"
__all__ = ["TextClassifier", "__version__"]


def __getattr__(name: str) -> object:
    """Public names are imported when they are first asked for, so that ``import loralet`` costs nothing."""
    if name == "TextClassifier":
        from loralet.classifier import TextClassifier

        return TextClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
