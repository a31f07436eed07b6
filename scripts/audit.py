"""Look up known vulnerabilities of the pinned dependencies.

    python scripts/audit.py [FILE ...]

runs pip-audit on FILE (constraints.txt) if it is installed and its data can be reached. Else one line says so, and the
exit status is 0. Known vulnerabilities: exit status 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

SERVICE = "https://pypi.org/pypi/pip/25.0/json"
"""An address that pip-audit asks, of a release with a known vulnerability (CVE-2025-8869)."""
PATIENCE = 4.0
"""Seconds for the first answer of the service."""
LIMIT = 300
"""Seconds for all packages."""
FILE = Path(__file__).parents[1] / "constraints.txt"


def unreachable() -> str:
    """Why there is nothing to ask; empty if the service answers."""
    if importlib.util.find_spec("pip_audit") is None:
        return "pip-audit is not installed"
    found = ["no answer within some seconds"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(SERVICE, timeout=PATIENCE) as answer:
                known = json.load(answer).get("vulnerabilities")
            found[0] = "" if known else "the index answers without advisories"
        except (OSError, ValueError, AttributeError) as error:
            found[0] = str(error)

    asking = threading.Thread(target=ask, daemon=True)  # the look-up of the name has no time limit of its own
    asking.start()
    asking.join(PATIENCE)
    return found[0] and f"its data cannot be reached ({found[0]})"


def audit(files: list[Path]) -> int:
    """Print the known vulnerabilities of pinned packages. Returns the exit status."""
    if reason := unreachable():
        print(f"pip-audit: skipped, as {reason}")
        return 0
    given = [word for file in files for word in ("--requirement", str(file))]
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off", *given]
    try:
        return subprocess.run(command, timeout=LIMIT, check=False).returncode
    except subprocess.TimeoutExpired:
        print(f"pip-audit: skipped, as it took longer than {LIMIT} s")
        return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=[FILE])
    return audit(parser.parse_args().files)


if __name__ == "__main__":
    sys.exit(main())
