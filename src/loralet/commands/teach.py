"""``loralet teach``: train the teachers that are not trained yet, then the student on their probabilities."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from loralet.artifacts.reading import is_peft_folder
from loralet.commands.study import run_plan
from loralet.config import Interface, TeachConfig, TrainConfig
from loralet.errors import ConfigError
from loralet.inference.adapters import find_adapter, require_different
from loralet.interrupts import Interrupted
from loralet.runs.results import NAME as RESULTS
from loralet.runs.results import is_finished
from loralet.runs.resume import TEACHERS, by_date, changed_options, claimable
from loralet.runs.sources import read_config
from loralet.studies.plan import plan_teach, plan_train


def teach(config: TeachConfig, interface: Interface) -> None:
    """Train a small classifier on its labels and on the probabilities of teachers, and print its results table.

    A teacher that is an encoder is first fine-tuned on the same data, in its own run folder within that of the student.

    Raises:
        ConfigError: the teachers in the folder of the student were trained with other options.
        RunError: a teacher is not a trained classifier, or it has other labels than the data.
    """
    if config.out:
        _teach(config, interface)
        return
    folder = by_date(Path("runs"), "teach")
    try:
        _teach(replace(config, out=str(folder)), interface)
    finally:
        with suppress(OSError):
            folder.rmdir()  # if nothing was written


def _teach(config: TeachConfig, interface: Interface) -> None:
    claimable(Path(config.out))
    names = [name for name in config.teacher if not _is_classifier(name)]
    trained = {name: _trained(config, name, i, interface) for i, name in enumerate(names, 1)}
    teachers = [find_adapter(trained.get(name, Path(name))) for name in config.teacher]
    require_different(teachers)
    run_plan(plan_teach(config, teachers), config, interface, report=False)


def _is_classifier(name: str) -> bool:
    """Whether a teacher is a folder of trained runs."""
    folder = Path(name)
    return (folder / RESULTS).exists() or (folder / "loralet.json").exists() or is_peft_folder(folder)


def _trained(config: TeachConfig, name: str, number: int, interface: Interface) -> Path:
    """The run folder of a teacher, fine-tuned as ``loralet train`` does it, with the data options of the student."""
    folder = Path(config.out) / TEACHERS / f"{number}-{Path(name).name}"
    own = TrainConfig(config.data, name, str(folder), config.seed, reading=config.reading, compute=config.compute)
    own = replace(own, folds=0, checkpoint_every=config.checkpoint_every, training=replace(own.training, hybrid="off"))
    if is_finished(folder):
        changed = changed_options(read_config(folder, "train"), own)
        if changed:
            raise ConfigError.listing(changed, f"the teacher in {folder} was trained with others; give another --out")
        return folder
    try:
        run_plan(plan_train(own), own, interface, report=False)
    except Interrupted as stopped:
        text = f"interrupted; to go on, give the same command again with --out {shlex.quote(config.out)}"
        raise Interrupted(stopped.number, text) from None
    return folder
