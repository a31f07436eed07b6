"""``loralet study`` and ``loralet train``. They share one code path: a single run is a pack of one."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from loralet.commands.report import say_reports, write_reports
from loralet.config import Interface, Planning, ReportConfig, RunFolderOption, StudyConfig, TrainConfig
from loralet.events import Event, Finished, Stage
from loralet.hub.bundled import bundled
from loralet.interrupts import Interrupted, Interrupts
from loralet.progress.plan import plan_table
from loralet.progress.view import open_view
from loralet.report.results_table import results_table, table_console
from loralet.report.run_tests import tied_runs
from loralet.report.summary import backend_lines
from loralet.runs.environment import continued, environment
from loralet.runs.folder import RunFolder
from loralet.runs.results import Results
from loralet.runs.resume import (
    Claim,
    Origin,
    claim,
    claimable,
    require_same_inputs,
    require_same_options,
    write_origin,
)
from loralet.runs.sources import RunOptions
from loralet.runtime import using_threads
from loralet.studies.estimate import survey
from loralet.studies.plan import Plan, plan_study, plan_train
from loralet.studies.saving import StudySaver
from loralet.studies.study import Prepared, carry_out, prepare

Listen = Callable[[Event], None]


def study(config: StudyConfig, interface: Interface, planning: Planning) -> None:
    """Train a grid, print its results table and, if requested, write its report. A dry run only prints the plan."""
    plan = plan_study(config)
    if planning.dry_run:
        _print_plan(plan, config.out, interface)
        return
    path = run_plan(plan, config, interface, planning.report)
    if planning.report:
        written = write_reports(ReportConfig(RunFolderOption(str(path))))
        if not interface.json_events:
            say_reports(written)


def train(config: TrainConfig, interface: Interface) -> None:
    """Train one run and print its results table."""
    run_plan(plan_train(config), config, interface, report=False)


def _print_plan(plan: Plan, out: str, interface: Interface) -> None:
    if out:
        claimable(Path(out))
    with using_threads(plan.compute.threads), open_view(interface.quiet, interface.json_events) as view:
        prepared = _prepared(plan, view)
        planned = survey(prepared.packs, prepared.sessions, prepared.plan)
        if interface.json_events:
            view(planned)
        else:
            table_console().print(plan_table(planned, backend_lines(prepared.backends)))


def _prepared(plan: Plan, listen: Listen) -> Prepared:
    for name in (plan.source, *dict.fromkeys(run.model for run in plan.runs)):
        if bundled(name):
            listen(Stage(f"{name} is bundled with loralet"))
    return prepare(plan, listen)


def run_plan(plan: Plan, config: RunOptions, interface: Interface, report: bool) -> Path:
    """Carry out a plan in a new run folder, or continue it in that of an interrupted run. Returns the run folder."""
    with claim(config.out, plan.kind) as claimed:
        if claimed.origin:
            require_same_options(claimed.folder, claimed.origin, plan.kind, config)
        with (
            using_threads(plan.compute.threads),
            open_view(interface.quiet, interface.json_events) as view,
            Interrupts() as interrupts,
        ):
            try:
                results, backends = _train(plan, config, claimed, report, interrupts, view)
            except Interrupted as stopped:
                raise Interrupted(stopped.number, _interrupted_text(claimed)) from None
            view(Finished(str(claimed.folder)))
    if not interface.json_events:
        console = table_console()
        console.print(results_table(results, console.width, backends, tied_runs(claimed.folder, results)))
        console.print(f"run folder: {claimed.folder}", highlight=False, soft_wrap=True)
    return claimed.folder


def _interrupted_text(claimed: Claim) -> str:
    resume = f"loralet resume {shlex.quote(str(claimed.folder))}"
    if claimed.begun:
        return f"interrupted; to go on from the last checkpoint: {resume}"
    if claimed.recorded:
        return f"interrupted before the first step; to begin again: {resume}"
    return "interrupted before the first step; nothing is kept"


def _train(
    plan: Plan,
    config: RunOptions,
    claimed: Claim,
    report: bool,
    interrupts: Interrupts,
    view: Listen,
) -> tuple[Results, tuple[str, ...]]:
    """Train in a claimed folder. Returns the results, and one line per backend."""
    heard: list[Event] = []

    def listen(event: Event) -> None:
        heard.append(event)
        view(event)

    for note in claimed.notes:
        view(Stage(note))
    if claimed.origin:
        view(Stage(f"{claimed.folder} is unfinished and is continued"))
    prepared = _prepared(plan, listen)
    origin = prepared.origin(config, report)
    if claimed.origin:
        require_same_inputs(claimed.folder, claimed.origin, origin)
        prepared = prepared.as_begun(claimed.origin)
        _say_differences(claimed.origin, origin, view)
        origin = replace(claimed.origin, report=claimed.origin.report or report)
    if plan.kind == "study":
        listen(survey(prepared.packs, prepared.sessions, prepared.plan))
    found = environment(prepared.backends)
    found = continued(claimed.folder, found) if claimed.origin else found
    write_origin(claimed.checkpoints, origin)
    with closing(RunFolder(claimed.folder, origin.config, found, b"")) as folder:
        for event in heard:
            folder.record(event)
        saver = StudySaver(claimed.checkpoints, folder, origin.key, config.checkpoint_every, interrupts, view)
        return carry_out(prepared, folder, view, saver), backend_lines(prepared.backends)


def _say_differences(before: Origin, now: Origin, view: Listen) -> None:
    """Say if the results will equal those of an uninterrupted run only up to rounding."""
    parts = [
        (f"loralet {before.loralet}", f"loralet {now.loralet}"),
        (before.cpu, now.cpu),
        ("; ".join(backend_lines(before.backends)), "; ".join(backend_lines(now.backends))),
    ]
    changed = [f"{new} (before: {old})" for old, new in parts if old != new]
    if changed:
        view(Stage(f"continued with {', '.join(changed)}: equal to an uninterrupted run up to rounding"))
