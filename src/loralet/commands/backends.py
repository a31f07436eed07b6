"""What several commands say about their compute backends."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def announce(backends: Sequence[str]) -> None:
    """Print each compute backend as one line to the standard error stream."""
    for backend in backends:
        print(f"· backend: {backend}", file=sys.stderr)
