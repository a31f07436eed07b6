"""``loralet inspect``."""

from __future__ import annotations

import json
import sys

from loralet.config import InspectConfig
from loralet.report.inspection import inspect_path
from loralet.report.inspection_table import comparison_view, comparisons, inspection_json, inspection_view
from loralet.report.results_table import table_console
from loralet.terminal import write_utf8


def inspect(config: InspectConfig) -> None:
    """Describe what is at each path, and compare all models with each other."""
    found = [inspect_path(path) for path in config.paths]
    if config.format == "json":
        write_utf8(sys.stdout)
        print(json.dumps(inspection_json(found), indent=2, ensure_ascii=False))
        return
    console = table_console()
    for inspection in found:
        console.print(inspection_view(inspection))
    for comparison in comparisons(found):
        console.print(comparison_view(comparison))
