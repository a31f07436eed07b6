"""Commands that cannot do what they are asked: one message, status 2, and no file is written or changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import command
from run_folders import write_data, write_study

OFF = "no such folder, and the name is not a hub id"
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "hub names": {
        "no revision": ("predict o/n@ x", "o/n@: no such folder"),
        "a parent as revision": ("predict o/n@.. x", "o/n@..: no such folder"),
        "an encoded parent as revision": ("predict o/n@%2e%2e x", "o/n@%2e%2e: no such folder"),
        "a parent within a revision": ("train data --model o/n@x%2F..%2Fy", OFF),
        "an encoded NUL": ("train data --model o/n@%00", OFF),
        "an encoded backslash": ("train data --model o/n@x%5C..", OFF),
        "two revisions": ("train data --model o/n@v1@v2", OFF),
        "a parent as folder": ("predict o/n@v1/../x x", "o/n@v1/../x: no such folder"),
        "a parent as owner": ("predict ../o/n x", "../o/n: no such folder"),
        "a folder without name": ("train data --model o/n@v1/", OFF),
        "a path that is too long": (f"predict {'a' * 5000} x", "File name too long"),
    },
    "loralet teach": {
        "no teacher": ("teach data", "teacher is empty"),
        "a file as teacher": ("teach data --teacher data/train.csv --out new", OFF),
        "an empty folder as teacher": ("teach data --teacher empty --out new", "config.json is missing"),
        "a finished run as output": ("teach data --teacher run --out run", "it holds a finished run"),
        "a file as output": ("teach data --teacher run --out notes.txt", "exists and is not empty"),
        "folds": ("teach data --teacher run --folds 3", "folds is 3: teachers know the labels"),
        "negative mixtures": (
            "teach data --teacher run --mixtures -1",
            "mixtures is -1: it must be from 0 (none) to 1000",
        ),
        "a trillion mixtures": (
            "teach data --teacher run --mixtures 1000000000000",
            "it must be from 0 (none) to 1000",
        ),
        "a soft weight above 1": ("teach data --teacher run --soft-weight 1.5", "soft_weight is 1.5"),
        "NaN as soft weight": ("teach data --teacher run --soft-weight nan", "soft_weight is nan"),
        "temperature 0": ("teach data --teacher run --temperature 0", "temperature is 0.0"),
        "a teacher twice": ("teach data --teacher run ./run --out new", "given twice; give each run once"),
    },
    "loralet check": {
        "no such file": ("check none.csv", "none.csv: no such file or folder"),
        "one fold": ("check data/train.csv --folds 1", "folds is 1: it must be at least 2"),
        "more folds than rows": ("check data/train.csv --folds 1000", "--folds 1000 is not possible"),
        "one class": ("check one.csv", "only one class ('a')"),
        "no labels": ("check texts.csv", "no label column found"),
        "no output": ("check data/train.csv --out=", "out is empty"),
        "a folder as output": ("check data/train.csv --out data", "data: is a folder; give a file name with --out"),
        "the data as output": ("check data/train.csv --out data/train.csv", "is no list of findings, so it is not"),
        "another file as output": (
            "check data/train.csv --out notes.txt",
            "notes.txt: exists and is no list of findings",
        ),
        "a path within a file": ("check data/train.csv --out notes.txt/a.csv", "cannot be created"),
    },
    "loralet compare": {
        "one run": ("compare run", "folders is run: give at least two"),
        "a run twice": ("compare run run", "folders contains duplicates"),
        "a run under two names": ("compare run ./empty/../run", "given twice; give each run once"),
        "no run": ("compare run empty", "empty: not a run folder"),
        "a data set": ("compare run data", "data: not a run folder"),
        "indices without data": ("compare run other --labels-are-indices", "labels_are_indices needs --data"),
        "a folder as page": ("compare run other --out data", "data: is a folder; give a file name"),
        "another file as page": ("compare run other --out notes.txt", "exists and is no HTML page"),
        "an adapter without predictions": ("compare run graph", "is a classifier without saved test predictions"),
    },
    "loralet runs": {
        "no folder": ("runs none", "none: no such folder"),
        "a file": ("runs notes.txt", "notes.txt: no such folder"),
    },
    "loralet report": {
        "a folder as report": ("report run --format md --out data.md", "data.md: is a folder"),
        "another file as report": ("report run --format md --out notes.txt", "does not have the extension of a report"),
        "another file as analysis": (
            "report run --json notes.json",
            "is no analysis of a run, so it is not overwritten",
        ),
    },
    "sizes": {
        "a trillion as rank": ("train data --rank 1000000000000 --out new", "GiB in all: use a smaller rank"),
        "a rank beyond the memory": ("train data --rank 9000000 --out new", "GiB in all: use a smaller rank"),
        "ranks of a study": ("study data --ranks 8 900000000 --dry-run --out new", "GiB in all: use a smaller rank"),
        "epochs": ("train data --epochs 1e300", "epochs is 1e+300: it must be above 0 and at most 1e+06"),
        "weight decay": ("train data --weight-decay 1e300", "weight_decay is 1e+300: it must be from 0 (off) to 1e+30"),
        "memory": ("study data --memory 1e300", "memory is 1e+300 GiB: it must be above 0 and at most"),
        "layers of a student": (
            "distill tiny-en --text notes.txt --layers 1000000000",
            "layers is 1000000000: it must be",
        ),
        "width of a student": (
            "distill tiny-en --text notes.txt --width 1000000000",
            "width is 1000000000: it must be",
        ),
        "feed-forward width of a student": (
            "distill tiny-en --text notes.txt --feed-forward 100000000000",
            "feed_forward is 100000000000: it must be at least 1 and at most 262144",
        ),
    },
    "other commands": {
        "a run of a parent folder": ("predict run --run ../other x", "'../other' is not the name of a run"),
        "a run that is not there": ("predict run --run none x", "has no trained run 'none'"),
        "no run folder": ("show empty", "empty: not a run folder"),
        "nothing to resume": ("resume empty", "empty: not a run folder"),
        "threads 0": ("predict run x --threads 0", "threads is 0: it must be from 1 to 1024"),
        "a billion threads": ("predict run x --threads 1000000000", "it must be from 1 to 1024"),
    },
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two run folders, their data, and other files."""
    folder = tmp_path_factory.mktemp("refusals")
    write_data(folder / "data")
    for name in ("run", "other"):
        write_study(folder / name, folder / "data")
    for name in ("empty", "data.md", "graph"):
        (folder / name).mkdir()
    (folder / "graph" / "model.onnx").write_bytes(b"graph")
    (folder / "one.csv").write_text("text,label\n" + "".join(f"text {i},a\n" for i in range(9)))
    (folder / "texts.csv").write_text("text\n" + "".join(f"text {i}\n" for i in range(9)))
    (folder / "notes.txt").write_text("notes\n")
    (folder / "notes.json").write_text(json.dumps([{"text": "a", "label": "b"}]))
    return folder


def content(folder: Path) -> dict[str, bytes | None]:
    """The files and folders in a folder, with the content of the files."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize(
    ("arguments", "words"), [case for group in COMMANDS.values() for case in group.values()],
    ids=[f"{group}: {name}" for group, cases in COMMANDS.items() for name in cases],
)  # fmt: skip
def test_the_command_is_refused(place: Path, arguments: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = content(place)
    done = command(place, *arguments.split())
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert words in " ".join(done.stderr.split())
    assert sum(line.startswith("loralet: ") for line in done.stderr.splitlines()) == 1
    assert content(place) == before


def test_older_findings_and_analyses_are_overwritten(place: Path, tmp_path: Path) -> None:
    from loralet.commands.check import HEAD, _require_free

    (tmp_path / "found.csv").write_text(",".join(HEAD) + "\r\ntrain.csv,2,copy\r\n")
    _require_free(tmp_path / "found.csv")
    _require_free(tmp_path / "new" / "found.csv")
    for _ in range(2):
        done = command(
            place,
            "report",
            "run",
            "--format",
            "md",
            "--out",
            str(tmp_path / "a.md"),
            "--json",
            str(tmp_path / "a.json"),
        )
        assert done.returncode == 0, done.stderr
