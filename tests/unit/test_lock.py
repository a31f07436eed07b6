"""requirements.txt: the versions of constraints.txt with hashes, for every runtime dependency but torch."""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(text: str) -> dict[str, str]:
    """Version by name of the lines that pin one."""
    found = re.findall(r"^([\w.-]+)==([\w.]+)", text, re.M)
    return {plain(name): version for name, version in found}


def test_requirements_have_the_versions_of_the_constraints_and_hashes() -> None:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    locked, constraints = pinned(text), pinned((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    known = {name: version for name, version in locked.items() if name in constraints}
    assert known == {name: constraints[name] for name in known}
    assert {name for name in locked if name not in constraints} <= {"setuptools", "httpx2-jsfetch"}
    blocks = [block for block in re.split(r"\n(?=\S)", text) if not block.startswith("#")]
    assert len(blocks) == len(locked)
    assert [block.split()[0] for block in blocks if not HASH.search(block)] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {plain(re.split(r"[^\w.-]", line)[0]) for line in project["dependencies"]}
    assert needed - locked.keys() == {"torch", "tomli"}  # tomli is for Python 3.10
