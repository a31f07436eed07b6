"""Estimates of memory and arithmetic of a training step, from the layer table; and the available memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from loralet.data.order import BATCH_TOKENS
from loralet.models.pooling import HeadKind, Pooling
from loralet.models.table import EncoderTable, LinearLayer
from loralet.runs.run import Run
from loralet.training.packs import build_pack

SHARE_OF_FREE = 0.7
"""Default memory limit of a pack, as a share of the free memory."""
GIB = 2**30
COPIES = 10
"""fp32 copies of the parameters: parameters, gradient, clipped gradient, two moments, three temporaries of AdamW, best
and last state."""
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
    """

    table: EncoderTable
    outputs: int
    head: HeadKind
    batch_size: int
    tokens: int
    item: int
    pooling: Pooling = Pooling()


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
    """Estimate the bytes of a training step without frozen weights and data, accurate to a factor of two.

    With b rows of t tokens, k runs, width d, feed-forward f, h heads, i bytes per value and n parameters per run, a
    layer above the first adapted linear layer stores for the backward pass, per run and token,

        i (q + k + v: 3 d, inputs of the two norms: 2 d, output of the intermediate layer: f, or 2 f if it is gated,
           the input of each adapted layer: d or f; twice, and separately for each layer, if a run has dropout)
        + 4 h t (attention, fp32),

    In the last layer, all except keys, values and their input are stored for one token per row only, unless the head
    reads every token. In addition: ``2 i f`` per run and token of the widest layer for intermediate gradients, ``4
    COPIES n`` per run, and ``(2 i + 4)`` per run and weight of each adapted layer for the effective weight and its
    gradient. A check on the validation rows needs ``i (6 d + 2 f)`` for each of its ``BATCH_TOKENS`` tokens; the larger
    of training and checking counts. All parts of a batch are assumed to be computed at once, as with two or more
    threads.

    The estimate is for the torch backend. The native backend needs less, except in fp32 with the mean head (10 % more).
    """
    k, table, item = len(runs), load.table, load.item
    noisy = any(run.adapter.dropout for run in runs)
    kept, widest, effective = 0, 0, 0
    for loads in layers_of(runs, load):
        by_name = {m.linear.name: m for m in loads}
        projections = [m for m in loads if m.linear.reads == "input"]
        output, intermediate = by_name["attention-output"], by_name["intermediate"]
        if intermediate.live:
            attended = sum((k if m.live or m.adapted else 1) * m.rows * m.linear.d_out for m in projections)
            kept += item * (attended + k * output.rows * (2 * table.width + intermediate.linear.d_out))
            kept += 4 * k * output.rows * table.heads * -(-load.tokens // 16) * 16
            widest = max(widest, 2 * item * k * intermediate.rows * intermediate.linear.d_out)
        adapted = [m for m in loads if m.adapted]
        if noisy:
            kept += sum(2 * item * k * m.rows * m.linear.d_in for m in adapted)
        else:  # the projections share one input, which is stored once
            shared = [m.inputs for m in adapted if m.linear.reads == "input"]
            kept += item * (max(shared, default=0) + sum(m.inputs for m in adapted[len(shared) :]))
        effective += (2 * item + 4) * k * sum(m.linear.d_in * m.linear.d_out for m in adapted)
    training = kept + widest + effective + 4 * COPIES * k * parameters_of(runs, load)
    return max(training, _check_bytes(load))


def evaluation_bytes(runs: Sequence[Run], load: Load) -> int:
    """Bytes that a forward pass of these runs takes: per run the parameters and the effective weights, and a batch."""
    pack = build_pack(runs, load.table, load.outputs, load.head, 0.0, load.pooling)
    effective = sum(load.table.linear(name).d_in * load.table.linear(name).d_out for name in pack.adapted)
    return len(runs) * ((load.item + 4) * effective + 4 * pack.size) + _check_bytes(load)


def _check_bytes(load: Load) -> int:
    return BATCH_TOKENS * load.item * (6 * load.table.width + 2 * load.table.feed_forward)


def parameters_of(runs: Sequence[Run], load: Load) -> int:
    """Number of parameters of one row of the pack's matrix, with padded ranks and the head."""
    return build_pack(runs, load.table, load.outputs, load.head, 0.0, load.pooling).size


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
