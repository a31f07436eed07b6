"""What several commands say about their compute backends."""

from __future__ import annotations

from collections.abc import Sequence

from loralet.terminal import note


def announce(backends: Sequence[str]) -> None:
    """Print each compute backend as one line to the standard error stream."""
    for backend in backends:
        note(f"backend: {backend}")
