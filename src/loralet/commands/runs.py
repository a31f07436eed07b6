"""``loralet runs``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from loralet.config import RunsConfig
from loralet.report.results_table import table_console
from loralet.report.runs_table import runs_json, runs_table
from loralet.runs.listing import list_runs
from loralet.terminal import write_utf8


def runs(config: RunsConfig) -> None:
    """List the run folders in a folder."""
    found = list_runs(Path(config.folder))
    if config.format == "json":
        write_utf8(sys.stdout)
        print(json.dumps(runs_json(found), indent=2, ensure_ascii=False))
    elif found:
        table_console().print(runs_table(found))
    else:
        print(f"{config.folder} contains no run folders")
