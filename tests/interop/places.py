"""Where the packages of ``make interop`` are, and how to run them; tests are skipped without them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = Path(os.environ.get("LORALET_NODE_MODULES") or ROOT / "build" / "interop" / "node_modules")
"""Folder of npm packages: the environment variable, or where ``make interop`` installs them."""
PYTHON = Path(os.environ.get("LORALET_INTEROP_PYTHON") or ROOT / ".venv-interop" / "bin" / "python")
"""Python with optimum and OpenVINO: the environment variable, or the one of ``make interop``."""

needs_node = pytest.mark.skipif(
    not shutil.which("node") or not (PACKAGES / "@huggingface" / "transformers").is_dir(),
    reason="Node.js or the npm package @huggingface/transformers is absent: make interop installs the package",
)
needs_python = pytest.mark.skipif(
    not PYTHON.exists(), reason="no Python with optimum and OpenVINO: make interop installs them"
)


def node(*arguments: str, stdin: str = "", cwd: Path | None = None) -> str:
    """Standard output of Node.js."""
    done = subprocess.run(
        ["node", *arguments], input=stdin, cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
