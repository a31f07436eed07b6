"""``loralet distill``."""

from __future__ import annotations

import shlex
from pathlib import Path

from loralet.config import DistillConfig, Interface
from loralet.distil.build import build_student
from loralet.distil.checkpoint import NAME as CHECKPOINT
from loralet.events import Finished
from loralet.interrupts import Interrupted, Interrupts
from loralet.progress.view import open_view
from loralet.runtime import using_threads
from loralet.terminal import visible


def distill(config: DistillConfig, interface: Interface) -> None:
    """Distil a small encoder from a larger one and print its held-out losses, or continue an interrupted one."""
    with (
        using_threads(config.compute.threads),
        open_view(interface.quiet, interface.json_events) as view,
        Interrupts() as interrupts,
    ):
        try:
            last = build_student(config, view, interrupts)
        except Interrupted as stopped:
            raise Interrupted(stopped.number, _interrupted_text(config.out)) from None
        view(Finished(config.out))
    if interface.json_events:
        return
    losses = "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in last.held_out.items())
    print(visible(f"held-out losses after {last.epoch} epochs: {losses}\nstudent: {config.out}"))


def _interrupted_text(out: str) -> str:
    if not (Path(out) / CHECKPOINT).exists():
        return "interrupted before the first step; give the command again to begin anew"
    return f"interrupted; to go on from the last checkpoint: loralet resume {shlex.quote(out)}"
