"""``loralet resume``."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from loralet.commands.distill import distill
from loralet.commands.study import study, train
from loralet.commands.teach import teach
from loralet.config import Interface, Planning, ResumeConfig, StudyConfig, TeachConfig
from loralet.config.toml import read_options
from loralet.distil.folder import is_complete, options_of, remove_checkpoint
from loralet.errors import ConfigError, DataError, HubError, RunError
from loralet.runs.checkpoints import FOLDER, Checkpoints
from loralet.runs.results import is_finished, read_results
from loralet.runs.resume import read_origin, require_run_files
from loralet.runs.sources import KINDS, RunOptions


def resume(config: ResumeConfig) -> None:
    """Continue an interrupted study, training or distillation with the options that it began with.

    Raises:
        RunError: not a run folder, or it has no checkpoints.
    """
    folder, interface = Path(config.run.folder), Interface(quiet=config.quiet, json_events=config.json_events)
    require_run_files(folder)
    student = options_of(folder) if not (folder / FOLDER).exists() else None
    if student is not None and not is_complete(folder):
        distill(replace(student, out=str(folder)), interface)
        return
    if student is not None or is_finished(folder):  # its process may have ended before it could delete these
        if student is not None:
            remove_checkpoint(folder)
        else:
            shutil.rmtree(folder / FOLDER, ignore_errors=True)
        print(f"{folder} is finished; there is nothing to resume")
        return
    checkpoints = Checkpoints(folder / FOLDER)
    if not checkpoints.present():
        read_results(folder)  # the error for a folder that is no run folder, or is damaged
        raise RunError(f"{folder} has no checkpoints; train again")
    try:
        origin = read_origin(checkpoints)
        options = origin.options() if origin else _options(folder)
    except RunError:
        origin, options = None, _options(folder)
    options = replace(options, out=str(folder))
    try:
        if isinstance(options, StudyConfig):
            study(options, interface, Planning(report=origin is not None and origin.report))
        elif isinstance(options, TeachConfig):
            teach(options, interface)
        else:
            train(options, interface)
    except (DataError, HubError) as error:
        if origin is None or Path(origin.directory) == Path.cwd():
            raise
        raise type(error)(f"{error} (the run was started in the folder {origin.directory})") from error


def _options(folder: Path) -> RunOptions:
    """The options in config.toml, if the checkpoint that has them too is missing or damaged.

    Raises:
        RunError: config.toml has no options of a study or a training.
    """
    path = folder / "config.toml"
    for kind in KINDS.values():
        with suppress(ConfigError):
            return read_options(path, kind)
    if not path.exists():
        raise RunError(f"{folder}: the run was interrupted before its first step; give its command again")
    raise RunError(f"{path}: damaged, and so is the checkpoint: give the command again, with --out {folder}")
