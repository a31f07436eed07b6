"""Check a wheel on a machine without a compiler: its size, training, prediction, and the loaded libraries.

The wheel is installed into a new virtual environment. Its dependencies are not: a .pth file adds the packages of an
existing environment, because installing torch takes minutes. PATH contains only the new environment.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

ROWS = [("my parcel has not arrived", "delivery"), ("the invoice shows the wrong amount", "billing")] * 20
MOST_BYTES = 40_000_000
"""Largest size of the wheel. The bundled encoders and the kernels of every instruction set are in it."""
LIBRARIES = """
import json, sys
from pathlib import Path
import loralet
from loralet.backends.native.bindings import load_kernels
from loralet.backends.native.build import available_instructions, prebuilt
ready = {name: str(prebuilt(name)) for name in available_instructions() if prebuilt(name)}
for name in ready:
    load_kernels(name).live_allocations()
if ready:
    import torch  # after the kernels, as in a process that needs torch later
maps = Path("/proc/self/maps")
mapped = {line.split()[-1] for line in maps.read_text().splitlines() if "/" in line} if maps.exists() else set()
json.dump({"package": loralet.__file__, "prebuilt": ready, "mapped": sorted(mapped)}, sys.stdout)
"""


@dataclass(frozen=True)
class Installed:
    """A wheel in a new environment.

    Args:
        folder: temporary folder, which contains the environment.
    """

    folder: Path

    @property
    def programs(self) -> Path:
        return self.folder / "venv" / ("Scripts" if os.name == "nt" else "bin")

    def start(self, program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, with nothing else on PATH and a cache of its own."""
        private = ("PYTHON", "LORALET_", "VIRTUAL_ENV")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(private)}
        environment |= {"PATH": str(self.programs), "LORALET_CACHE": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1"}
        environment["PYTHONUTF8"] = "1"
        command = [str(self.programs / program), *map(str, arguments)]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, encoding="utf-8", check=False
        )

    def run(self, program: str, *arguments: str | Path) -> str:
        """The output of a program of the environment, which must succeed."""
        done = self.start(program, *arguments)
        if done.returncode:
            sys.exit(f"{program} {' '.join(map(str, arguments))[:200]}: exit status {done.returncode}\n{done.stderr}")
        return done.stdout + done.stderr if program == "loralet" else done.stdout


def install(wheel: Path, packages: Path, folder: Path) -> Installed:
    """Install a wheel into a new environment.

    Args:
        wheel: the wheel.
        packages: site-packages of the environment that has the dependencies.
        folder: temporary folder.
    """
    venv.create(folder / "venv", with_pip=True)
    new = Installed(folder)
    new.run("python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel.resolve())
    site = new.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # Only after pip, which would find loralet there if it is installed.
    Path(site, "dependencies.pth").write_text(f"{packages}\n", encoding="utf-8")
    return new


def write_table(folder: Path) -> Path:
    """Write a small table of texts and labels."""
    lines = ["text,label", *(f"{text} {number},{label}" for number, (text, label) in enumerate(ROWS))]
    table = folder / "tickets.csv"
    table.write_text("\n".join(lines), encoding="utf-8")
    return table


def check_size(wheel: Path) -> None:
    """The wheel, with its encoders and kernels, stays below :data:`MOST_BYTES`."""
    size = wheel.stat().st_size
    print(f"size: {size / 1e6:.1f} of {MOST_BYTES / 1e6:.0f} MB")
    with ZipFile(wheel) as archive:
        largest = sorted(archive.infolist(), key=lambda file: file.compress_size)[-5:]
    parts = "\n".join(f"  {file.compress_size / 1e6:.1f} MB {file.filename}" for file in reversed(largest))
    require(
        size <= MOST_BYTES,
        f"{wheel.name} has {size / 1e6:.1f} MB, more than the limit of {MOST_BYTES / 1e6:.0f} MB; its largest files, "
        f"compressed:\n{parts}",
    )


def check_commands(new: Installed, backend: str) -> None:
    """Train on a small table with the expected backend, and predict."""
    table = write_table(new.folder)
    shown = new.run("loralet", "train", table, "--out", new.folder / "run", "--steps", "20")
    announced = [line for line in shown.splitlines() if line.startswith("backend: ")]
    print(*announced, sep="\n")
    require(
        bool(announced) and announced[0].startswith(f"backend: {backend}"), f"the backend is not {backend}\n{shown}"
    )
    predicted = new.run("loralet", "predict", new.folder / "run", "where is my parcel")
    print(predicted.strip())
    require("delivery" in predicted, "the prediction is not delivery")


def check_libraries(new: Installed, backend: str) -> None:
    """Every prebuilt library for this CPU loads, and there is one OpenMP runtime, that of torch."""
    found = json.loads(new.run("python", "-c", LIBRARIES))
    require(Path(found["package"]).is_relative_to(new.folder.resolve()), f"loralet is {found['package']}")
    require(bool(found["prebuilt"]) == (backend == "native"), f"prebuilt: {found['prebuilt']}")
    require(not (new.folder / "cache" / "native").exists(), "a library was compiled")
    print("prebuilt:", ", ".join(Path(path).name for path in found["prebuilt"].values()) or "none")
    if found["prebuilt"]:
        runtimes = [path for path in found["mapped"] if re.match(r"lib(gomp|iomp5|omp)\b", Path(path).name)]
        print("OpenMP:", *runtimes)
        of_torch = [path for path in runtimes if {"torch", "torch.libs"} & set(Path(path).parts)]
        require(len(runtimes) == 1 and of_torch == runtimes, "the runtime is not that of torch")


def require(condition: bool, message: str) -> None:
    """End with a message if a condition is false."""
    if not condition:
        sys.exit(f"check_wheel: {message}")


def main() -> None:
    """Check one wheel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--backend", default="native", choices=["native", "torch"], help="expected backend")
    parser.add_argument(
        "--packages",
        type=Path,
        default=Path(sysconfig.get_path("purelib")),
        help="site-packages with torch and the other dependencies (default: of this Python)",
    )
    arguments = parser.parse_args()
    check_size(arguments.wheel)
    with tempfile.TemporaryDirectory() as temporary:
        new = install(arguments.wheel, arguments.packages.resolve(), Path(temporary))
        found = [name for name in ("cc", "gcc", "clang") if shutil.which(name, path=str(new.programs))]
        require(not found, f"a compiler is on PATH: {found}")
        check_commands(new, arguments.backend)
        check_libraries(new, arguments.backend)
    print(f"{arguments.wheel.name}: checked")


if __name__ == "__main__":
    main()
