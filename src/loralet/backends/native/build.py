"""Compile the kernels in ``csrc`` for an instruction set. The result is cached by sources, compiler and flags."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from loralet.cache import cache_folder
from loralet.cpu import ON_X86, cpu_features, cpu_model
from loralet.errors import ConfigError

SOURCES = Path(__file__).with_name("csrc")
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=gnu11", "-fno-math-errno", "-fno-strict-aliasing", "-fPIC", "-fvisibility=hidden", "-Wno-psabi")
FAST = ("-O3",)
SANITIZED = ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
THREADS = ("-fopenmp",)
NATIVE = ("-march=native",)
LIBRARIES = ("-lm", "-lpthread")
SECONDS = 60
"""Time limit of a compiler call. Compiling takes about four seconds."""

FORCED = "LORALET_ISA"
"""Environment variable with the instruction set to use."""
SANITIZE = "LORALET_SANITIZE"
"""Environment variable; ``1`` compiles with AddressSanitizer and UBSan (csrc/README.md)."""


class NativeUnavailable(Exception):  # noqa: N818 - a reason to use another backend, not an error
    """The native backend is not available on this machine; the message gives the reason."""


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


def compiled(instructions: str, sources: Path = SOURCES) -> Path:
    """The kernel library for an instruction set, compiled if it is not in the cache.

    Args:
        instructions: one of :data:`INSTRUCTION_SETS`.
        sources: folder of the C files.

    Raises:
        NativeUnavailable: there is no compiler, or it fails.
    """
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise NativeUnavailable(f"no C compiler found ({', '.join(COMPILERS)})")
    isa = INSTRUCTION_SETS[instructions]
    flags = (*(SANITIZED if os.environ.get(SANITIZE) == "1" else FAST), *FLAGS)
    files = sorted(sources.glob("*.[ch]"))
    # With -march=native the result also depends on the CPU.
    cpu = (cpu_model(), sorted(cpu_features())) if isa.flags == NATIVE else ()
    contents = [(path.name, path.read_bytes()) for path in files]
    key = hashlib.sha256(repr((contents, compiler, flags, isa.flags, cpu)).encode()).hexdigest()[:16]
    path = cache_folder() / "native" / f"kernels-{instructions}-{key}.so"
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            return _compile(compiler, flags, isa.flags, sources, Path(folder)).replace(path)
    except (OSError, subprocess.SubprocessError) as error:
        raise NativeUnavailable(f"the kernels cannot be compiled ({error})") from error


def _compile(compiler: str, flags: Sequence[str], isa: Sequence[str], sources: Path, folder: Path) -> Path:
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


def _build(compiler: str, flags: Sequence[str], sources: Path, folder: Path) -> str:
    """Compile all C files in parallel and link them to ``kernels.so``; returns the error message or an empty string."""
    files = sorted(sources.glob("*.c"))
    objects = [str(folder / f"{path.stem}.o") for path in files]
    run = partial(subprocess.run, capture_output=True, text=True, timeout=SECONDS, check=False)

    def compile_one(path: Path, to: str) -> str:
        done = run([compiler, *flags, "-c", str(path), "-o", to])
        return done.stderr or "failed without a message" if done.returncode else ""

    with ThreadPoolExecutor(len(files)) as pool:
        failures = list(pool.map(compile_one, files, objects))
    if any(failures):
        return next(filter(None, failures))
    done = run([compiler, *flags, "-shared", *objects, "-o", str(folder / "kernels.so"), *LIBRARIES])
    return done.stderr or "failed without a message" if done.returncode else ""


if __name__ == "__main__":
    for one in wanted_instructions():
        print(compiled(one))
