"""Compiling and loading the kernels: instruction sets, failing compilers, the cache, and Python declarations."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from backends import NATIVE, each_native, instructions_under_test

from loralet.backends.choice import choose_backend
from loralet.backends.native import bindings, build
from loralet.backends.native.backend import NativeBackend, NativeUnavailable
from loralet.backends.native.bindings import HEADER, Kernels, Place, Structure, declarations, load_kernels
from loralet.backends.native.build import (
    COMPILERS,
    FORCED,
    INSTRUCTION_SETS,
    SOURCES,
    available_instructions,
    compiled,
    wanted_instructions,
)
from loralet.backends.native.cdata import Library
from loralet.cpu import ON_X86, cpu_features
from loralet.errors import ConfigError
from loralet.models.table import EncoderTable

TABLE = EncoderTable(layers=1, width=32, heads=2, feed_forward=32, vocabulary=9, positions=9)
COMPILER = next(filter(None, map(shutil.which, COMPILERS)), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler on this machine")
STRICT = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-unknown-pragmas", "-Wno-unused-parameter"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate cache, and a folder of programs at the start of PATH."""
    monkeypatch.setenv("LORALET_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def compiler_of(folder: Path, script: str) -> None:
    path = folder / "bin" / "cc"
    path.write_text(f"#!/bin/sh\nPATH=/usr/local/bin:/usr/bin:/bin\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def test_the_portable_instruction_set_is_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FORCED, raising=False)
    available = available_instructions()
    assert available[-1] == "portable"
    assert available == [name for name in INSTRUCTION_SETS if name in available]
    assert wanted_instructions() == available
    assert wanted_instructions("portable") == ["portable"]
    monkeypatch.setenv(FORCED, "portable")
    assert wanted_instructions() == ["portable"]


def test_an_unsupported_instruction_set_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "cpu_features", frozenset)
    monkeypatch.setenv(FORCED, "avx512-bf16")
    with pytest.raises(NativeUnavailable, match=r"^LORALET_ISA=avx512-bf16: this machine has portable$"):
        NativeBackend()
    with pytest.raises(NativeUnavailable, match=r"^avx512-bf16"):
        NativeBackend("avx512-bf16")


def test_emulated_tiles_are_used_only_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "cpu_features", frozenset)
    monkeypatch.delenv(FORCED, raising=False)
    assert wanted_instructions() == ["portable"]
    assert wanted_instructions("amx-emulated") == ["amx-emulated"]
    monkeypatch.setenv(FORCED, "amx-emulated")
    assert wanted_instructions() == ["amx-emulated"]


@needs_compiler
@pytest.mark.skipif(not ON_X86, reason="AMX compiles only on x86")
@pytest.mark.skipif("amx-tile" in cpu_features(), reason="this CPU has AMX")
def test_amx_is_refused_on_a_cpu_without_it(tmp_path: Path) -> None:
    library, flags = tmp_path / "tiles.so", ("-mamx-tile", "-mamx-bf16", "-fPIC", "-shared")
    command = [COMPILER, *flags, str(SOURCES / "tiles.c"), "-o", str(library)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("the compiler does not have this instruction set")
    assert not Kernels(library, "amx").allow_tiles()


@needs_compiler
def test_if_the_operating_system_refuses_amx_the_next_instruction_set_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FORCED, raising=False)
    monkeypatch.setattr(bindings, "wanted_instructions", lambda name: [name] if name else ["amx", "portable"])
    monkeypatch.setattr(bindings, "compiled", lambda name, sources: compiled("portable", sources))
    monkeypatch.setattr(Kernels, "allow_tiles", lambda self: self.instructions != "amx")
    words = f"{INSTRUCTION_SETS['portable'].words} (the operating system refuses AMX)"
    backend = NativeBackend()
    assert (backend.kernels.instructions, backend.kernels.words) == ("portable", words)
    assert str(backend.info(torch.float32)) == f"native, {words}, fp32, 1 thread"
    assert NativeBackend("portable").kernels.words == INSTRUCTION_SETS["portable"].words
    with pytest.raises(NativeUnavailable, match=r"^the operating system refuses AMX$"):
        NativeBackend("amx")


def test_an_unknown_instruction_set_is_an_error_with_any_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORCED, "sse9")
    words = "^LORALET_ISA=sse9 is not one of amx, avx512-bf16, avx512, avx2, portable, amx-emulated$"
    with pytest.raises(ConfigError, match=words):
        NativeBackend()
    with pytest.raises(ConfigError, match=words):
        choose_backend(EncoderTable(layers=1, width=16, heads=2, feed_forward=32, vocabulary=50, positions=16))


@each_native
def test_info_names_the_instruction_set(backend: NativeBackend) -> None:
    words = INSTRUCTION_SETS[backend.kernels.instructions].words
    info = backend.info(torch.bfloat16)
    assert str(info) == f"native, {words}, bf16, 1 thread"
    assert (info.name, info.device, info.instructions) == ("native", "cpu", words)


@pytest.mark.usefixtures("folder")
def test_without_a_compiler_torch_is_chosen_with_a_reason() -> None:
    with pytest.raises(NativeUnavailable, match=r"^no C compiler found \(cc, gcc, clang\)$"):
        NativeBackend()
    chosen = choose_backend(TABLE)
    assert chosen.backend.name == "torch"
    if not torch.cuda.is_available():
        assert "no C compiler found" in chosen.announcement


def test_a_compiler_error_is_quoted_and_leaves_no_files(folder: Path) -> None:
    compiler_of(folder, "echo no memory card >&2; exit 1")
    with pytest.raises(NativeUnavailable, match=r"the kernels cannot be compiled .*cc: no memory card"):
        load_kernels("portable")
    assert not (folder / "cache").exists()


@needs_compiler
def test_sources_that_do_not_compile_are_rejected(folder: Path) -> None:
    compiler_of(folder, f'exec {COMPILER} "$@"')
    (folder / "broken.c").write_text("this is not C", encoding="utf-8")
    with pytest.raises(NativeUnavailable, match=r"broken\.c"):
        load_kernels("portable", folder)


@needs_compiler
def test_a_library_that_cannot_be_loaded_is_rejected(folder: Path) -> None:
    compiler_of(folder, f'exec {COMPILER} "$@"')
    source = "int missing(void); int call(void) { return missing(); }"
    (folder / "incomplete.c").write_text(source, encoding="utf-8")
    with pytest.raises(NativeUnavailable, match="the compiled kernels cannot be loaded"):
        load_kernels("portable", folder)


@needs_compiler
def test_kernels_are_compiled_once_per_source_and_instruction_set(folder: Path) -> None:
    compiler_of(folder, f'echo "$@" >> {folder}/log; exec {COMPILER} "$@"')
    source = folder / "one.c"
    source.write_text("int one;", encoding="utf-8")

    def runs() -> int:
        return len((folder / "log").read_text(encoding="utf-8").splitlines())

    first = compiled("portable", folder)
    once = runs()
    assert compiled("portable", folder) == first
    assert runs() == once
    source.write_text("int two;", encoding="utf-8")
    assert compiled("portable", folder) != first
    assert runs() == 2 * once
    assert {path.suffix for path in first.parent.iterdir()} == {".so"}


@needs_compiler
def test_the_best_instruction_set_of_the_compiler_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FORCED, raising=False)
    compiler_of(folder, f'case "$*" in *-mavx*) echo unknown option >&2; exit 1;; esac; {COMPILER} "$@" -O0')
    if len(available_instructions()) > 1:
        with pytest.raises(NativeUnavailable, match="unknown option"):
            load_kernels(available_instructions()[0])
    assert load_kernels().instructions == "portable"


@needs_compiler
def test_without_openmp_the_kernels_still_compile(folder: Path) -> None:
    compiler_of(folder, f'case "$*" in *-fopenmp*) exit 1;; esac; {COMPILER} "$@" -O0')
    assert load_kernels("portable").live_allocations() == 0


@needs_compiler
@pytest.mark.parametrize(
    "element",
    [[], ["-DELEMENT_BF16"], ["-DELEMENT_BF16", "-DLORALET_EMULATE_TILES"]],
    ids=["fp32", "bf16", "bf16-tiles"],
)
def test_every_header_compiles_on_its_own(element: list[str]) -> None:
    for header in sorted(SOURCES.glob("*.h")):
        command = [COMPILER, *STRICT, *element, "-fsyntax-only", "-x", "c", str(header)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not done.returncode, f"{header.name}: {done.stderr}"


@needs_compiler
@pytest.mark.parametrize("name", [name for name in INSTRUCTION_SETS if name not in available_instructions()])
def test_instruction_sets_of_other_machines_compile(name: str) -> None:
    flags = INSTRUCTION_SETS[name].flags
    probe = subprocess.run([COMPILER, *flags, "-E", "-x", "c", "/dev/null"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("the compiler does not have this instruction set")
    sources = sorted(map(str, SOURCES.glob("*.c")))
    done = subprocess.run(
        [COMPILER, *STRICT, *flags, "-fsyntax-only", *sources], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr


def fields_of(kind: str) -> list[tuple[str, int, int]]:
    """Name, offset and size of each field in Python."""
    ffi = declarations()
    return [(name, field.offset, ffi.sizeof(field.type)) for name, field in ffi.typeof(kind).fields]


@needs_compiler
def test_structure_layouts_match_the_compiler(tmp_path: Path) -> None:
    kinds = sorted(set(declarations().list_types()[0]))
    assert {"AdamW", "Attention", "Branch", "Encoder", "Head", "Layer", "LowRank", "Mask"} <= set(kinds)
    header = (SOURCES / "api.h").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^} (\w+);$", header, re.MULTILINE)) == kinds
    lines = []
    for kind in kinds:
        lines.append(f'printf("{kind} %zu\\n", sizeof({kind}));')
        lines += [
            f'printf("{name} %zu %zu\\n", offsetof({kind}, {name}), sizeof((({kind} *)0)->{name}));'
            for name, _, _ in fields_of(kind)
        ]
    includes = '#include <stddef.h>\n#include <stdio.h>\n#include "api.h"\n'
    (tmp_path / "probe.c").write_text(includes + "int main(void) {\n" + "\n".join(lines) + "\n}\n", encoding="utf-8")
    command = [COMPILER, f"-I{SOURCES}", str(tmp_path / "probe.c"), "-o", str(tmp_path / "probe")]
    subprocess.run(command, check=True)
    told = subprocess.run([tmp_path / "probe"], capture_output=True, text=True, check=True).stdout.splitlines()
    expected = []
    for kind in kinds:
        expected.append(f"{kind} {declarations().sizeof(kind)}")
        expected += [f"{name} {offset} {size}" for name, offset, size in fields_of(kind)]
    assert told == expected


def test_the_types_of_the_library_name_every_function_of_the_header() -> None:
    declared = set(re.findall(r"^int (\w+)\(", HEADER.read_text(encoding="utf-8"), re.MULTILINE))
    typed = {name for name, value in vars(Library).items() if callable(value) and not name.startswith("_")}
    assert typed == declared


def test_only_the_library_takes_addresses() -> None:
    """In other modules, a pointer could outlive its array."""
    takes = re.compile(r"__array_interface__|\.ctypes\b|from_buffer")
    users = [path.name for path in SOURCES.parent.glob("*.py") if takes.search(path.read_text(encoding="utf-8"))]
    assert sorted(users) == ["arrays.py", "bindings.py"]  # arrays.py aligns new memory


def test_a_structure_keeps_its_arrays_alive() -> None:
    head = Structure("Head")
    head.point(states=np.full(1000, 7.0, np.float32))
    copied = head.copy()
    del head
    np.full(1000, 8.0, np.float32)
    ffi = declarations()
    assert ffi.unpack(copied.data[0].states, 1000) == [7.0] * 1000


FLOATS = np.zeros(24, np.float32)


@pytest.mark.parametrize(
    ("field", "target"),
    [
        ("states", np.zeros(4)),
        ("states", FLOATS[:8].reshape(4, 2).T),
        ("states", FLOATS[:8:2]),
        ("states", Place(FLOATS[:8:2], strided=True)),
        ("states", Place(FLOATS.reshape(2, 4, 3).swapaxes(1, 2), strided=True)),
        ("states", Place(FLOATS[:8], 8)),
        ("states", Place(FLOATS[:8], -1)),
        ("offsets", np.zeros(4, np.int32)),
    ],
)
def test_an_array_of_the_wrong_type_is_rejected(field: str, target: np.ndarray | Place) -> None:
    head = Structure("Head")
    with pytest.raises(ValueError, match=f"{field}.* must be contiguous and a C (float|int64_t) "):
        head.point(**{field: target})
    head.point(states=FLOATS[:4], classifier_weight=Place(FLOATS.reshape(3, 4, 2)[:, 1], strided=True))
    assert head.data[0].states


@needs_compiler
def test_this_machine_has_kernels() -> None:
    """Without kernels, all tests of them would be skipped silently. Set LORALET_ISA if AMX is refused."""
    assert [backend.kernels.instructions for backend in NATIVE] == instructions_under_test()
    assert build.SECONDS >= 60
