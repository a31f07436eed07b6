"""``loralet study`` and ``loralet train``: one path, as a single run is a pack of one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

from rich.console import Console

from loralet.commands.threads import set_threads
from loralet.config import Interface, StudyConfig, TrainConfig
from loralet.engine.runs import RunFolder, new_run_folder
from loralet.events import Stage
from loralet.show.progress import ProgressView
from loralet.show.table import results_table, table_console
from loralet.store.bundled import bundled
from loralet.studies.plan import Plan, plan_study, plan_train
from loralet.studies.study import carry_out, prepare


def study(config: StudyConfig, interface: Interface) -> None:
    """Train a grid and print its table."""
    _carry_out("study", config, interface, plan_study)


def train(config: TrainConfig, interface: Interface) -> None:
    """Train one run and print its table."""
    _carry_out("train", config, interface, plan_train)


def _carry_out(kind: str, config: Any, interface: Interface, plan: Callable[[Any], Plan]) -> None:
    set_threads(config.training.threads)
    planned = plan(config)
    path = new_run_folder(config.out, kind)
    with ProgressView(Console(stderr=True), interface.quiet) as view:
        for name in (planned.source, *dict.fromkeys(run.model for run in planned.runs)):
            if bundled(name):
                view(Stage(f"{name} comes with loralet"))
        prepared = prepare(planned, view)
        with closing(RunFolder(path, config)) as folder:
            results = carry_out(planned, prepared, folder, view)
    console = table_console()
    console.print(results_table(results))
    console.print(f"run folder: {path}", highlight=False, soft_wrap=True)
