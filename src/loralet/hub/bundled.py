"""What comes with loralet, for a machine without a network: a tiny base and a small news set, by plain names."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "bundled"
MODEL, DATA = "news-tiny", "news-mini"


def bundled(name: str) -> Path | None:
    """The folder of a bundled model or data set; None for another name, or where a file or folder of the user's has that name."""
    return FOLDER / name if name in (MODEL, DATA) and not Path(name).exists() else None
