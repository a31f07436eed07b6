"""Check the installation without torch that docs/guides/deploying.md describes.

The wheel and the documented packages are installed into a new virtual environment, with the versions of
constraints.txt. There is no torch, and no compiler on PATH. A hybrid and its bundle, which the environment of this
script trains and exports, give the same predictions there.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from check_wheel import Installed, require, write_table

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "guides" / "deploying.md"
TEXT = "where is my parcel"
TOLERANCE = 1e-3
"""Largest difference of a probability: the encoder may be computed in another instruction set or precision."""
FULL_ONLY = ("torch", "sklearn", "scipy", "pyarrow")
"""Modules that the smallest installation has not."""


def documented() -> list[list[str]]:
    """The packages of each ``pip install`` of the guide's section on torch, except for loralet itself."""
    section = GUIDE.read_text(encoding="utf-8").partition("## Without torch")[2].partition("\n## ")[0]
    found = [line.split() for line in re.findall(r"(?m)^pip install ([^#\n]*)", section)]
    kept = [packages for packages in found if "loralet" not in packages]
    require(len(kept) == 2, f"{GUIDE.name}: two lists of packages are expected, found {kept}")
    return kept


def full(place: Path, *arguments: str | Path) -> str:
    """The output of a command in the environment of this script."""
    command = [sys.executable, "-m", "loralet", *map(str, arguments)]
    done = subprocess.run(command, cwd=place, capture_output=True, encoding="utf-8", check=False)
    require(not done.returncode, f"loralet {' '.join(map(str, arguments))}:\n{done.stderr}")
    return done.stdout


def installed_modules(new: Installed) -> set[str]:
    """Those of :data:`FULL_ONLY` that the new environment has."""
    code = f"import importlib.util as u; print(*[name for name in {FULL_ONLY!r} if u.find_spec(name)])"
    return set(new.run("python", "-c", code).split())


def probabilities(shown: str) -> dict[str, float]:
    """The probabilities of the first prediction in JSON Lines."""
    line = next(line for line in shown.splitlines() if line.startswith("{"))
    found: dict[str, float] = json.loads(line)["probabilities"]
    return found


def check_predictions(new: Installed, place: Path) -> None:
    """A run and its bundle give the probabilities that they give with torch."""
    for name in ("run", "bundle"):
        arguments = ("predict", place / name, TEXT, "--format", "jsonl")
        wanted, found = probabilities(full(place, *arguments)), probabilities(new.run("loralet", *arguments))
        largest = max(abs(wanted[label] - found[label]) for label in wanted)
        print(f"{name}: {found}, largest difference {largest:.1e}")
        require(wanted.keys() == found.keys() and largest <= TOLERANCE, f"{name}: expected {wanted}")


def check_messages(new: Installed, place: Path) -> None:
    """What needs a missing package says so, without a traceback."""
    bundle = place / "bundle"
    for package, arguments in (
        ("torch", ("predict", bundle, TEXT, "--backend", "torch")),
        ("torch", ("inspect", bundle)),
        ("pyarrow", ("predict", bundle, "--file", place / "tickets.csv")),
    ):
        done = new.start("loralet", *arguments)
        print(done.stderr.strip().splitlines()[-1])
        advice = f"pip install {package}"
        require(done.returncode == 2 and advice in done.stderr, f"{arguments[0]}: expected: {advice}\n{done.stderr}")


def check_evaluation(new: Installed, place: Path) -> None:
    """A table is evaluated and classified."""
    table = place / "tickets.csv"
    shown = new.run("loralet", "evaluate", place / "bundle", table, "--format", "json")
    accuracy = json.loads(shown[shown.index("{") : shown.rindex("}") + 1])
    print(f"evaluate: {str(accuracy)[:100]}...")
    labels = new.run("loralet", "predict", place / "bundle", "--file", table, "--labels-only")
    require(labels.count("delivery") >= 10, f"predict --file: {labels}")


def main() -> None:
    """Check one wheel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    arguments = parser.parse_args()
    smallest, more = documented()
    constraints = ("--constraint", ROOT / "constraints.txt")
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary).resolve()
        table = write_table(place)
        full(place, "train", table, "--out", place / "run", "--steps", "20", "--hybrid", "on", "--quiet")
        full(place, "export", place / "run", "--to", "safetensors-bundle", "--out", place / "bundle")
        venv.create(place / "venv", with_pip=True)
        new = Installed(place)
        require(not any(shutil.which(name, path=str(new.programs)) for name in ("cc", "gcc", "clang")), "a compiler")
        pip = ("python", "-m", "pip", "install", "--quiet")
        new.run(*pip, "--no-deps", arguments.wheel.resolve())
        new.run(*pip, *constraints, *smallest)
        require(not installed_modules(new), f"installed: {installed_modules(new)}")
        check_predictions(new, place)
        check_messages(new, place)
        new.run(*pip, *constraints, *more)
        require("torch" not in installed_modules(new), "torch is installed")
        check_evaluation(new, place)
    print(f"{arguments.wheel.name}: checked without torch")


if __name__ == "__main__":
    main()
