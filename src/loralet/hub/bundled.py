"""Files shipped with loralet, for use without a network: a tiny and a small backbone, and a small news data set."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "bundled"
MODEL, SMALL, DATA = "tiny-en", "small-en", "news-mini"


def bundled(name: str) -> Path | None:
    """The folder of a bundled model or data set. None for another name, or if a file or folder of that name exists."""
    return FOLDER / name if name in (MODEL, SMALL, DATA) and not Path(name).exists() else None
