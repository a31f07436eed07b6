"""The commit of loralet, if it runs from a source checkout."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

OURS = re.compile(r'^\[project\]\n(?:[^\[]*\n)?name = "loralet"$', re.MULTILINE)
"""Pattern that identifies loralet's pyproject.toml."""
PATIENCE = 10
"""Timeout of git in seconds (assumed; a repository on a slow disk answers within one second)."""


def source_commit(package: Path = Path(__file__).parents[1]) -> str | None:
    """Commit of the checkout that contains a package folder, or None.

    ``-dirty`` is appended if tracked files differ. Only ``src/loralet`` of a repository with loralet's pyproject.toml
    counts: an installed package has no commit, even inside a user's repository.

    Args:
        package: the folder of the package.
    """
    root = package.parents[1]
    if package != root / "src" / "loralet" or not (root / ".git").exists():
        return None
    # --exclude hides tags, so that only the hash is printed. GIT_DIR and similar variables (set in a hook) would select
    # another repository.
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
