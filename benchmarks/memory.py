"""Estimated and measured memory of a pack by encoder, number of runs, row length and backend.

    python benchmarks/memory.py [--only WORD] [--out benchmarks/memory.json]

Each pack is trained for a few steps with a check, in its own process, on the CPU, with random weights and token ids.
The measured memory is the growth of the resident memory from the loaded encoder to the peak. A small pack is trained
before, so that the growth does not include the libraries. Needs Linux.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine
from ours import GRID
from work import BATCH

from loralet.adapters.spec import TARGETS, AdapterSpec, Method
from loralet.atomic import write_json
from loralet.backends.base import Backend
from loralet.backends.info import BackendName
from loralet.backends.native.backend import NativeBackend
from loralet.backends.torch import TorchBackend
from loralet.config import TrainingOptions
from loralet.data.tokens import Tokens
from loralet.models.pooling import HeadKind
from loralet.models.table import EncoderTable
from loralet.runs.environment import peak_memory
from loralet.runs.run import Run
from loralet.tasks.single_label import SingleLabel
from loralet.training.corpus import Rows
from loralet.training.loop import TrainingState, train
from loralet.training.memory import Load, pack_bytes
from loralet.training.packs import adapter_run, build_pack

STEPS = 3
"""Optimiser steps; a check follows the last one."""
SAMPLE = 512
"""Rows of a check, as in training by default."""
VOCABULARY = 2000
TASK = SingleLabel(("a", "b", "c", "d"))
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
USUAL = ("query-value", "lora", "pooler")
"""Words that a name omits."""
HEADS = {128: 2, 256: 4, 384: 12, 768: 12}
"""Attention heads by width; 6 x 384 is MiniLM-L6."""


@dataclass(frozen=True)
class Cell:
    """A pack to measure.

    Args:
        encoder: layers and width, for example ``2x128``.
        runs: number of runs.
        length: tokens of every row.
        backend: the backend.
        targets: ``query-value`` or ``all-linear``.
        method: the adapter method.
        dropout: dropout of the adapters.
        head: input of the classifier.
    """

    encoder: str
    runs: int
    length: int
    backend: BackendName = "native"
    targets: str = "query-value"
    method: Method = "lora"
    dropout: float = 0.0
    head: HeadKind = "pooler"

    @property
    def name(self) -> str:
        """The name in the report."""
        runs = "one run" if self.runs == 1 else f"{self.runs} runs"
        parts = [self.encoder, runs, f"{self.length} tokens", self.backend]
        parts += [word for word in (self.targets, self.method, self.head) if word not in USUAL]
        return ", ".join([*parts, *([f"dropout {self.dropout}"] if self.dropout else [])])

    @property
    def table(self) -> EncoderTable:
        """The encoder's layer table."""
        layers, width = map(int, self.encoder.split("x"))
        return EncoderTable(layers, width, HEADS[width], 4 * width, VOCABULARY, 512)

    @property
    def members(self) -> list[Run]:
        """The runs, of the ranks of the ``rank-alpha`` preset."""
        grid = GRID if self.runs > 1 else ((16, 64.0),)
        targets = TARGETS if self.targets == "all-linear" else ("query", "value")
        specs = [AdapterSpec(self.method, rank, alpha, self.dropout, targets=targets) for rank, alpha in grid]
        return [adapter_run("m", spec, 1e-3, 0) for spec in specs[: self.runs]]


NATIVE = [
    Cell(encoder, runs, length)
    for encoder in ("2x128", "4x256", "6x384", "2x768")
    for runs in (1, 9)
    for length in (32, 128)
]
OTHERS = [
    Cell("2x128", 9, 128, targets="all-linear"),
    Cell("6x384", 9, 128, targets="all-linear"),
    Cell("2x768", 1, 32, targets="all-linear"),
    Cell("2x768", 9, 32, targets="all-linear"),
    Cell("6x384", 9, 128, dropout=0.1),
    Cell("2x768", 9, 128, head="mean"),
    Cell("4x256", 1, 32, "torch"),
    Cell("4x256", 9, 128, "torch"),
    Cell("2x768", 1, 128, "torch"),
    Cell("2x768", 9, 32, "torch"),
    Cell("4x256", 9, 128, "torch", method="dora"),
]
CELLS = {cell.name: cell for cell in (*NATIVE, *OTHERS)}


def load_of(cell: Cell, item: int) -> Load:
    """The size of a step of a cell."""
    native = ("lora",) if cell.backend == "native" else ()
    return Load(cell.table, TASK.outputs, cell.head, BATCH, cell.length, item, native=native)


def resident() -> int:
    """Resident memory of this process in bytes, after freed memory was returned."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def rows_of(count: int, length: int) -> Rows:
    """Random rows of one length."""
    ids = np.random.default_rng(0).integers(0, VOCABULARY, count * length).astype(np.int32)
    return Rows(Tokens(ids, np.arange(count + 1) * length), torch.arange(count) % TASK.outputs)


def weights_of(table: EncoderTable) -> dict[str, torch.Tensor]:
    """Random weights of an encoder and its pooler."""
    weights = {name: 0.02 * torch.randn(size) for name, size in table.tensors().items()}
    width = table.width
    return weights | {"pooler.weight": 0.02 * torch.randn(width, width), "pooler.bias": torch.zeros(width)}


def growth(backend: Backend, cell: Cell) -> int:
    """Bytes by which the resident memory grows, from the loaded encoder to the peak of a training with a check."""
    table, dtype = cell.table, backend.fastest_dtype
    encoder = backend.load(weights_of(table), table, dtype)
    rows, sample = rows_of(STEPS * BATCH, cell.length), rows_of(SAMPLE, cell.length)
    options = TrainingOptions(steps=STEPS, batch_size=BATCH, eval_every=STEPS)
    before = resident()
    CLEAR.write_text("5")  # the peak begins again at the present memory
    pack = build_pack(cell.members, table, TASK.outputs, cell.head, 0.1)
    state = TrainingState.start(backend, encoder, TASK, pack, cell.members, 0.1)
    for _ in train(state, rows, sample, options, 0):
        pass
    return peak_memory() - before


def measure(cell: Cell) -> dict[str, int]:
    """Estimate and measure in this process."""
    backend: Backend = NativeBackend() if cell.backend == "native" else TorchBackend(torch.device("cpu"))
    growth(backend, Cell("1x128", 1, 16, cell.backend, method=cell.method))
    load = load_of(cell, backend.fastest_dtype.itemsize)
    return {"estimate_bytes": pack_bytes(cell.members, load), "measured_bytes": growth(backend, cell)}


def measured_apart(name: str) -> dict[str, int]:
    """Run :func:`measure` in its own process."""
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, __file__, "--cell", name]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def row_of(name: str, found: dict[str, int]) -> dict[str, object]:
    """A row of the report."""
    return {"name": name, **found, "ratio": found["estimate_bytes"] / found["measured_bytes"]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="measure only packs whose name contains this")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--cell", choices=CELLS, help="measure one pack here (used internally)")
    options = parser.parse_args(arguments)
    if options.cell:
        print(json.dumps(measure(CELLS[options.cell])))
        return
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # describe the machine as the packs see it
    rows = []
    for name in (name for name in CELLS if options.only in name):
        rows.append(row_of(name, measured_apart(name)))
        sizes = (f"{rows[-1][key] / 2**20:9.1f} MiB" for key in ("estimate_bytes", "measured_bytes"))
        print(f"{name:48} {'  '.join(sizes)}  {rows[-1]['ratio']:6.2f}", flush=True)
    write_json(options.out, {"machine": describe_machine(), "rows": rows})


if __name__ == "__main__":
    main()
