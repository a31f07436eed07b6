"""``loralet distill``."""

from __future__ import annotations

from loralet.config import DistillConfig, Interface
from loralet.distil.build import build_student
from loralet.events import Finished
from loralet.progress.view import open_view
from loralet.runtime import using_threads
from loralet.terminal import visible


def distill(config: DistillConfig, interface: Interface) -> None:
    """Distil a small encoder from a larger one and print its held-out losses."""
    with using_threads(config.compute.threads), open_view(interface.quiet, interface.json_events) as view:
        last = build_student(config, view)
        view(Finished(config.out))
    if interface.json_events:
        return
    losses = "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in last.held_out.items())
    print(visible(f"held-out losses after {last.epoch} epochs: {losses}\nstudent: {config.out}"))
