"""``loralet study`` and ``loralet train``. They share one code path: a single run is a pack of one."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from loralet.commands.report import say_reports, write_reports
from loralet.config import Interface, Planning, ReportConfig, RunFolderOption, StudyConfig, TrainConfig
from loralet.config.toml import options_text
from loralet.events import Event, Finished, Stage
from loralet.hub.bundled import bundled
from loralet.progress.plan import plan_table
from loralet.progress.view import open_view
from loralet.report.results_table import results_table, table_console
from loralet.report.summary import backend_lines
from loralet.runs.environment import environment
from loralet.runs.folder import RunFolder, new_run_folder
from loralet.runtime import using_threads
from loralet.studies.estimate import survey
from loralet.studies.plan import Plan, plan_study, plan_train
from loralet.studies.study import carry_out, prepare


def study(config: StudyConfig, interface: Interface, planning: Planning) -> None:
    """Train a grid, print its results table and, if requested, write its report. A dry run only prints the plan."""
    path = _carry_out(plan_study(config), config, interface, planning.dry_run)
    if path and planning.report:
        written = write_reports(ReportConfig(RunFolderOption(str(path))))
        if not interface.json_events:
            say_reports(written)


def train(config: TrainConfig, interface: Interface) -> None:
    """Train one run and print its results table."""
    _carry_out(plan_train(config), config, interface, dry_run=False)


def _carry_out(plan: Plan, config: StudyConfig | TrainConfig, interface: Interface, dry_run: bool) -> Path | None:
    """Carry out a plan. Returns the run folder, or None after a dry run."""
    path = new_run_folder(config.out, plan.kind)
    heard: list[Event] = []
    with using_threads(plan.compute.threads), open_view(interface.quiet, interface.json_events) as view:

        def listen(event: Event) -> None:
            heard.append(event)
            view(event)

        for name in (plan.source, *dict.fromkeys(run.model for run in plan.runs)):
            if bundled(name):
                listen(Stage(f"{name} is bundled with loralet"))
        prepared = prepare(plan, listen)
        lines = backend_lines(prepared.backends)
        if plan.kind == "study":
            planned = survey(prepared.packs, prepared.sessions, prepared.plan)
            if dry_run:
                view(planned) if interface.json_events else table_console().print(plan_table(planned, lines))
                return None
            listen(planned)
        with closing(RunFolder(path, options_text(config), environment(prepared.backends))) as folder:
            for event in heard:
                folder.record(event)
            results = carry_out(prepared, folder, view)
        view(Finished(str(path)))
    if not interface.json_events:
        console = table_console()
        console.print(results_table(results, console.width, lines))
        console.print(f"run folder: {path}", highlight=False, soft_wrap=True)
    return path
