"""``python -m loralet``."""

from loralet.cli import run

raise SystemExit(run())
