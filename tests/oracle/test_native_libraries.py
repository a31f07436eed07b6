"""Where the kernels are loaded from: the wheel, the cache, the compiler, in this order; and what is never loaded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_native_build import COMPILER, TABLE, compiler_of, needs_compiler

from loralet.backends.choice import choose_backend
from loralet.backends.native import build, openmp
from loralet.backends.native.bindings import Kernels, _load, load_kernels
from loralet.backends.native.build import (
    BASELINE,
    FORCED,
    INSTRUCTION_SETS,
    NATIVE,
    SANITIZE,
    InstructionSet,
    NativeUnavailable,
    compiled,
    find_compiler,
    prebuild,
    prebuilt,
    prebuilt_instructions,
)
from loralet.backends.native.guard import can_guard
from loralet.backends.native.library_cache import content_hash, is_private
from loralet.backends.native.openmp import OF_SYSTEM, load_openmp, missing_runtime, torch_runtimes

pytestmark = needs_compiler
NO_COMPILER = r"no C compiler found \(cc, gcc, clang\)"
OTHER_USER = 54321
RENAMED = list(Path(torch.__file__).parents[1].glob("scikit_learn.libs/libgomp-*"))
"""An OpenMP runtime under the name that auditwheel gives it."""
linux = pytest.mark.skipif(sys.platform != "linux", reason="only on Linux are kernels linked without OpenMP")


EXPORTED = '__attribute__((visibility("default")))'
LIBRARY = f"{EXPORTED} int allow_tiles(long *allowed) {{ *allowed = 1; return 0; }}"
"""The smallest library that can be loaded."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, the only compiler on PATH, which logs its calls, an empty wheel, and the source ``one.c``."""
    for name in ("bin", "wheel", "csrc"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("LORALET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(build, "PREBUILT", tmp_path / "wheel")
    (tmp_path / "csrc" / "one.c").write_text(LIBRARY, encoding="utf-8")
    compiler_of(tmp_path, f'echo "$@" >> {tmp_path}/log; exec {COMPILER} "$@"')
    return tmp_path


def calls(folder: Path) -> int:
    """Number of compiler calls."""
    return len((folder / "log").read_text(encoding="utf-8").splitlines()) if (folder / "log").exists() else 0


def prebuilt_in(folder: Path) -> Path:
    return prebuild("portable", folder / "wheel", folder / "csrc")


def compiled_in(folder: Path) -> Path:
    return compiled("portable", folder / "csrc")


def load_in(folder: Path) -> Kernels:
    return _load("portable", folder / "csrc", "")


def without_compiler(folder: Path) -> None:
    (folder / "bin" / "cc").unlink()


def test_the_library_of_the_wheel_is_loaded_first(folder: Path) -> None:
    library = prebuilt_in(folder)
    before = calls(folder)
    load_in(folder)
    assert calls(folder) == before
    assert not (folder / "cache").exists()
    library.unlink()
    load_in(folder)
    assert calls(folder) > before


def test_without_a_compiler_the_library_of_the_wheel_is_loaded(folder: Path) -> None:
    library = prebuilt_in(folder)
    without_compiler(folder)
    assert prebuilt("portable", folder / "csrc") == library
    assert load_in(folder).instructions == "portable"
    assert not (folder / "cache").exists()


def test_without_a_compiler_the_library_of_the_cache_is_loaded(folder: Path) -> None:
    cached = compiled_in(folder)
    without_compiler(folder)
    assert compiled_in(folder) == cached
    assert load_in(folder).instructions == "portable"
    (folder / "csrc" / "one.c").write_text(f"{LIBRARY} int two;", encoding="utf-8")
    with pytest.raises(NativeUnavailable, match=f"^{NO_COMPILER}$"):
        compiled_in(folder)


def test_each_compiler_has_a_library_and_the_newest_is_used_without_one(folder: Path) -> None:
    first = compiled_in(folder)
    compiler_of(folder, f'exec {COMPILER} "$@" # another version')
    second = compiled_in(folder)
    assert first != second
    without_compiler(folder)
    os.utime(first, ns=(1, 1))
    assert compiled_in(folder) == second
    os.utime(second, ns=(0, 0))
    assert compiled_in(folder) == first


@pytest.mark.parametrize("change", ["source", "flags", "sanitizer"])
def test_a_library_of_other_sources_or_flags_is_ignored(
    change: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prebuilt_in(folder)
    if change == "source":
        (folder / "csrc" / "one.c").write_text(f"{LIBRARY} int two;", encoding="utf-8")
    elif change == "flags":
        monkeypatch.setattr(build, "FAST", ("-O0",))
    else:
        monkeypatch.setenv(SANITIZE, "1")
    assert prebuilt("portable", folder / "csrc") is None
    without_compiler(folder)
    with pytest.raises(NativeUnavailable, match=f"^{NO_COMPILER}$"):
        load_in(folder)


def test_a_library_of_the_wheel_that_cannot_be_loaded_is_compiled_again(folder: Path) -> None:
    prebuilt_in(folder).write_bytes(b"no library")
    before = calls(folder)
    assert load_in(folder).instructions == "portable"
    assert calls(folder) > before
    without_compiler(folder)
    assert load_in(folder).instructions == "portable"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU needs no kernels")
def test_torch_is_chosen_with_every_reason(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_compiler(folder)
    monkeypatch.setenv(FORCED, "portable")
    (folder / "wheel" / build.prebuilt_name("portable")).write_bytes(b"no library")
    chosen = choose_backend(TABLE)
    assert chosen.backend.name == "torch"
    begin, _, rest = chosen.announcement.partition("; ")
    assert begin.startswith("backend: torch: the prebuilt kernels cannot be loaded (")
    assert rest.startswith("no C compiler found (cc, gcc, clang)")


def test_a_library_that_others_can_write_is_not_loaded(folder: Path) -> None:
    for mode in (0o775, 0o757):
        path = compiled_in(folder)
        path.chmod(mode)
        before = calls(folder)
        assert compiled_in(folder) == path
        assert calls(folder) > before
        assert path.stat().st_mode & 0o777 == 0o755
    path.chmod(0o775)
    without_compiler(folder)
    with pytest.raises(NativeUnavailable, match=NO_COMPILER):
        compiled_in(folder)


@pytest.mark.parametrize("mode", [0o777, 0o757, 0o775])
@pytest.mark.parametrize("place", ["cache", "cache/native"])
def test_a_library_in_a_folder_that_others_can_write_is_not_loaded(
    folder: Path, place: str, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Others could have put it there. The kernels are compiled again, outside the cache."""
    planted = compiled_in(folder)
    assert is_private(planted)
    (folder / place).chmod(mode)
    before, mine = calls(folder), os.getuid() != 0 and mode == 0o775
    found = compiled_in(folder)
    if mine:  # a group of this user alone, on many systems
        return
    assert found != planted
    assert folder / "cache" not in found.parents
    assert found.parent.stat().st_mode & 0o777 == 0o700
    assert calls(folder) > before
    assert f"other users can write {folder / place}; run chmod go-w on it" in caplog.text
    load_in(folder)
    without_compiler(folder)
    with pytest.raises(NativeUnavailable, match=NO_COMPILER):
        compiled_in(folder)
    (folder / place).chmod(0o1777)  # others can add files of their own, but not replace this one
    assert compiled_in(folder) == planted


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_new_folders_of_the_cache_are_private_with_any_umask(folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        path = compiled_in(folder)
    finally:
        os.umask(before)
    assert path.parent == folder / "cache" / "native"
    assert all(is_private(one) for one in (path, path.parent, path.parent.parent))
    count = calls(folder)
    assert compiled_in(folder) == path
    assert calls(folder) == count


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "short of one byte": lambda data: data[:-1],
    "longer": lambda data: data + b"x",
    "junk": lambda data: b"no library",
    "zeros": lambda data: bytes(len(data)),
    "a bit": lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_library_of_the_cache_is_compiled_again(folder: Path, name: str) -> None:
    path = compiled_in(folder)
    intact = path.read_bytes()
    path.write_bytes(DAMAGES[name](intact))
    before = calls(folder)
    found = compiled_in(folder)
    assert calls(folder) > before
    assert content_hash(found) == found.stem.rpartition("-")[2]
    assert [one for one in path.parent.iterdir() if one.suffix == ".so"] == [found]
    load_in(folder)
    found.write_bytes(DAMAGES[name](intact))
    without_compiler(folder)
    with pytest.raises(NativeUnavailable, match=NO_COMPILER):
        compiled_in(folder)


@pytest.mark.parametrize("place", ["cache", "cache/native"])
def test_without_a_usable_cache_the_kernels_are_compiled_for_this_process(
    folder: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).write_text("a file")
    load_in(folder)
    assert f"the cache {folder / 'cache'} cannot be used" in caplog.text
    assert [path.name for path in folder.rglob("kernels-*")] == []


def runs(process: int) -> bool:
    """Whether a process exists and has not ended; one that nobody waits for remains as a zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_compiler_that_does_not_finish_is_called_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SECONDS", 0.5)
    monkeypatch.delenv(FORCED, raising=False)
    compiler_of(folder, f"echo >> {folder}/log; sh -c 'echo $$ > {folder}/child; sleep 60; true'; true")
    before = time.monotonic()
    with pytest.raises(NativeUnavailable, match=r"cc did not finish within 0.5 s"):
        load_kernels(sources=folder / "csrc")
    assert time.monotonic() - before < 10
    assert calls(folder) == 2  # with the question whether it processes an empty file
    child = int((folder / "child").read_text())
    while runs(child) and time.monotonic() - before < 20:  # a killed process ends a moment after the signal
        time.sleep(0.01)
    assert not runs(child), "children of the compiler do not go on"
    with pytest.raises(NativeUnavailable, match=r"cc did not finish before; remove .*unfinished-.* to try it again"):
        load_kernels(sources=folder / "csrc")
    assert calls(folder) == 2
    (marker,) = (folder / "cache" / "native").iterdir()
    os.utime(marker, (0, 0))  # long ago
    with pytest.raises(NativeUnavailable, match=r"within 0.5 s"):
        load_kernels(sources=folder / "csrc")
    assert calls(folder) == 4
    marker.unlink()
    compiler_of(folder, 'case "$*" in *devnull*|*/dev/null*) ;; *) sleep 60;; esac')
    with pytest.raises(NativeUnavailable, match=r"within 0.5 s"):
        load_kernels(sources=folder / "csrc")
    assert not list((folder / "cache" / "native").iterdir())  # it is only slow
    monkeypatch.setattr(build, "SECONDS", 60)
    compiler_of(folder, f'echo "$@" >> {folder}/log; exec {COMPILER} "$@"')  # another compiler is tried
    load_in(folder)


COMPILE = """
import sys
import time
from collections.abc import Callable
from pathlib import Path
from loralet.backends.native.bindings import load_kernels
place = Path(sys.argv[1])
while not (place / "go").exists():
    pass
load_kernels("portable", place / "csrc")
print("fine")
"""


def started(folder: Path) -> subprocess.Popen[str]:
    """A process that compiles the kernels and loads them."""
    command = [sys.executable, "-c", COMPILE, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(not can_guard(), reason="needs Python 3.11 on a POSIX system")
def test_killing_a_process_ends_its_compiler_and_deletes_its_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child of the compiler, as cc1 is one of gcc, ignores SIGTERM."""
    (folder / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(folder / "tmp"))
    said = f"echo $$ > {folder}/child.new; mv {folder}/child.new {folder}/child"
    compiler_of(folder, f"sh -c 'trap \"\" TERM; mktemp; {said}; sleep 60'; true")
    (folder / "go").touch()
    process, until = started(folder), time.monotonic() + 30
    while not (folder / "child").exists() and time.monotonic() < until:
        time.sleep(0.01)
    child = int((folder / "child").read_text())
    assert runs(child)
    assert list(folder.glob("tmp/.loralet.*/*"))
    process.kill()
    process.communicate()
    while (runs(child) or any((folder / "tmp").iterdir())) and time.monotonic() < until:
        time.sleep(0.01)
    assert not runs(child)
    assert not any((folder / "tmp").iterdir())


def test_four_processes_compile_into_an_empty_cache_at_once(folder: Path) -> None:
    four = [started(folder) for _ in range(4)]
    time.sleep(0.5)
    (folder / "go").touch()
    said = [process.communicate(timeout=120) for process in four]
    assert [out for out, _ in said] == ["fine\n"] * 4, said
    assert {path.suffix for path in (folder / "cache" / "native").iterdir()} == {".so"}
    before = calls(folder)
    load_in(folder)
    assert calls(folder) == before


def test_the_library_of_another_user_is_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compiled_in(folder)
    assert is_private(path)
    if os.getuid() == 0:
        os.chown(path, OTHER_USER, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: OTHER_USER)
    assert not is_private(path)
    assert not is_private(folder / "missing")


def test_users_who_share_a_cache_do_not_overwrite_each_others_library(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compiled_in(folder)
    if os.getuid() == 0:
        os.chown(first, OTHER_USER - 1, -1)
    before = first.stat()
    with monkeypatch.context() as other:
        other.setattr(os, "getuid", lambda: OTHER_USER)
        second = compiled_in(folder)
    assert second != first
    after = first.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.skipif(os.getuid() != 0, reason="only root writes files of root")
def test_a_library_of_root_is_loaded_by_all_users(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compiled_in(folder)
    before = calls(folder)
    monkeypatch.setattr(os, "getuid", lambda: OTHER_USER)
    assert compiled_in(folder) == path
    assert calls(folder) == before


def test_a_compiled_library_is_private_with_any_umask(folder: Path) -> None:
    before = os.umask(0o002)
    try:
        assert is_private(compiled_in(folder))
    finally:
        os.umask(before)


@pytest.mark.parametrize("path", [".", "bin", "{bin}", ":", "bin:{bin}:."])
def test_a_compiler_in_the_current_folder_is_not_found(
    path: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", path.format(bin=folder / "bin"))
    for current in (folder, folder / "bin"):
        monkeypatch.chdir(current)
        absolute = "{bin}" in path and current == folder
        assert find_compiler() == (folder / "bin" / "cc" if absolute else None)


def test_a_wheel_has_every_instruction_set_of_the_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INSTRUCTION_SETS, "amx-emulated", InstructionSet("emulated", (), (), emulated=True))
    expected = [name for name, one in INSTRUCTION_SETS.items() if not one.emulated]
    assert "amx-emulated" not in expected
    assert prebuilt_instructions() == (expected if build.ON_X86 else ["portable"])
    monkeypatch.setattr(build, "ON_X86", False)
    assert prebuilt_instructions() == ["portable"]


def test_a_wheel_does_not_depend_on_the_cpu_of_the_build_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INSTRUCTION_SETS, "portable", InstructionSet("NEON", (), NATIVE))
    prebuilt_in(folder)
    log = (folder / "log").read_text(encoding="utf-8")
    assert "native" not in log
    assert all(flag in log for flag in (*BASELINE, "-fopenmp"))


def test_a_wheel_has_no_kernels_without_openmp_or_a_compiler(folder: Path) -> None:
    compiler_of(folder, f'case "$*" in *-fopenmp*) echo no OpenMP >&2; exit 1;; esac; exec {COMPILER} "$@"')
    with pytest.raises(NativeUnavailable, match=r"cc: no OpenMP"):
        prebuilt_in(folder)
    without_compiler(folder)
    with pytest.raises(NativeUnavailable, match=f"^{NO_COMPILER}$"):
        prebuilt_in(folder)
    assert not list((folder / "wheel").iterdir())


MAPPED = """
import sys
import time
from collections.abc import Callable
from pathlib import Path
from loralet.backends.native.bindings import load_kernels
load_kernels("portable")
assert "torch" not in sys.modules
import torch
lines = Path("/proc/self/maps").read_text().splitlines()
print(*sorted({line.split()[-1] for line in lines if "omp" in Path(line.split()[-1]).name}), sep="\\n")
"""


@linux
@pytest.mark.skipif(not list(torch_runtimes()), reason="torch brings no OpenMP runtime here")
def test_the_kernels_use_the_openmp_runtime_of_torch() -> None:
    done = subprocess.run([sys.executable, "-c", MAPPED], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(next(torch_runtimes()))], done.stderr


@linux
@pytest.mark.skipif(not RENAMED, reason="scikit-learn brings no renamed OpenMP runtime here")
def test_a_renamed_openmp_runtime_of_torch_is_the_only_one(tmp_path: Path) -> None:
    for name in ("torch", "torch.libs"):
        (tmp_path / name).mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    runtime = tmp_path / "torch.libs" / RENAMED[0].name
    shutil.copy(RENAMED[0], runtime)
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, "-c", MAPPED], capture_output=True, text=True, check=False, env=variables)
    assert done.stdout.split() == [str(runtime)], done.stderr


@pytest.mark.parametrize(
    ("folder_of_torch", "name", "found"),
    [
        ("torch/lib", "libgomp.so.1", True),
        ("torch/lib", "libgomp-a34b3233.so.1", True),
        ("torch.libs", "libgomp-947d5fa1.so.1.0.0", True),
        ("torch/lib", "libiomp5.so", True),
        ("torch.libs", "libomp-123abc.so.5", True),
        ("torch/lib", "libomp.dylib", True),
        ("torch/lib", "libompi.so", False),
        ("torch/lib", "libtorch.so", False),
    ],
)
def test_the_openmp_runtime_of_any_torch_is_found(
    folder_of_torch: str, name: str, found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    path = tmp_path / folder_of_torch / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path / "torch")])
    monkeypatch.setattr(openmp, "find_spec", lambda name: spec)
    assert list(torch_runtimes()) == ([path] if found else [])


@linux
def test_without_torch_the_openmp_runtime_of_the_system_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(name: str, mode: int) -> None:
        loaded.append(name)
        if name != OF_SYSTEM[1]:
            raise OSError("no such file")

    monkeypatch.setattr(openmp, "find_spec", lambda name: None)
    monkeypatch.setattr(openmp.ctypes, "CDLL", load)
    assert load_openmp.__wrapped__() == OF_SYSTEM[1]
    assert loaded == list(OF_SYSTEM[:2])


@linux
def test_without_an_openmp_runtime_the_message_says_what_to_install(folder: Path) -> None:
    calling = f"{LIBRARY} int GOMP_missing(void); int f(void) {{ return GOMP_missing(); }}"
    (folder / "csrc" / "one.c").write_text(calling, encoding="utf-8")
    with pytest.raises(NativeUnavailable, match=r"undefined symbol: GOMP_missing; they were compiled for another Open"):
        load_in(folder)
    error = OSError("kernels.so: undefined symbol: GOMP_parallel")
    assert "apt-get install libgomp1" in missing_runtime(error, "")
    assert not missing_runtime(OSError("kernels.so: undefined symbol: cosf"), "")


def test_the_build_hook_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from loralet.backends.native.build import prebuild"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
