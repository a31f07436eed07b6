"""Write requirements.txt: the runtime dependencies in the versions of constraints.txt, with the hashes of all wheels.

    python scripts/lock.py

needs uv. The file is for Python 3.11 and newer on Linux, macOS and Windows.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "requirements.txt"
PYTHON = "3.11"
LEFT_OUT = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)==")
"""torch and what only its wheels for CUDA need."""
HEAD = """\
# The runtime dependencies with the hashes of their files, for Python 3.11 and newer, made by scripts/lock.py:
#
#   pip install --constraint constraints.txt torch
#   pip install --require-hashes -r requirements.txt
#   pip install --no-deps loralet
#
# torch is left out: its wheels for CPU, CUDA and ROCm come from different indexes, and have different hashes.
"""


def locked() -> str:
    """The content of the file."""
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("scripts/lock.py: uv is not installed; pip install uv")
    command = [uv, "pip", "compile", "--universal", "--python-version", PYTHON, "--generate-hashes", "--no-annotate"]
    command += ["--no-header", "--quiet", "--constraint", "constraints.txt", "pyproject.toml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    blocks = re.split(r"\n(?=\S)", done.stdout.strip())
    return HEAD + "".join(f"{block}\n" for block in blocks if not LEFT_OUT.match(block))


if __name__ == "__main__":
    FILE.write_text(locked(), encoding="utf-8")
