"""How many processor threads to use."""

from __future__ import annotations

import torch


def set_threads(threads: int | None) -> None:
    """Use so many threads; None leaves torch's own choice."""
    if threads is not None:
        torch.set_num_threads(threads)
