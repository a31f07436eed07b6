"""Where things made once are kept: token ids, compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``LORALET_CACHE``, or ``loralet`` under ``XDG_CACHE_HOME`` (``~/.cache``)."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "loralet"
    return Path(os.environ.get("LORALET_CACHE") or default)
