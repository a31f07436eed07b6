"""``loralet models``."""

from __future__ import annotations

import json

from loralet.config import ModelsConfig
from loralet.hub.models import MODELS
from loralet.records import plain
from loralet.report.models_table import models_table
from loralet.report.results_table import table_console


def models(config: ModelsConfig) -> None:
    """Print the known backbones."""
    if config.format == "json":
        print(json.dumps([plain(model) for model in MODELS], indent=2))
    else:
        table_console().print(models_table(MODELS))
