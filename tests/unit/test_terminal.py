"""Hostile texts, poor encodings, closed streams, full disks and unwritable homes: clear output and no traceback."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import command, options
from rich.table import Table
from rich.text import Text
from safetensors.numpy import load_file, save_file

from loralet.cli import COMMANDS
from loralet.config.hints import NEEDLESS, OF_GRID, OURS
from loralet.errors import ConfigError
from loralet.report.evaluation import class_table
from loralet.tasks.classes import ClassScores
from loralet.terminal import shown_label, terminal, visible

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31mred\x7f\u202eesrever\r\nnext"


def raw(*texts: str) -> set[str]:
    """The control characters of texts, without line ends and tabs."""
    return {c for text in texts for c in text if (ord(c) < 0x20 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0} | {
        c for text in texts for c in text if c in "\u202e\u202d\u2066"
    }


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("refund", "refund"),
        ("refund\u200b", r"'refund\u200b'"),
        ("caf\u00e9", "caf\u00e9"),
        ("cafe\u0301", r"'cafe\u0301'"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u093f\u0928\u094d\u0926\u0940"),  # Hindi
        ("a\nb", r"'a\nb'"),
    ],
)
def test_labels_are_told_apart_on_the_terminal(name: str, shown: str) -> None:
    assert shown_label(name) == shown
    scores = ClassScores(name, 1.0, 1.0, 1.0, 3, 3)
    console = terminal(file=io.StringIO(), width=80)
    console.print(class_table([scores]))
    assert f" {shown} " in console.file.getvalue()  # type: ignore[attr-defined]


def test_control_characters_are_shown() -> None:
    assert raw(HOSTILE) == {"\x1b", "\x07", "\x9b", "\x7f", "\u202e", "\r"}
    assert visible(HOSTILE) == "␛]0;owned␇␛[2J\ufffd31mred␡\ufffdesrever␍\nnext"
    plain = "Ünïcode, 中文, 🎉, tab\there\nnext"
    assert visible(plain) == plain


def test_a_console_shows_control_characters_in_tables_and_keeps_its_own_styles() -> None:
    out = io.StringIO()
    console = terminal(file=out, force_terminal=True, width=120, color_system="truecolor")
    table = Table("label")
    table.add_row(Text("\x1b[31mevil\x07"), style="bold")
    console.print(table)
    console.print(Text("\x9b1A over the line above"))
    assert "␛[31mevil" in out.getvalue()
    assert "\x1b[1m" in out.getvalue()
    assert "\x07" not in out.getvalue()
    assert "\x9b" not in out.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with hostile labels on hostile texts."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = []
    for i in range(60):
        good = i % 2 == 0
        label = "good <img src=x onerror=alert(1)>" if good else "bad\x1b[2J\x07 | `x`"
        rows.append({"text": f"{'fine' if good else 'awful'} text {i} \x1b]0;owned\x07 <b>bold</b>", "label": label})
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:20]))
    (folder / "data").mkdir()
    for name in ("train", "test"):
        (folder / f"{name}.jsonl").rename(folder / "data" / f"{name}.jsonl")
    done = command(folder, "train", "data", "--steps", "4", "--rank", "2", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert not raw(done.stdout, done.stderr)
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "run"],
        ["inspect", "run", "data"],
        ["evaluate", "run"],
        ["predict", "run", "fine \x1b[31m text\x07", "awful"],
        ["predict", "run", "--file", "data/test.jsonl", "--labels-only"],
        ["predict", "run", "--file", "\x1b[2Jmissing.csv"],
        ["predict", "run\x1b[2J", "text"],
        ["report", "run"],
    ],
    ids=lambda arguments: " ".join(arguments[:3]).replace("\x1b", "esc"),
)
def test_no_command_sends_the_escape_sequences_of_texts_and_labels(place: Path, arguments: list[str]) -> None:
    done = command(place, *arguments)
    assert "Traceback" not in done.stderr
    assert not raw(done.stdout, done.stderr), done


def test_cards_and_reports_contain_no_html_of_labels(place: Path) -> None:
    described = json.loads((place / "run" / "environment.json").read_text())
    described["command"] = ["loralet", "train", "x\n\n<script>alert(1)</script>\n\n# owned"]
    described["cpu"] = "a CPU\n\n<script>alert(2)</script>"
    shutil.copytree(place / "run", place / "changed")
    (place / "changed" / "environment.json").write_text(json.dumps(described))
    done = command(place, "report", "changed", "--out", "changed.html")
    assert done.returncode == 0, done.stderr
    markdown = (place / "changed.md").read_text()
    outside_code = "\n".join(line for line in markdown.splitlines() if not line.startswith("    "))
    assert "<script" not in outside_code
    assert "<img" not in outside_code
    assert not any(line.startswith("# owned") for line in markdown.splitlines())
    assert "<script>alert" not in (place / "changed.html").read_text()
    cards = list((place / "run" / "adapters").glob("*/README.md"))
    assert cards
    for card in cards:
        text = card.read_text()
        parts = text.split("```")
        assert "<img" not in parts[0].partition("---\n")[2].partition("---\n")[2]
        assert "<img" not in parts[-1]
        assert "&lt;img" in text


@pytest.mark.parametrize("value", [-0.25, np.nan, np.inf, 3.0])
def test_probabilities_that_are_none_are_refused(place: Path, tmp_path: Path, value: float) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    path = tmp_path / "run" / "predictions.safetensors"
    arrays = {name: array.copy() for name, array in load_file(path).items()}
    (run,) = (name for name in arrays if name.startswith("lora"))
    arrays[run][3, 0] = value
    save_file(arrays, path)
    done = command(tmp_path, "report", "run")
    assert done.returncode == 2
    assert f"predictions.safetensors: cannot be read as predictions ({run} has probabilities" in done.stderr


@pytest.mark.parametrize("kind", ["fewer rows", "classes", "targets", "negative", "scalar", "text"])
def test_predictions_of_another_shape_are_refused(place: Path, tmp_path: Path, kind: str) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    path = tmp_path / "run" / "predictions.safetensors"
    arrays = {name: array.copy() for name, array in load_file(path).items()}
    (run,) = (name for name in arrays if name.startswith("lora"))
    if kind == "text":
        path.write_bytes(b"no file")
    else:
        arrays |= {
            "fewer rows": {run: arrays[run][:-1].copy()},
            "classes": {run: np.ones((len(arrays[run]), 1), np.float32)},
            "targets": {"labels": arrays["labels"] + 5},
            "negative": {"labels": arrays["labels"] - 5},
            "scalar": {"labels": np.array(3)},
        }[kind]
        save_file(arrays, path)
    done = command(tmp_path, "report", "run")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "cannot be read as predictions" in done.stderr


SEVERAL = """
import json, sys
from loralet.cli import main
for arguments in json.loads(sys.argv[1]):
    assert main(arguments) == 0, arguments
"""


def run(place: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    variables = {**os.environ, **options.pop("env", {})}  # type: ignore[dict-item]
    return subprocess.run(
        [sys.executable, "-m", "loralet", *arguments],
        cwd=place, env=variables, capture_output=True, timeout=300, check=False, **options,
    )  # fmt: skip


def several(place: Path, *commands: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    """Run commands one after the other in one process, most of whose time is the import of torch."""
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, json.dumps(commands)],
        cwd=place, env={**os.environ, **env}, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_output_in_a_poor_encoding(place: Path, encoding: str) -> None:
    poor = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    for arguments in (["--help"], ["train", "--help"]):
        done = run(place, *arguments, env=poor)
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
        done.stdout.decode(encoding)
    text = "smile 😀 中文"
    done = several(
        place, ["predict", "run", text], ["show", "run"], ["predict", "run", text, "--format", "jsonl"], env=poor
    )
    assert b"Traceback" not in done.stderr
    *tables, line = done.stdout.splitlines()
    b"\n".join(tables).decode(encoding)
    assert json.loads(line.decode("utf-8"))["text"] == text


def test_closed_streams(place: Path) -> None:
    script = f"{sys.executable} -m loralet predict run <&-"
    done = subprocess.run(["sh", "-c", script], cwd=place, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2
    assert "standard input: the file is empty" in done.stderr
    for closed in (">&-", "2>&-"):
        script = f"{sys.executable} -m loralet show run {closed}"
        done = subprocess.run(["sh", "-c", script], cwd=place, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_standard_output_on_a_full_disk(place: Path) -> None:
    script = f"{sys.executable} -m loralet show run > /dev/full"
    done = subprocess.run(["sh", "-c", script], cwd=place, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1
    assert done.stderr == "loralet: input or output: No space left on device\n"


LIMITED = """
import resource, sys
from loralet.cli import main
size = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
raise SystemExit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("size", [200, 3000, 30_000, 400_000])
def test_a_full_disk_is_one_message_that_names_the_file(place: Path, tmp_path: Path, size: int) -> None:
    """A limit of the file size fails like a full disk, at another file for each size."""
    arguments = ["train", str(place / "data"), "--steps", "2", "--rank", "8", "--out", "out", "--quiet"]
    command_line = [sys.executable, "-c", LIMITED, str(size), *arguments]
    done = subprocess.run(command_line, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("loralet: ")
    assert "out" in last
    assert last.endswith("File too large")
    assert not [path for path in tmp_path.rglob(".*") if path.is_dir()]


@pytest.mark.parametrize("home", ["/dev/null", "/dev/null/nobody"])
def test_a_home_that_cannot_be_written_costs_only_time(place: Path, tmp_path: Path, home: str) -> None:
    env = {"HOME": home, "LORALET_CACHE": "", "XDG_CACHE_HOME": "", "MPLCONFIGDIR": "", "HF_HOME": ""}
    arguments = ["train", str(place / "data"), "--steps", "2", "--rank", "2", "--out", "out", "--backend", "torch"]
    done = several(tmp_path, arguments, ["report", "out"], env=env)
    assert b"no home folder for the cache, which costs time at every start" in done.stderr
    assert (tmp_path / "out" / "report.html").exists()
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_permissions_of_the_umask(place: Path, tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        done = command(tmp_path, "train", str(place / "data"), "--steps", "2", "--rank", "2", "--out", "out", "--quiet")
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    assert {path.name: path.stat().st_mode & 0o777 for path in files} == {path.name: mode for path in files}
    folders = {path.stat().st_mode & 0o777 for path in (tmp_path / "out").rglob("*") if path.is_dir()}
    assert folders == {0o777 & ~umask}


def test_options_of_other_programs_get_a_hint(place: Path) -> None:
    done = command(place, "train", "--learning-rate", "1e-3", "--lr_scheduler_type=linear", "--early-stopping")
    assert done.returncode == 2
    for hint in (
        "--learning-rate: use --lr", "--lr_scheduler_type: use --schedule", "--early-stopping: use --patience"
    ):  # fmt: skip
        assert f"  - {hint}\n" in done.stderr
    assert "--learning-rate: use --lrs" in command(place, "study", "--learning-rate", "1e-3").stderr
    assert "--use_dora: use --methods dora" in command(place, "study", "--use_dora").stderr
    assert "--do_train is not an option: train always trains" in command(place, "train", "--do_train").stderr
    assert "the same command with the same --out continues" in command(place, "distill", "--resume").stderr


def test_the_hints_name_options_that_exist() -> None:
    helps = {}
    for name in ("train", "study"):
        helps[name] = command(Path(), name, "--help").stdout
        for foreign in (*OURS, *NEEDLESS):
            assert f"--{foreign} " not in helps[name], foreign
    for ours in OURS.values():
        first = ours.partition(" ")[0].partition(",")[0]
        assert f"{first} " in helps["train"] or f"{first}," in helps["train"], ours
        if first[2:] in OF_GRID:
            assert f"{first}s " in helps["study"] or f"{first}s," in helps["study"], first
    assert "train" in COMMANDS


@pytest.mark.parametrize("rate", ["1e39", "1e300", "0", "-1", "nan", "inf"])
def test_a_learning_rate_beyond_fp32_is_refused(rate: str) -> None:
    assert options("train", "--lr", "1e-3").lr == 1e-3
    with pytest.raises(ConfigError, match=r"lr is .*: it must be above 0 and at most 1e\+30"):
        options("train", "--lr", rate)
