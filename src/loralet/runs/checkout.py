"""Which commit of loralet is at work, where it is run from a checkout of its source."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

OURS = re.compile(r'^\[project\]\n(?:[^\[]*\n)?name = "loralet"$', re.MULTILINE)
"""What loralet's pyproject.toml has and no other."""
PATIENCE = 10
"""Seconds after which git is not waited for (assumed; a repository on a slow disk answers within one)."""


def source_commit(package: Path = Path(__file__).parents[1]) -> str | None:
    """Commit of the checkout that a package folder belongs to, with ``-dirty`` behind it where tracked files differ; None where it belongs to none.

    Only ``src/loralet`` of a repository whose pyproject.toml is loralet's counts: an installed package has no commit, also where it was
    installed inside a repository of the user's.

    Args:
        package: the folder of the package.
    """
    root = package.parents[1]
    if package != root / "src" / "loralet" or not (root / ".git").exists():
        return None
    # --exclude hides tags, so that the hash is all there is; GIT_DIR and the like (set in a hook) would name another repository.
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        if not OURS.search((root / "pyproject.toml").read_text(encoding="utf-8")):
            return None
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
