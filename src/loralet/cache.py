"""The cache folder: token ids, teacher states, compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``LORALET_CACHE`` if set, else ``loralet`` under ``XDG_CACHE_HOME`` (default ``~/.cache``)."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "loralet"
    return Path(os.environ.get("LORALET_CACHE") or default)
