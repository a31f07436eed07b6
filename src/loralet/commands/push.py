"""``loralet push``."""

from __future__ import annotations

from pathlib import Path

from loralet.config import PushConfig
from loralet.export.push import plan_push, upload
from loralet.inference.adapters import find_adapter
from loralet.terminal import terminal


def push(config: PushConfig) -> None:
    """Upload an adapter to the Hugging Face Hub."""
    wanted = config.upload
    push_folder(find_adapter(Path(config.one.folder), config.one.run), wanted.repo, wanted.private, wanted.dry_run)


def push_folder(folder: Path, repo: str, private: bool, dry_run: bool) -> None:
    """Upload a folder. With ``dry_run``, print what would be sent instead."""
    console = terminal(highlight=False, soft_wrap=True)
    planned = plan_push(folder, repo)
    for name, size in planned.files.items():
        console.print(f"  {name:<28} {size:>12,} bytes", markup=False)
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
