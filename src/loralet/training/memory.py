"""What a step of a pack costs in memory and arithmetic, estimated from shapes; and how much memory there is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from loralet.config import TARGETS
from loralet.inference.evaluation import BATCH_TOKENS
from loralet.models.encoder import EncoderShape
from loralet.training.packs import Run

SHARE_OF_FREE = 0.7
"""Share of the free memory that a pack may take where the user names no budget."""
GIB = 2**30
COPIES = 10
"""fp32 copies of the trained numbers: themselves, gradient, clipped gradient, two moments, three temporaries of AdamW, best and last state."""
UPDATE_WORK = 30
"""Multiply-adds that the update of one trained number costs as much as: AdamW waits for memory, not for arithmetic (assumed)."""


@dataclass(frozen=True)
class Load:
    """What a step works on.

    Args:
        encoder: sizes of the encoder.
        classes: number of labels.
        head: ``pooler``, ``trained-pooler`` or ``mean``.
        batch_size: rows of a batch.
        tokens: tokens of its longest row.
        item: bytes of one number of the arithmetic.
    """

    encoder: EncoderShape
    classes: int
    head: str
    batch_size: int
    tokens: int
    item: int


@dataclass(frozen=True)
class Map:
    """One linear map in the forward pass: ``sets`` copies (1 while all runs share them) of ``rows`` rows come in; ``live``: they carry a gradient."""

    target: str
    sets: int
    rows: int
    d_in: int
    d_out: int
    adapted: bool
    live: bool


def layers_of(runs: Sequence[Run], load: Load) -> Iterator[dict[str, Map]]:
    """The linear maps of each layer, as :func:`loralet.models.encoder.layer_states` meets them."""
    k, full = len(runs), any(run.role == "full" for run in runs)
    adapted = set(TARGETS) if full else {target for run in runs for target in run.targets}
    live, tokens = full, load.batch_size * load.tokens
    for i in range(load.encoder.layers):
        reading = load.batch_size if i == load.encoder.layers - 1 and load.head != "mean" else tokens
        maps: dict[str, Map] = {}
        for target in TARGETS:
            entering = target in ("query", "key", "value")
            if not entering:  # what attention gives carries a gradient as soon as one of its inputs does
                live = live or any(m.adapted for m in maps.values())
            rows = tokens if target in ("key", "value") else reading
            maps[target] = Map(
                target, k if live else 1, rows, *load.encoder.linear_sizes(target), target in adapted, live
            )
        live = live or bool(adapted & set(TARGETS))
        yield maps


def pack_bytes(runs: Sequence[Run], load: Load) -> int:
    """Bytes that a step of a pack needs beside the frozen weights and the data: an estimate, good to a factor of two.

    With b rows of t tokens, k runs, width d, feed-forward f, h heads, i bytes a number and n trained numbers a run, a layer above the
    first adapted map keeps for the backward pass, per run and token,

        i (q + k + v: 3 d, inputs of the two norms: 2 d, input of the activation: f,
           the input of each adapted map: d, or f for ``output``; twice, and apart for each map, where a run has dropout) + 4 h t (attention, fp32),

    of which the last layer keeps all but keys, values and their input for one token of each row only, unless the head reads every token. To it come
    ``2 i f`` per run and token of the widest layer for gradients on their way, ``4 COPIES n`` per run, and ``(2 i + 4)`` per run and number
    of each adapted map for W + s B A and its gradient. A check on the validation rows needs ``i (6 d + 2 f)`` for each of its ``BATCH_TOKENS``
    tokens; the larger of training and checking counts. All parts of a batch are taken to be at work at once, as they are with two threads or more.

    This is torch's way. The kernels' way needs less, but for fp32 under the mean head, where it needs a tenth more.
    """
    k, shape, item = len(runs), load.encoder, load.item
    noisy = any(run.dropout for run in runs)
    kept, widest, effective = 0, 0, 0
    for maps in layers_of(runs, load):
        query, inner = maps["query"], maps["intermediate"]
        moving = inner.live
        if moving:
            attended = sum(
                (k if m.live or m.adapted else 1) * m.rows * m.d_out for m in (query, maps["key"], maps["value"])
            )
            kept += item * (attended + k * query.rows * (2 * shape.width + shape.feed_forward))
            kept += 4 * k * query.rows * shape.heads * -(-load.tokens // 16) * 16
            widest = max(widest, 2 * item * k * inner.rows * shape.feed_forward)
        inputs = [m for m in maps.values() if m.adapted]
        if noisy:
            kept += sum(2 * item * k * m.rows * m.d_in for m in inputs)
        else:  # query, key and value read the same input, which is kept once
            shared = [m.sets * m.rows * m.d_in for m in inputs if m.target in ("query", "key", "value")]
            kept += item * (max(shared, default=0) + sum(m.sets * m.rows * m.d_in for m in inputs[len(shared) :]))
        effective += (2 * item + 4) * k * sum(m.d_in * m.d_out for m in inputs)
    training = kept + widest + effective + 4 * COPIES * k * trained_numbers(runs, load)
    return max(training, BATCH_TOKENS * item * (6 * shape.width + 2 * shape.feed_forward))


def trained_numbers(runs: Sequence[Run], load: Load) -> int:
    """Numbers of one row of the pack's matrix: ranks padded to the largest, and the head."""
    shape, rank = load.encoder, max((run.rank for run in runs), default=0)
    targets = {target for run in runs for target in run.targets}
    full = any(run.role == "full" for run in runs)
    pooler = shape.width * (shape.width + 1) if load.head == "trained-pooler" or (full and load.head == "pooler") else 0
    numbers = (
        rank * shape.layers * sum(sum(shape.linear_sizes(target)) for target in targets)
        + load.classes * (shape.width + 1)
        + pooler
    )
    if full:
        numbers += sum(torch.Size(size).numel() for size in shape.tensors().values())
    return numbers


def pack_work(runs: Sequence[Run], load: Load) -> float:
    """Multiply-adds of a step of a pack, forward and backward: what packs are ordered by, and compared with a measured one.

    A map costs its product once forward, once more backward where its input carries a gradient, and once more where it is adapted.
    """
    work = 0.0
    for maps in layers_of(runs, load):
        for m in maps.values():
            sets = len(runs) if m.live or m.adapted else 1
            work += sets * m.rows * m.d_in * m.d_out * (1 + m.live + m.adapted)
        query, after = maps["query"], maps["attention-output"]
        work += after.sets * query.rows * load.tokens * 2 * query.d_out * (3 if after.live else 1)
    return work + UPDATE_WORK * len(runs) * trained_numbers(runs, load)


def budget(gib: float | None, device: torch.device) -> int:
    """Bytes that a pack may take: what the user grants, or :data:`SHARE_OF_FREE` of what is free on the device now."""
    return int(gib * GIB) if gib is not None else int(SHARE_OF_FREE * free_memory(device))


def free_memory(device: torch.device, meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes that can still be had: of the GPU, else MemAvailable as Linux estimates it, else the free pages that the system counts."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        line = next(line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
