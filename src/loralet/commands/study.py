"""``loralet study`` and ``loralet train``: one path, as a single run is a pack of one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

from rich.console import Console

from loralet.commands.threads import set_threads
from loralet.config import Interface, StudyConfig, TrainConfig
from loralet.engine.runs import RunFolder, new_run_folder
from loralet.errors import ConfigError
from loralet.show.progress import ProgressView
from loralet.show.table import results_table, table_console
from loralet.studies.plan import Plan, plan_study, plan_train
from loralet.studies.study import carry_out, prepare


def study(config: StudyConfig, interface: Interface) -> None:
    """Train a grid and print its table."""
    _required(config.data, config.grid.models, "--models")
    _carry_out("study", config, interface, plan_study)


def train(config: TrainConfig, interface: Interface) -> None:
    """Train one run and print its table."""
    _required(config.data, config.model, "--model")
    _carry_out("train", config, interface, plan_train)


def _required(data: str, model: object, flag: str) -> None:
    missing = [] if data else ["no data named: give a file, a folder or a hub id"]
    missing += [] if model else [f"no model named: give {flag} with a folder or a hub id"]
    if missing:
        raise ConfigError.listing(missing)


def _carry_out(kind: str, config: Any, interface: Interface, plan: Callable[[Any], Plan]) -> None:
    set_threads(config.training.threads)
    planned = plan(config)
    path = new_run_folder(config.out, kind)
    with ProgressView(Console(stderr=True), interface.quiet) as view:
        prepared = prepare(planned, view)
        with closing(RunFolder(path, config)) as folder:
            results = carry_out(planned, prepared, folder, view)
    console = table_console()
    console.print(results_table(results))
    console.print(f"run folder: {path}", highlight=False, soft_wrap=True)
