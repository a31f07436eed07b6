"""Four processes at once on empty caches: each compiles or finds the kernels, and makes or finds each entry."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from states import count, environment

from loralet.backends.native.build import find_compiler

ROUNDS = count("LORALET_ROUNDS", 0)
"""Number of empty caches. Without any, tests/unit/test_caches.py and tests/oracle/test_native_libraries.py suffice."""
PROCESSES, ENTRIES = 4, 5
SOURCE = """
__attribute__((visibility("default"))) int allow_tiles(long *allowed) { *allowed = 1; return 0; }
"""
WORK = f"""
import sys
import time
from pathlib import Path
import pyarrow as pa
from loralet.backends.native.bindings import load_kernels
from loralet.data.tokens import tokenise
from loralet.hub.backbone import load_backbone
place = Path(sys.argv[1])
tokenizer = load_backbone("tiny-en").tokenizer
(place / f"ready-{{sys.argv[2]}}").touch()
until = time.monotonic() + 300
while not (place / "go").exists() and time.monotonic() < until:
    time.sleep(0.001)
load_kernels("portable", place / "csrc")
for i in range({ENTRIES}):
    found = tokenise(pa.chunked_array([pa.array([f"the cat sat {{i}}"] * 2000)]), tokenizer, 32, place / "cache")
    assert len(found) == 2000 and len(set(found.lengths.tolist())) == 1, i
print("fine")
"""


@pytest.mark.skipif(not ROUNDS, reason="`make faults` runs it")
@pytest.mark.skipif(find_compiler() is None, reason="no C compiler on this machine")
def test_four_processes_on_empty_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = 0
    for i in range(ROUNDS):
        place = tmp_path / str(i)
        (place / "csrc").mkdir(parents=True)
        (place / "csrc" / "one.c").write_text(SOURCE)
        monkeypatch.setenv("LORALET_CACHE", str(place / "cache"))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment()}
        commands = [[sys.executable, "-c", WORK, str(place), str(k)] for k in range(PROCESSES)]
        started = [subprocess.Popen(command, **pipes) for command in commands]
        until = time.monotonic() + 120
        while len(list(place.glob("ready-*"))) < PROCESSES and time.monotonic() < until:
            time.sleep(0.01)
        (place / "go").touch()
        said = [process.communicate(timeout=120) for process in started]
        fine += sum(out == "fine\n" for out, _ in said)
        assert [out for out, _ in said] == ["fine\n"] * PROCESSES, said
        assert [path.suffix for path in (place / "cache" / "native").iterdir()] == [".so"]
        assert [path.suffix for path in (place / "cache" / "tokens").iterdir()] == [".arrays"] * ENTRIES
    with capsys.disabled():
        print(f"\n{fine} of {ROUNDS * PROCESSES} processes on empty caches, {PROCESSES} at once, were fine")
