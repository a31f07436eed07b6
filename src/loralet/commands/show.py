"""``loralet show``."""

from __future__ import annotations

from pathlib import Path

from loralet.config import ShowConfig
from loralet.report.results_table import results_table, table_console
from loralet.runs.folder import read_results


def show(config: ShowConfig) -> None:
    """Print the table of a run folder."""
    console = table_console()
    console.print(results_table(read_results(Path(config.folder)), console.width))
