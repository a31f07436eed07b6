"""``loralet compare``."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path

from loralet.commands.contenders import evaluated, saved
from loralet.config import CompareConfig
from loralet.errors import ConfigError
from loralet.report.leaderboard import compare as leaderboard_of
from loralet.report.leaderboard_page import write_page
from loralet.report.leaderboard_table import leaderboard_table
from loralet.report.results_table import table_console
from loralet.runtime import using_threads
from loralet.terminal import visible, write_utf8


def compare(config: CompareConfig) -> None:
    """Compare runs on the same rows, print a leaderboard and, if requested, write a page.

    Raises:
        ConfigError: the page cannot be written there.
        RunError: the runs have no test rows in common, or other labels.
    """
    page = _page(config)
    with using_threads(config.compute.threads):
        rows = evaluated(config) if config.data else saved(config)
    found = leaderboard_of(rows.contenders, rows.targets, rows.task, rows.source, rows.timing)
    if config.format == "json":
        write_utf8(sys.stdout)
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        table_console().print(leaderboard_table(found))
    if page:
        write_page(found, page)
        print(visible(f"report: {page}"), file=sys.stderr if config.format == "json" else sys.stdout)


def _page(config: CompareConfig) -> Path | None:
    """The path of the page; None if none is requested."""
    if not config.out:
        return Path("runs") / f"comparison-{datetime.now():%Y%m%d-%H%M%S}.html" if config.report else None
    page = Path(config.out)
    if page.is_dir():
        raise ConfigError(f"{page}: is a folder; give a file name")
    if page.exists() and page.suffix.lower() != ".html":
        raise ConfigError(f"{page}: exists and is no HTML page, so it is not overwritten; give another file name")
    return page
