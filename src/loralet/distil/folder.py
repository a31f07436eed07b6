"""The student's folder: claim it for a distillation, a new one or an interrupted one that is then continued."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loralet.atomic import remove_temporaries
from loralet.config import DistillConfig
from loralet.config.toml import read_options
from loralet.distil.checkpoint import NAME as CHECKPOINT
from loralet.errors import ConfigError, RunError
from loralet.leftovers import names_of
from loralet.runs.folder import new_run_folder
from loralet.runs.lock import ON_WINDOWS, locked

LOCK = "lock"
"""Held by the process that distils; deleted with the checkpoint."""
OPTIONS = "config.toml"
FREE = ("compute", "out", "checkpoint_every")
"""Options that may change when a distillation is continued. Of ``compute``, the precision may not change."""


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a complete student; its config.json is written last."""
    return (folder / "config.json").exists()


@contextmanager
def claim_student(config: DistillConfig) -> Iterator[Path]:
    """Claim the folder for the student inside the block: a new one, or that of an interrupted distillation.

    When the block ends, a folder into which no options were written is deleted again.

    Raises:
        RunError: another process distils into it, its student is complete, it holds other files, or a parent is a file.
        ConfigError: the distillation was started with other options; the message lists them.
    """
    folder = Path(config.out)
    _require_claimable(config)
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / LOCK
    try:
        with locked(lock, folder):
            _require_claimable(config)  # it may have been completed while this process looked at it
            if (folder / OPTIONS).exists():
                remove_temporaries(folder)
            try:
                yield folder
            finally:
                if is_over(folder):
                    delete_lock(folder)
    finally:
        if ON_WINDOWS and is_over(folder):
            delete_lock(folder)
        for path in created:
            if path.exists() and not any(path.iterdir()):
                path.rmdir()


def is_over(folder: Path) -> bool:
    """Whether there is nothing to continue: the student is complete, or nothing was written."""
    return is_complete(folder) or not (folder / OPTIONS).exists()


def delete_lock(folder: Path) -> None:
    """Delete the lock, unless it is open where open files cannot be deleted."""
    with suppress(OSError):
        (folder / LOCK).unlink()


def _require_claimable(config: DistillConfig) -> None:
    folder = Path(config.out)
    before = options_of(folder)
    if before is None:
        begun = names_of(folder / OPTIONS)  # the first file; its process was killed before it was complete
        if not (folder.is_dir() and all(path.name == LOCK or begun.fullmatch(path.name) for path in folder.iterdir())):
            new_run_folder(config.out, "student")
    elif is_complete(folder):
        raise RunError(f"{folder} exists and is not empty: its student is complete; give another folder with --out")
    else:
        _require_same_options(folder, before, config)


def options_of(folder: Path) -> DistillConfig | None:
    """The options of the distillation that wrote a folder; None if none did."""
    try:
        return read_options(folder / OPTIONS, DistillConfig)
    except ConfigError:
        return None


def _require_same_options(folder: Path, before: DistillConfig, config: DistillConfig) -> None:
    names = (option.name for option in dataclasses.fields(config) if option.name not in FREE)
    changed = [
        f"{name} is {getattr(config, name)!r}, it was {getattr(before, name)!r}"
        for name in names
        if getattr(config, name) != getattr(before, name)
    ]
    if config.compute.precision != before.compute.precision:
        changed.append(f"precision is {config.compute.precision!r}, it was {before.compute.precision!r}")
    if changed:
        raise ConfigError.listing(
            [f"{change}: options cannot change on resume" for change in changed],
            f"{folder} holds an unfinished distillation; `loralet resume {folder}` continues it with its own options, "
            "and --out with another folder starts anew",
        )


def remove_checkpoint(folder: Path) -> None:
    """Delete what only an unfinished distillation needs."""
    (folder / CHECKPOINT).unlink(missing_ok=True)
    delete_lock(folder)
