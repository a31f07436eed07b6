"""The cache folder: token ids, teacher states, compiled kernels."""

from __future__ import annotations

import atexit
import logging
import os
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from loralet.leftovers import temporary_folder

LOGGER = logging.getLogger("loralet")


def cache_folder() -> Path:
    """``LORALET_CACHE`` if set, else ``loralet`` under ``XDG_CACHE_HOME`` (default ``~/.cache``)."""
    if own := os.environ.get("LORALET_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "loralet"


def writable_cache_folder() -> Path:
    """The cache folder, or, if it cannot be written, a temporary one until this process ends."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        LOGGER.warning("the cache %s cannot be written (%s); a temporary folder is used", folder, error.strerror)
        return _temporary()


@cache
def _temporary() -> Path:
    stack = ExitStack()
    folder = stack.enter_context(temporary_folder())
    atexit.register(stack.close)
    return folder


def _home() -> Path:
    """The home folder, or one that cannot exist if the user has none: then nothing is cached."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(os.devnull)
