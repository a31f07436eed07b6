"""``python -m loralet``."""

from loralet.cli import main

raise SystemExit(main())
