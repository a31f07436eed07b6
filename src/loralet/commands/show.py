"""``loralet show``."""

from __future__ import annotations

from pathlib import Path

from loralet.config import ShowConfig
from loralet.engine.runs import read_results
from loralet.show.table import results_table, table_console


def show(config: ShowConfig) -> None:
    """Print the table of a run folder."""
    console = table_console()
    console.print(results_table(read_results(Path(config.folder)), console.width))
