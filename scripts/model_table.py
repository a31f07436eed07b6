"""Write the table of known backbones into docs/guides/backbones.md. With --check, only check that it is up to date.

python scripts/model_table.py [--check]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from markdown_tables import table

from loralet.hub.models import MODELS
from loralet.report.models_table import cells, headings

TARGET = Path(__file__).parents[1] / "docs" / "guides" / "backbones.md"
BLOCK = re.compile(r"(<!-- models:begin -->\n).*?(<!-- models:end -->)", re.DOTALL)


def page(text: str) -> str:
    """The page with the current table."""
    shown = headings(MODELS)
    rows = [(f"`{model.name}`", *cells(model, shown)[1:]) for model in MODELS]
    return BLOCK.sub(lambda found: found[1] + table(shown, rows) + found[2], text)


def main() -> int:
    """Write or check the page."""
    text = TARGET.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        return int(not BLOCK.search(text) or page(text) != text)
    TARGET.write_text(page(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
