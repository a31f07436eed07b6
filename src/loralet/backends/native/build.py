"""Find the kernels for an instruction set: compiled in the wheel, compiled earlier in the cache, or compile them.

The build hook of the wheel (``hatch_build.py``) imports this module, so neither this module nor its imports need torch.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loralet.backends.native.guard import guarded, stop_group
from loralet.backends.native.library_cache import ROOT, hanging, libraries, remember_hanging, store
from loralet.backends.native.openmp import UNLINKED
from loralet.cache import cache_folder
from loralet.cpu import ON_X86, cpu_features, cpu_model
from loralet.errors import ConfigError
from loralet.leftovers import temporary_folder

SOURCES = Path(__file__).with_name("csrc")
PREBUILT = Path(__file__).with_name("prebuilt")
"""Folder of the libraries in a wheel. A checkout does not have it."""
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=gnu11", "-fno-math-errno", "-fno-strict-aliasing", "-fPIC", "-fvisibility=hidden", "-Wno-psabi")
FAST = ("-O3",)
SANITIZED = {
    "1": ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "thread": ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=thread"),
}
THREADS = ("-fopenmp",)
NATIVE = ("-march=native",)
LIBRARIES = ("-lm", "-lpthread")
BASELINES = {"x86_64": "x86-64", "amd64": "x86-64", "aarch64": "armv8-a", "arm64": "armv8-a"}
BASELINE = tuple(f"-march={cpu}" for machine, cpu in BASELINES.items() if machine == platform.machine().lower())
"""The CPU that a wheel is compiled for, instead of the compiler's default or the CPU of the build machine."""
NO_COMPILER = f"no C compiler found ({', '.join(COMPILERS)})"
SECONDS = 120
"""Time limit of a compiler call. Compiling takes about four seconds, and a minute on a busy machine."""

FORCED = "LORALET_ISA"
"""Environment variable with the instruction set to use."""
SANITIZE = "LORALET_SANITIZE"
"""Environment variable; ``1`` compiles with AddressSanitizer and UBSan, ``thread`` with ThreadSanitizer."""


class NativeUnavailable(Exception):  # noqa: N818 - a reason to use another backend, not an error
    """The native backend is not available on this machine; the message gives the reason."""


class CompilerUnfinished(NativeUnavailable):
    """The compiler does not finish, so it is not called for another instruction set."""


@dataclass(frozen=True)
class InstructionSet:
    """An instruction set that the kernels are compiled for.

    Args:
        words: display name.
        features: required CPU features (:func:`loralet.cpu.cpu_features`).
        flags: compiler flags.
        emulated: whether it is slow and only for tests: never chosen automatically, but available by name everywhere.
    """

    words: str
    features: tuple[str, ...]
    flags: tuple[str, ...]
    emulated: bool = False


_AVX2 = ("avx2", "fma", "f16c")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl")
_AVX512_BF16 = (*_AVX512, "avx512bf16")
_AMX = (*_AVX512_BF16, "amx-tile", "amx-bf16")
_WIDE = "-mprefer-vector-width=512"


def _flags(features: Sequence[str], *more: str) -> tuple[str, ...]:
    return (*(f"-m{feature}" for feature in features), *more)


INSTRUCTION_SETS = {
    "amx": InstructionSet("AMX", _AMX, _flags(_AMX, _WIDE)),
    "avx512-bf16": InstructionSet("AVX-512 BF16", _AVX512_BF16, _flags(_AVX512_BF16, _WIDE)),
    "avx512": InstructionSet("AVX-512", _AVX512, _flags(_AVX512, _WIDE)),
    "avx2": InstructionSet("AVX2", _AVX2, _flags(_AVX2)),
    "portable": InstructionSet(
        "NEON" if platform.machine().lower() in ("arm64", "aarch64") else "portable C", (), () if ON_X86 else NATIVE
    ),
    "amx-emulated": InstructionSet("emulated AMX", (), ("-O2", "-DLORALET_EMULATE_TILES"), emulated=True),
}
"""Best first. ``portable`` is the baseline of all 64-bit CPUs on x86, and ``-march=native`` elsewhere.

``amx-emulated`` is the code for AMX with tiles emulated in C (``csrc/tiles.h``)."""


def available_instructions() -> list[str]:
    """The instruction sets that this CPU supports, best first; the last is ``portable``. Without emulated ones."""
    has = cpu_features() if ON_X86 else frozenset[str]()
    return [name for name, one in INSTRUCTION_SETS.items() if has.issuperset(one.features) and not one.emulated]


def wanted_instructions(name: str | None = None) -> list[str]:
    """The instruction sets to try, best first: ``name``, else the value of ``LORALET_ISA``, else all available ones.

    Raises:
        ConfigError: there is no instruction set of that name.
        NativeUnavailable: this machine does not support the given instruction set.
    """
    available = available_instructions()
    forced = name or os.environ.get(FORCED)
    if not forced:
        return available
    where = "" if name else f"{FORCED}="
    if forced not in INSTRUCTION_SETS:
        raise ConfigError(f"{where}{forced} is not one of {', '.join(INSTRUCTION_SETS)}")
    if forced not in available and not INSTRUCTION_SETS[forced].emulated:
        raise NativeUnavailable(f"{where}{forced}: this machine has {', '.join(available)}")
    return [forced]


def find_compiler() -> Path | None:
    """The first of :data:`COMPILERS` on PATH, or None.

    Empty and relative entries of PATH and the current folder are skipped, as others may be able to write there.
    """
    entries = map(Path, os.environ.get("PATH", os.defpath).split(os.pathsep))
    folders = [folder for folder in entries if folder.is_absolute() and not _is_current(folder)]
    found = (shutil.which(folder / name) for name in COMPILERS for folder in folders)
    return next((Path(path) for path in found if path), None)


def _is_current(folder: Path) -> bool:
    try:
        return folder.samefile(".")
    except OSError:
        return False


def prebuilt(instructions: str, sources: Path = SOURCES) -> Path | None:
    """The library of the wheel that was compiled from exactly these sources with these flags, or None."""
    path = PREBUILT / prebuilt_name(instructions, sources)
    return path if path.exists() else None


def prebuilt_name(instructions: str, sources: Path = SOURCES) -> str:
    """File name of a library in a wheel. It contains the key of the sources and flags."""
    return f"kernels-{instructions}-{_key(sources, _base_flags(), _prebuilt_flags(instructions))}.so"


def prebuilt_instructions() -> list[str]:
    """The instruction sets of this architecture, best first; a wheel contains those that its compiler supports."""
    return [name for name, one in INSTRUCTION_SETS.items() if (ON_X86 or not one.features) and not one.emulated]


def prebuild(instructions: str, folder: Path, sources: Path = SOURCES) -> Path:
    """Compile the kernels for a wheel. A compiler without OpenMP is rejected.

    Args:
        instructions: one of :func:`prebuilt_instructions`.
        folder: folder of the library.
        sources: folder of the C files.

    Raises:
        NativeUnavailable: there is no compiler, or it fails.
    """
    compiler = find_compiler()
    if compiler is None:
        raise NativeUnavailable(NO_COMPILER)
    flags = (*_base_flags(), *_prebuilt_flags(instructions))
    try:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            failure = _build(compiler, flags, sources, Path(scratch))
            if failure:
                raise OSError(f"{compiler}: {failure.strip()[:300]}")
            return (Path(scratch) / "kernels.so").replace(folder / prebuilt_name(instructions, sources))
    except (OSError, subprocess.SubprocessError) as error:
        raise NativeUnavailable(f"the kernels cannot be compiled ({error})") from error


def compiled(instructions: str, sources: Path = SOURCES) -> Path:
    """The kernel library for an instruction set, compiled if it is not in the cache.

    The name of a cached library contains two keys: of sources, flags and CPU, and of the compiler. Both must match.
    Without a compiler, the newest library with the first key is used. The name also contains the user: users who share
    a cache have one library each, unless root has one. A cache that cannot be used costs only time: the library is then
    compiled in a temporary folder.

    Args:
        instructions: one of :data:`INSTRUCTION_SETS`.
        sources: folder of the C files.

    Raises:
        NativeUnavailable: there is no compiler, or it fails.
    """
    isa = INSTRUCTION_SETS[instructions].flags
    # With -march=native the result also depends on the CPU.
    cpu = (cpu_model(), sorted(cpu_features())) if isa == NATIVE else ()
    name = f"kernels-{instructions}-{_key(sources, _base_flags(), isa, cpu)}"
    folder, compiler = cache_folder() / "native", find_compiler()
    if compiler is None:
        existing = next(libraries(folder, f"{name}-*"), None)
        if existing is None:
            raise NativeUnavailable(NO_COMPILER)
        return existing
    key, user = _compiler_key(compiler), os.getuid() if os.name == "posix" else ROOT
    for owner in (user, ROOT):
        if existing := next(libraries(folder, f"{name}-{key}-{owner}"), None):
            return existing
    return _compiled_anew(compiler, isa, sources, folder, f"{name}-{key}-{user}")


def _compiled_anew(compiler: Path, isa: Sequence[str], sources: Path, folder: Path, name: str) -> Path:
    """Compile a library in a temporary folder and move it into the cache, if that can be used.

    Args:
        compiler: the compiler.
        isa: flags of the instruction set.
        sources: folder of the C files.
        folder: the folder of the cache.
        name: name in the cache, without hash and suffix.

    Raises:
        CompilerUnfinished: the compiler does not finish, now or a short time ago.
        NativeUnavailable: it fails.
    """
    key = _compiler_key(compiler)
    if marker := hanging(folder, key):
        raise CompilerUnfinished(f"{compiler} did not finish before; remove {marker} to try it again")
    try:
        with ExitStack() as stack:
            scratch = stack.enter_context(temporary_folder())
            library = _compile(compiler, _base_flags(), isa, sources, scratch)
            if kept := store(library, folder, name):
                return kept
            atexit.register(stack.pop_all().close)
            return library
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:  # RuntimeError: no more threads
        if isinstance(error, subprocess.TimeoutExpired):
            if not _answers(compiler):
                remember_hanging(folder, key)
            raise CompilerUnfinished(f"{compiler} did not finish within {SECONDS} s") from error
        raise NativeUnavailable(f"the kernels cannot be compiled ({error})") from error


def _answers(compiler: Path) -> bool:
    """Whether a compiler that did not finish processes an empty file: then the machine is busy."""
    try:
        _run([str(compiler), "-E", "-x", "c", os.devnull, "-o", os.devnull])
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _base_flags() -> tuple[str, ...]:
    """The flags for all instruction sets."""
    return (*SANITIZED.get(os.environ.get(SANITIZE, ""), FAST), *FLAGS)


def _prebuilt_flags(instructions: str) -> tuple[str, ...]:
    isa = INSTRUCTION_SETS[instructions].flags
    return (*BASELINE, *(() if isa == NATIVE else isa), *THREADS)


def _key(sources: Path, *parts: object) -> str:
    """A hash of the C files and of other values."""
    contents = [(path.name, path.read_bytes()) for path in sorted(sources.glob("*.[ch]"))]
    return hashlib.sha256(repr((contents, parts)).encode()).hexdigest()[:16]


def _compiler_key(compiler: Path) -> str:
    """A hash of the compiler's path, size and time, which an upgrade changes. Asking for its version takes longer."""
    status = compiler.stat()
    identity = (str(compiler), str(compiler.resolve()), status.st_size, status.st_mtime_ns)
    return hashlib.sha256(repr(identity).encode()).hexdigest()[:8]


def _compile(compiler: Path, flags: Sequence[str], isa: Sequence[str], sources: Path, folder: Path) -> Path:
    """Compile into a folder. Retry without OpenMP, and without ``-march=native``, if the compiler rejects them.

    Raises:
        OSError, subprocess.SubprocessError: the compiler fails.
    """
    failure = ""
    for machine in (isa, ()) if isa == NATIVE else (isa,):
        for threads in (THREADS, ()):
            failure = _build(compiler, (*flags, *machine, *threads), sources, folder)
            if not failure:
                return folder / "kernels.so"
    raise OSError(f"{compiler}: {failure.strip()[:300]}")


def _build(compiler: Path, flags: Sequence[str], sources: Path, folder: Path) -> str:
    """Compile all C files in parallel and link them to ``kernels.so``; returns the error message or an empty string."""
    files = sorted(sources.glob("*.c"))
    objects = [str(folder / f"{path.stem}.o") for path in files]
    with guarded(folder) as group, ThreadPoolExecutor(len(files)) as pool:

        def compile_one(path: Path, to: str) -> str:
            return _run([str(compiler), *flags, "-c", str(path), "-o", to], folder, group)

        try:
            failures = list(pool.map(compile_one, files, objects))
        except BaseException:
            if group is not None:
                stop_group(group)  # else the pool would wait for them
            raise
        if any(failures):
            return next(filter(None, failures))
        linked = [flag for flag in flags if not (UNLINKED and flag in THREADS)]
        library = str(folder / "kernels.so")
        return _run([str(compiler), *linked, "-shared", *objects, "-o", library, *LIBRARIES], folder, group)


def _run(command: Sequence[str], folder: Path | None = None, group: int | None = None) -> str:
    """Run the compiler; returns its error message, or an empty string.

    Its messages go to a file: children of a compiler that was stopped would keep a pipe open.

    Args:
        command: the command.
        folder: folder for its temporary files; None: that of the system.
        group: the process group that it joins; None: one of its own. Its children are stopped with it.

    Raises:
        OSError, subprocess.TimeoutExpired: it cannot be started, or does not finish.
    """
    place: dict[str, Any] = {"start_new_session": True} if group is None else {"process_group": group}
    variables = os.environ | ({"TMPDIR": str(folder)} if folder else {})
    nothing = subprocess.DEVNULL
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=said, env=variables, **place)
        try:
            status = process.wait(SECONDS)
        except BaseException:
            _stop(process, group)
            raise
        said.seek(0)
        text = said.read(10_000).decode(errors="replace")
    return (text or "failed without a message") if status else ""


def _stop(process: subprocess.Popen[bytes], group: int | None) -> None:
    """End a process and its children."""
    if hasattr(os, "killpg"):
        stop_group(group or process.pid)
    else:
        process.kill()
    process.wait()


if __name__ == "__main__":
    for one in wanted_instructions():
        print(compiled(one))
