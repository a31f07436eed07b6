"""``loralet distill``."""

from __future__ import annotations

from rich.console import Console

from loralet.commands.threads import set_threads
from loralet.config import DistillConfig, Interface
from loralet.show.progress import ProgressView


def distill(config: DistillConfig, interface: Interface) -> None:
    """Build a small encoder from a larger one and print how close it came."""
    from loralet.distil.build import build_student

    set_threads(config.threads)
    with ProgressView(Console(stderr=True), interface.quiet) as view:
        last = build_student(config, view)
    losses = "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in last.held_out.items())
    print(f"held-out losses after {last.epoch} epochs: {losses}\nstudent: {config.out}")
