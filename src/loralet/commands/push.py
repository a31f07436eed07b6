"""``loralet push``."""

from __future__ import annotations

from pathlib import Path

from loralet.config import PushConfig
from loralet.export.base import SUFFIX
from loralet.export.push import plan_push, upload
from loralet.inference.adapters import find_adapter
from loralet.terminal import terminal


def push(config: PushConfig) -> None:
    """Upload an adapter to the Hugging Face Hub."""
    wanted = config.upload
    folder = find_adapter(Path(config.one.folder), config.one.run)
    push_folder(folder, wanted.repo, wanted.private, wanted.dry_run, wanted.base)


def push_folder(folder: Path, repo: str, private: bool, dry_run: bool, base: bool = True) -> None:
    """Upload a folder, and with ``base`` the bundled encoder of an adapter. With ``dry_run``, only print the plan."""
    console = terminal(highlight=False, soft_wrap=True)
    planned = plan_push(folder, repo, base)
    for name, size in planned.files.items():
        console.print(f"  {name:<28} {size:>12,} bytes", markup=False)
    if planned.base:
        size = sum(planned.base.values())
        console.print(f"  {repo}{SUFFIX}: {len(planned.base)} files, {size:,} bytes, the base for PEFT", markup=False)
    if planned.warning:
        terminal(stderr=True, highlight=False, soft_wrap=True).print(f"warning: {planned.warning}", markup=False)
    total = sum(planned.files.values())
    if dry_run:
        console.print(
            f"dry run: {len(planned.files)} files, {total:,} bytes would be sent to {planned.repo} "
            f"on {planned.endpoint}",
            markup=False,
        )
        return
    console.print(f"{len(planned.files)} files, {total:,} bytes: {upload(planned, private)}", markup=False)
