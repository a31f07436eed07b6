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
HUB_CACHES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
"""Variables with which a user sets the cache of huggingface_hub."""


def cache_folder() -> Path:
    """``LORALET_CACHE`` if set, else ``loralet`` under ``XDG_CACHE_HOME`` (default ``~/.cache``)."""
    if own := os.environ.get("LORALET_CACHE"):
        return Path(own)
    return _user_caches() / "loralet"


def _user_caches() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache")


def writable_cache_folder() -> Path:
    """The cache folder, or, if it cannot be written, a temporary one until this process ends."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        say_unusable(folder, error)
        return _temporary()


def say_unusable(folder: Path, error: OSError) -> None:
    """Say once in this process that the cache cannot be used.

    Args:
        folder: the cache folder, or a folder in it.
        error: what failed.
    """
    root = cache_folder()
    _say_once(root if folder.is_relative_to(root) else folder, error.strerror or str(error))


@cache
def _say_once(folder: Path, reason: str) -> None:
    nowhere = folder.is_relative_to(os.devnull)
    what = "this user has no home folder for the cache" if nowhere else f"the cache {folder} cannot be used ({reason})"
    LOGGER.warning("%s, which costs time at every start; set LORALET_CACHE to a folder that can be written", what)


def provide_hub_cache() -> None:
    """Give huggingface_hub a temporary cache if it has none and cannot make its own one. Call it before its import."""
    if any(os.environ.get(name) for name in HUB_CACHES):
        return
    try:
        _user_caches().joinpath("huggingface").mkdir(parents=True, exist_ok=True)
    except OSError:
        os.environ["HF_HOME"] = str(_temporary() / "huggingface")


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
