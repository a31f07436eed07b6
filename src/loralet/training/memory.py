"""Estimates of memory and arithmetic of a training step, from the layer table; and the available memory."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from loralet.adapters.pack import Pack
from loralet.backends.memory import Footprint
from loralet.backends.torch import SHARDS
from loralet.data.order import BATCH_TOKENS
from loralet.models.pooling import HeadKind, Pooling
from loralet.models.table import EncoderTable, LinearLayer
from loralet.runs.run import Run
from loralet.training.packs import build_pack

SHARE_OF_FREE = 0.7
"""Default memory limit of a pack, as a share of the free memory."""
GIB = 2**30
COPIES = 10
"""fp32 copies of the parameters in torch: parameters, gradient, clipped gradient, two moments, three temporaries of
AdamW, best and last state."""
NATIVE_COPIES = 6
"""The same on the native backend: parameters, gradient, two moments, and two of a copy of the gradient, the parameters
of a check, best and last state."""
HEAP = 1.6
"""Memory of a process over that of its tensors in torch: freed blocks of up to 32 MiB stay in the heap (measured)."""
KERNEL_CACHE = 32 * 2**20
"""Bytes of the kernels that torch's matrix library caches for the tensor sizes of a pack (measured)."""
UPDATE_WORK = 30
"""Cost of the update of one parameter in multiply-adds (assumed); AdamW is bound by memory, not by arithmetic."""


@dataclass(frozen=True)
class Load:
    """The size of a training step.

    Args:
        table: layer table of the encoder.
        outputs: logits per row.
        head: input of the classifier.
        batch_size: rows per batch.
        tokens: tokens of the longest row.
        item: bytes per value in the encoder's dtype.
        pooling: form of the pooler.
        native: adapter methods that the native backend computes; torch computes the others.
    """

    table: EncoderTable
    outputs: int
    head: HeadKind
    batch_size: int
    tokens: int
    item: int
    pooling: Pooling = Pooling()
    native: Collection[str] = ()


@dataclass(frozen=True)
class LinearLoad:
    """One linear layer in the forward pass.

    Args:
        linear: the layer.
        copies: number of inputs: 1 if all runs share the input, else one per run.
        rows: rows of each input.
        adapted: whether an adapter of the pack covers the layer.
        live: whether the input has a gradient.
    """

    linear: LinearLayer
    copies: int
    rows: int
    adapted: bool
    live: bool

    @property
    def inputs(self) -> int:
        """Number of input values."""
        return self.copies * self.rows * self.linear.d_in


def layers_of(runs: Sequence[Run], load: Load) -> Iterator[list[LinearLoad]]:
    """The linear layers of each encoder layer, in the order of the forward pass (:meth:`EncoderTable.ownership`)."""
    k, full, table = len(runs), any(run.role == "full" for run in runs), load.table
    targets = set(table.targets) if full else {target for run in runs for target in run.adapter.targets}
    adapted = {f"layers.{i}.{target}" for i in range(table.layers) for target in targets}
    tokens = load.batch_size * load.tokens
    for i, owned in enumerate(table.ownership(adapted)):
        reading = load.batch_size if i == table.layers - 1 and load.head != "mean" else tokens
        loads: list[LinearLoad] = []
        for linear in table.linears:
            own = owned.input if linear.reads == "input" else linear.reads in owned.own
            live = full or own
            # Keys and values are needed for every token; a fused layer computes them together with the queries.
            rows = tokens if linear.reads == "input" and linear.name != "query" else reading
            loads.append(LinearLoad(linear, k if live else 1, rows, f"layers.{i}.{linear.name}" in adapted, live))
        yield loads


def pack_bytes(runs: Sequence[Run], load: Load) -> int:
    """Estimate the bytes of a training of a pack with its checks, without data and without the encoder's own weights.

    benchmarks/memory.py compares the estimate with the memory of a process.
    """
    pack = pack_of(runs, load)
    factors = any(run.lr_ratio != 1 for run in runs)
    if _is_native(pack, load):
        footprint = Footprint(pack, load.batch_size, load.tokens, load.item)
        return footprint.training(BATCH_TOKENS) + 4 * (NATIVE_COPIES + factors) * len(runs) * pack.size
    largest = max(_step_bytes(runs, load, pack), _check_bytes(pack, load))
    return int(HEAP * largest) + KERNEL_CACHE + 4 * (COPIES + 2 * factors) * len(runs) * pack.size


def evaluation_bytes(runs: Sequence[Run], load: Load) -> int:
    """Bytes that a forward pass of many rows takes for these runs, parameters included."""
    pack = pack_of(runs, load)
    if _is_native(pack, load):
        footprint = Footprint(pack, load.batch_size, load.tokens, load.item)
        return footprint.evaluation(BATCH_TOKENS) + 8 * len(runs) * pack.size
    return int(HEAP * _check_bytes(pack, load)) + 8 * len(runs) * pack.size


def _is_native(pack: Pack, load: Load) -> bool:
    """Whether the native backend computes a pack. It leaves full fine-tuning to torch."""
    return pack.method.name in load.native and not pack.shape.full


def _step_bytes(runs: Sequence[Run], load: Load, pack: Pack) -> int:
    """Bytes of the tensors of a step in torch.

    With b rows of t tokens, k runs, width d, feed-forward f, h heads and i bytes per value, a layer above the first
    adapted linear layer stores for the backward pass, per run and token,

        4 (copies of q, k, v per head: 3 d, probabilities: h t)
        + i (inputs of the two norms: 2 d, output of the intermediate layer: f, or 3 f if it is gated,
             the input of each adapted layer: d or f; twice, and separately for each layer, if a run has dropout;
             then DoRA also stores two outputs)

    In the last layer, all except keys, values and their input are stored for one token per row only, unless the head
    reads every token. In addition, ``2 i f`` per run and token of the widest layer for intermediate gradients, and the
    effective weights.
    """
    k, table, item = len(runs), load.table, load.item
    noisy = any(run.adapter.dropout for run in runs)
    kept, widest = 0, 0
    for loads in layers_of(runs, load):
        by_name = {m.linear.name: m for m in loads}
        projections = [m for m in loads if m.linear.reads == "input"]
        output, intermediate = by_name["attention-output"], by_name["intermediate"]
        if output.live:
            fused, values = len(projections) == 1, [m.rows * m.linear.d_out for m in projections]
            kept += 4 * k * (sum(values) + output.rows * table.heads * -(-load.tokens // 8) * 8)
            kept += item * k * sum(values) if fused else 0
        if intermediate.live:
            inner = intermediate.linear.d_out + (table.feed_forward if table.gated else 0)
            kept += item * k * output.rows * (2 * table.width + inner)
            widest = max(widest, 2 * item * k * intermediate.rows * intermediate.linear.d_out)
        adapted = [m for m in loads if m.adapted]
        if noisy:
            kept += sum(2 * item * k * m.rows * m.linear.d_in for m in adapted)
            kept += sum(2 * item * k * m.rows * m.linear.d_out for m in adapted if pack.method.name == "dora")
        else:  # the projections share one input, which is stored once
            shared = [m.inputs for m in adapted if m.linear.reads == "input"]
            kept += item * (max(shared, default=0) + sum(m.inputs for m in adapted[len(shared) :]))
    return kept + widest + SHARDS * _effective_bytes(pack, load, backward=True)


def _effective_bytes(pack: Pack, load: Load, backward: bool) -> int:
    """Bytes of the effective weights in torch: each in the encoder's type, DoRA's for the backward pass also in fp32,
    and fp32 temporaries of one layer at a time."""
    sizes = [load.table.linear(name).d_in * load.table.linear(name).d_out for name in pack.adapted]
    dora = pack.method.name == "dora"
    each = load.item + (4 if dora and backward else 0)
    return len(pack.adapters) * (each * sum(sizes) + (12 if dora else 8) * max(sizes, default=0))


def _check_bytes(pack: Pack, load: Load) -> int:
    """Bytes of the tensors of a check in torch: effective weights, and in each part of the threads one batch in
    attention or in the feed-forward layers."""
    table, item = load.table, load.item
    tokens = max(BATCH_TOKENS // len(pack.adapters) // load.tokens, 1) * load.tokens * len(pack.adapters)
    scores = 8 * table.heads * -(-load.tokens // 8) * 8
    attending = 4 * item * table.width + (12 * table.width if item < 4 else 0) + 8 * table.width + scores
    feeding = item * (3 * table.width + 2 * table.linear("intermediate").d_out)
    return SHARDS * tokens * max(attending, feeding) + _effective_bytes(pack, load, backward=False)


def pack_of(runs: Sequence[Run], load: Load) -> Pack:
    """The pack of these runs."""
    return build_pack(runs, load.table, load.outputs, load.head, 0.0, load.pooling)


def parameters_of(runs: Sequence[Run], load: Load) -> int:
    """Number of parameters of one row of the pack's matrix, with padded ranks and the head."""
    return pack_of(runs, load).size


def pack_work(runs: Sequence[Run], load: Load) -> float:
    """Multiply-adds of a training step of a pack, forward and backward; used to order packs and to scale timings.

    A linear layer costs one product in the forward pass, one more if its input has a gradient, and one more if it is
    adapted.
    """
    work = 0.0
    for loads in layers_of(runs, load):
        for m in loads:
            copies = len(runs) if m.live or m.adapted else 1
            work += copies * m.rows * m.linear.d_in * m.linear.d_out * (1 + m.live + m.adapted)
        after = next(m for m in loads if m.linear.name == "attention-output")
        work += after.copies * after.rows * load.tokens * 2 * load.table.width * (3 if after.live else 1)
    return work + UPDATE_WORK * len(runs) * parameters_of(runs, load)


def budget(gib: float | None, device: torch.device) -> int:
    """Memory limit of a pack in bytes: the given limit, or :data:`SHARE_OF_FREE` of the device's free memory."""
    return int(gib * GIB) if gib is not None else int(SHARE_OF_FREE * free_memory(device))


def total_memory(device: torch.device) -> int:
    """Memory of the device in bytes, used or not; on the CPU that of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return math.prod((os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")))


def free_memory(device: torch.device, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Free memory in bytes.

    Free GPU memory; on the CPU MemAvailable (Linux), else the free pages reported by the system.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        line = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
        return math.prod((os.sysconf(pages), os.sysconf("SC_PAGE_SIZE")))
