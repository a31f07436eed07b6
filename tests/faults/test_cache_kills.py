"""A process that is killed while it compiles the kernels or fills the token cache leaves nothing behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from states import count, environment

from loralet.atomic import TEMPORARY
from loralet.backends.native.build import SOURCES, find_compiler
from loralet.backends.native.guard import can_guard
from loralet.data.tokens import tokenise
from loralet.hub.backbone import load_backbone

KILLS = min(10, count("LORALET_KILLS", 1))
"""Number of kills of each kind."""
FILES = ("*.h", "head.c", "low_rank.c")
"""The C files that are compiled, which takes a second on an idle machine; all take ten."""
PATIENCE = 60.0
"""Seconds after which a test gives up waiting."""
COMPILE = """
import sys
from pathlib import Path
from loralet.backends.native.build import compiled
compiled("portable", Path(sys.argv[1]) / "csrc")
"""
ROWS = 50_000
FILL = f"""
import sys
from itertools import count
from pathlib import Path
import pyarrow as pa
from loralet.data.tokens import tokenise
from loralet.hub.backbone import load_backbone
tokenizer = load_backbone("tiny-en").tokenizer
for i in count():
    tokenise(pa.chunked_array([pa.array([f"the cat sat on mat {{i}}"] * {ROWS})]), tokenizer, 32, Path(sys.argv[1]))
"""


def wait_until(condition: Callable[[], object], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.01)


def unfinished(folder: Path) -> list[Path]:
    """The temporary files in a folder."""
    return [path for path in folder.iterdir() if TEMPORARY.fullmatch(path.name)]


def processes_of(place: Path) -> list[str]:
    """The command lines of the running processes that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found += [line] if f"{place}/" in f"{line}/" else []
    return found


@pytest.mark.skipif(not can_guard() or find_compiler() is None, reason="needs Python 3.11 and a C compiler")
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_killed_compilations_end_with_their_compilers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw, kills = random.Random(0), 0
    command = [sys.executable, "-c", COMPILE]
    while kills < KILLS:
        place = tmp_path / str(kills)
        for name in ("tmp", "csrc"):
            (place / name).mkdir(parents=True)
        for pattern in FILES:
            for file in SOURCES.glob(pattern):
                shutil.copy(file, place / "csrc")
        monkeypatch.setenv("TMPDIR", str(place / "tmp"))
        monkeypatch.setenv("LORALET_CACHE", str(place / "cache"))
        process = subprocess.Popen([*command, str(place)], env=environment())
        wait_until(lambda place=place: list(place.glob("tmp/.loralet.*/*")), "the compiler does not start")
        time.sleep(draw.uniform(0, 0.2))
        compilers = len(processes_of(place / "tmp"))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        kills += 1
        assert compilers > 1  # besides the guard
        wait_until(lambda place=place: not processes_of(place), f"go on: {processes_of(place)}")
        wait_until(lambda place=place: not list((place / "tmp").iterdir()), "temporary files stay")
        done = subprocess.run([*command, str(place)], env=environment(), capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert not list((place / "tmp").iterdir())
        assert [path.suffix for path in (place / "cache" / "native").iterdir()] == [".so"]
    with capsys.disabled():
        print(f"\n{kills} of {kills} killed compilations left no process and no file, and the next start compiled")


def test_killed_fillings_of_the_token_cache_leave_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw, writes, tokenizer = random.Random(0), 0, load_backbone("tiny-en").tokenizer
    texts = pa.chunked_array([pa.array(["the cat sat on mat 0"] * ROWS)])
    wanted = tokenise(texts, tokenizer, 32)
    for i in range(KILLS):
        tokens = tmp_path / str(i) / "tokens"
        process = subprocess.Popen([sys.executable, "-c", FILL, str(tokens.parent)], env=environment())
        wait_until(tokens.exists, "the cache is not filled")
        time.sleep(draw.uniform(0, 0.5))
        if i % 2 == 0:
            wait_until(lambda tokens=tokens: unfinished(tokens), "no entry is written")
        process.kill()
        assert process.wait() == -signal.SIGKILL
        writes += bool(unfinished(tokens))
        (tokens / f".x.arrays.{os.urandom(8).hex()}").touch()  # of a process killed before
        for path in tokens.glob("*.arrays"):
            assert path.stat().st_size > 0
        tokenise(pa.chunked_array([pa.array([f"another text {i}"])]), tokenizer, 32, tokens.parent)
        assert {path.suffix for path in tokens.iterdir()} == {".arrays"}
        found = tokenise(texts, tokenizer, 32, tokens.parent)
        assert np.array_equal(found.ids, wanted.ids)
        assert np.array_equal(found.starts, wanted.starts)
    with capsys.disabled():
        print(f"\n{KILLS} of {KILLS} killed fillings left nothing that stays; {writes} of them were writing an entry")
