"""Grouping of runs into packs, and the memory estimate compared with what torch allocates."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from models import CLASSES
from torch import Tensor

from loralet.adapters.spec import HEAD_ALONE, TARGETS, AdapterSpec
from loralet.backends.batch import batch_of
from loralet.backends.torch import TorchProgram
from loralet.errors import ConfigError
from loralet.models.table import FUSED, EncoderTable
from loralet.runs.environment import peak_memory
from loralet.runs.run import Run
from loralet.training import memory
from loralet.training.memory import (
    GIB,
    SHARE_OF_FREE,
    Load,
    budget,
    evaluation_bytes,
    free_memory,
    pack_bytes,
    pack_work,
    parameters_of,
)
from loralet.training.packs import adapter_run, build_pack, group, resolved

QV = ("query", "value")
FULL = Run("full", "m", "full", lr=1e-3)
PROBE = adapter_run("m", HEAD_ALONE, 1e-2, 0)


def lora(
    rank: int, dropout: float = 0.0, targets: tuple[str, ...] = QV, seed: int = 0, model: str = "m", alpha: float = 8.0
) -> Run:
    return adapter_run(model, AdapterSpec(rank=rank, alpha=alpha, dropout=dropout, targets=targets), 1e-3, seed)


def dora(rank: int, dropout: float = 0.0, targets: tuple[str, ...] = QV, alpha: float = 8.0) -> Run:
    return adapter_run("m", AdapterSpec("dora", rank, alpha, dropout, targets), 1e-3, 0)


def test_runs_with_different_batches_never_share_a_pack() -> None:
    runs = [lora(4), lora(8), lora(4, seed=1), lora(4, model="n"), FULL, lora(16), PROBE]
    packs = group(runs)
    assert packs == [[runs[0], runs[1], runs[5], runs[6]], [runs[2]], [runs[3]], [FULL]]
    for pack in group(runs * 1, lambda members: len(members) <= 2):
        assert len({(run.model, run.seed, run.role == "full") for run in pack}) == 1


@pytest.mark.parametrize(
    ("count", "room", "sizes"),
    [(9, 9, [9]), (9, 8, [4, 5]), (9, 4, [3, 3, 3]), (10, 3, [2, 3, 2, 3]), (3, 0, [1, 1, 1])],
)
def test_a_group_that_does_not_fit_is_split_into_the_fewest_equal_packs(
    count: int, room: int, sizes: list[int]
) -> None:
    runs = [lora(4, alpha=float(i + 1)) for i in range(count)]
    packs = group(runs, lambda members: len(members) <= room)
    assert [len(pack) for pack in packs] == sizes
    assert sorted(run.id for pack in packs for run in pack) == sorted(run.id for run in runs)


def test_methods_have_packs_of_their_own_and_the_linear_probe_goes_with_the_first() -> None:
    runs = [PROBE, dora(4), lora(4), dora(8), FULL]
    assert group(runs) == [[PROBE, runs[1], runs[3]], [runs[2]], [FULL]]
    methods = [build_pack(pack, TABLE, CLASSES, "pooler", 0.0).method.name for pack in group(runs)]
    assert methods == ["dora", "lora", "lora"]


def test_similar_runs_stay_together() -> None:
    runs = [lora(r, d, t) for t in (TARGETS, QV) for d in (0.1, 0.0) for r in (32, 4)]
    packs = group(runs, lambda members: len(members) <= 2)
    assert [{(run.adapter.targets, run.adapter.dropout) for run in pack} for pack in packs] == [
        {(t, d)} for t in (QV, TARGETS) for d in (0.0, 0.1)
    ]


def test_targets_are_resolved_on_the_encoder_of_the_run() -> None:
    every = resolved(lora(4, targets=("all-linear",)), TABLE)
    assert every.adapter.targets == TARGETS
    assert resolved(lora(4, targets=("value", "query")), TABLE).adapter.targets == QV
    assert resolved(PROBE, TABLE) == PROBE
    fused = EncoderTable(2, 128, 2, 512, 400, 64, fused_attention=True)
    assert resolved(lora(4, targets=("all-linear",)), fused).adapter.targets == (FUSED, *TARGETS[3:])
    with pytest.raises(ConfigError, match=r"m: targets has query, value: this model has query-key-value, attention-"):
        resolved(lora(4), fused)


TABLE = EncoderTable(layers=2, width=128, heads=2, feed_forward=512, vocabulary=400, positions=64)
BATCH, LENGTH = 16, 48


def kept_bytes(runs: Sequence[Run], head: str) -> tuple[int, int]:
    """Bytes of all tensors that autograd saves for the backward pass of one step, each storage once, and the parameters
    of one row of the pack's matrix."""
    torch.manual_seed(0)
    weights = {name: 0.05 * torch.randn(size) for name, size in TABLE.tensors().items()}
    weights |= {"pooler.weight": torch.randn(128, 128), "pooler.bias": torch.zeros(128)}
    pack = build_pack(runs, TABLE, CLASSES, head, 0.1)
    frozen = {tensor.untyped_storage().data_ptr() for tensor in weights.values()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in frozen:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    parameters = pack.start(weights).requires_grad_()
    batch = batch_of(torch.randint(0, 400, (BATCH, LENGTH)), torch.full((BATCH,), LENGTH))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = TorchProgram(pack, weights).differentiable_logits(parameters, batch, step=0)
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    logits.sum().backward()
    return total, parameters.shape[1]


KINDS: dict[str, list[Run]] = {
    "one": [lora(16)],
    "nine": [lora(r, alpha=a) for r in (4, 16, 32) for a in (64.0, 256.0, 512.0)],
    "all-linear": [lora(16, targets=TARGETS, alpha=a) for a in (1.0, 2.0, 3.0)],
    "dropout": [lora(16, 0.1, alpha=a) for a in (1.0, 2.0, 3.0)],
    "dora": [dora(16, targets=TARGETS, alpha=a) for a in (1.0, 2.0, 3.0)],
    "dora-dropout": [dora(16, 0.1, targets=TARGETS, alpha=a) for a in (1.0, 2.0, 3.0)],
    "output": [lora(8, targets=("output",), alpha=a) for a in (1.0, 2.0)],
    "full": [FULL],
}


@pytest.mark.parametrize("head", ["pooler", "mean"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_estimate_is_within_a_factor_of_two_of_saved_tensors(
    kind: str, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = KINDS[kind]
    measured, numbers = kept_bytes(runs, head)
    load = Load(TABLE, CLASSES, head, BATCH, LENGTH, 4)
    assert parameters_of(runs, load) == numbers
    # without checks, other copies of the parameters, the second part of the batch, freed memory and kernels
    for name, value in {"BATCH_TOKENS": 0, "COPIES": 1, "SHARDS": 1, "HEAP": 1, "KERNEL_CACHE": 0}.items():
        monkeypatch.setattr(memory, name, value)
    estimate = pack_bytes(runs, load)
    assert 1 / 2 < estimate / measured < 2, (estimate, measured)


STEP = """
from pathlib import Path
import torch
import numpy as np
from loralet.adapters.spec import AdapterSpec
from loralet.backends.torch import TorchBackend
from loralet.config import TrainingOptions
from loralet.data.tokens import Tokens
from loralet.models.table import EncoderTable
from loralet.tasks.single_label import SingleLabel
from loralet.training.corpus import Rows
from loralet.training.memory import Load, pack_bytes
from loralet.training.packs import adapter_run, build_pack
from loralet.training.loop import TrainingState, take_step

torch.set_num_threads(2)
table, rows, length = EncoderTable(2, 128, 2, 512, 400, 128), 64, 96
weights = {name: 0.05 * torch.randn(size) for name, size in table.tensors().items()}
weights |= {"pooler.weight": torch.randn(128, 128), "pooler.bias": torch.zeros(128)}
tokens = Tokens(np.zeros(rows * length, np.int32), np.arange(rows + 1) * length)
specs = [AdapterSpec(rank=16, alpha=i + 1.0, targets=("query", "value")) for i in range(8)]
runs = [adapter_run("m", spec, 1e-3, 0) for spec in specs]
backend = TorchBackend(torch.device("cpu"))
encoder = backend.load(weights, table, torch.float32)
task = SingleLabel(("a", "b", "c", "d"))

def peak(runs):
    pack = build_pack(runs, table, 4, "pooler", 0.1)
    state = TrainingState.start(backend, encoder, task, pack, runs, 0.0)
    own = Rows(tokens, torch.zeros(rows, dtype=torch.int64))
    take_step(state, own, np.arange(rows), TrainingOptions(batch_size=rows), 1.0)
    status = Path("/proc/self/status").read_text()  # ru_maxrss would begin at what the parent has had
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

load = Load(table, 4, "pooler", rows, length, 4)
one = peak(runs[:1])
print(peak(runs) - one, pack_bytes(runs, load) - pack_bytes(runs[:1], load))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_estimate_is_within_a_factor_of_two_of_process_memory() -> None:
    done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=True)
    measured, estimate = map(int, done.stdout.split())
    assert 1 / 2 < estimate / measured < 2, (estimate, measured)


def test_the_estimate_grows_with_the_amount_of_work() -> None:
    load = Load(TABLE, CLASSES, "mean", 64, LENGTH, 4)
    one, nine = pack_bytes(KINDS["nine"][:1], load), pack_bytes(KINDS["nine"], load)
    assert 3.5 < nine / one < 9.5
    assert pack_bytes(KINDS["nine"], Load(TABLE, CLASSES, "pooler", 64, LENGTH, 4)) < nine
    assert pack_bytes(KINDS["nine"], Load(TABLE, CLASSES, "mean", 64, LENGTH, 2)) < nine
    assert pack_bytes(KINDS["nine"], Load(TABLE, CLASSES, "mean", 128, LENGTH, 4)) > 1.8 * nine
    assert pack_work(KINDS["nine"], load) > 3 * pack_work(KINDS["nine"][:1], load)
    assert (
        pack_work([PROBE], load)
        < pack_work([lora(4)], load)
        < pack_work([lora(4, targets=TARGETS)], load)
        < pack_work([FULL], load)
    )


def test_the_estimate_is_that_of_the_backend_and_counts_the_learning_rate_factors() -> None:
    torch_load = Load(TABLE, CLASSES, "pooler", 64, LENGTH, 4)
    native_load = replace(torch_load, native=("lora",))
    nine, mixed = KINDS["nine"], [dora(16), PROBE]
    assert pack_bytes(nine, native_load) < 0.7 * pack_bytes(nine, torch_load)
    assert evaluation_bytes(nine, native_load) < 0.5 * evaluation_bytes(nine, torch_load)
    assert pack_bytes(mixed, native_load) == pack_bytes(mixed, torch_load), "torch computes DoRA"
    assert pack_bytes([FULL], native_load) == pack_bytes([FULL], torch_load), "and full fine-tuning"
    faster = [replace(run, lr_ratio=16.0) for run in nine]
    copy = 4 * len(nine) * parameters_of(nine, native_load)
    assert pack_bytes(faster, native_load) - pack_bytes(nine, native_load) == copy
    assert pack_bytes(faster, torch_load) - pack_bytes(nine, torch_load) == 2 * copy


def test_the_budget_is_given_or_a_share_of_free_memory(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    assert budget(2.5, cpu) == 2.5 * GIB
    (tmp_path / "meminfo").write_text("MemTotal:       8000 kB\nMemFree:         100 kB\nMemAvailable:   5000 kB\n")
    assert free_memory(cpu, tmp_path / "meminfo") == 5000 * 1024
    counted = free_memory(cpu, tmp_path / "absent")
    assert counted > 2**20
    assert 0 < budget(None, cpu) < SHARE_OF_FREE * 2**50


def test_peak_memory_is_that_of_the_process_on_linux(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tpython\nVmPeak:\t  900 kB\nVmHWM:\t     640 kB\n")
    assert peak_memory(tmp_path / "status") == 640 * 1024
    assert peak_memory() > 10 * 1024**2
    assert peak_memory(tmp_path / "absent") > 10 * 1024**2, "on other systems, the fallback is used"
