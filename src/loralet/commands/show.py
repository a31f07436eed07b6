"""``loralet show``."""

from __future__ import annotations

from pathlib import Path

from loralet.config import ShowConfig
from loralet.report.results_table import results_table, table_console
from loralet.report.run_tests import tied_runs
from loralet.report.summary import backend_lines
from loralet.runs.environment import NAME as ENVIRONMENT
from loralet.runs.environment import read_environment
from loralet.runs.results import read_results, unfinished_text


def show(config: ShowConfig) -> None:
    """Print the results table of a run folder."""
    folder, console = Path(config.run.folder), table_console()
    results = read_results(folder)
    recorded = read_environment(folder).backends if (folder / ENVIRONMENT).exists() else ()
    tied = tied_runs(folder, results)
    console.print(results_table(results, console.width, backend_lines(recorded), tied))
    if not results.finished:
        console.print(unfinished_text(folder, results), soft_wrap=True)
