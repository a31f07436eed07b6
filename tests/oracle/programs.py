"""Packs over the small random models, computed by any backend."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from backends import ORACLE
from models import CLASSES, Pair
from torch import Tensor

from loralet.adapters.pack import Pack
from loralet.adapters.spec import AdapterSpec
from loralet.backends.base import Backend, Program
from loralet.backends.batch import Batch, batch_of
from loralet.backends.torch import TorchProgram
from loralet.models.pooling import HeadKind
from loralet.runs.run import Run
from loralet.tasks.single_label import SingleLabel
from loralet.training.packs import adapter_run, build_pack, resolved

CPU = ORACLE
TASK = SingleLabel(tuple(f"class {i}" for i in range(CLASSES)))


def run_of(lr: float = 1e-3, seed: int = 0, **spec: object) -> Run:
    """A run on the model ``m``: an adapter, or a linear probe if the rank is 0."""
    return adapter_run("m", AdapterSpec(**spec), lr, seed)  # type: ignore[arg-type]


def pack_for(pair: Pair, runs: list[Run], head: HeadKind = "pooler", head_dropout: float = 0.0) -> Pack:
    """The pack of these runs on the pair's model."""
    table = pair.ours.table
    return build_pack([resolved(run, table) for run in runs], table, CLASSES, head, head_dropout)


def program_of(pair: Pair, pack: Pack, backend: Backend = CPU) -> Program:
    """A pack over the pair's model in fp32."""
    return backend.load(pair.ours.weights, pair.ours.table, torch.float32).program(pack)


def torch_program_of(pair: Pair, pack: Pack) -> TorchProgram:
    """The same by torch on the CPU, whose logits are differentiable."""
    return CPU.load(pair.ours.weights, pair.ours.table, torch.float32).program(pack)


def in_parts(program: Program, *counts: int) -> Iterator[Program]:
    """A torch program with each of these numbers of parts of a batch; a program without parts once, as it is."""
    if not isinstance(program, TorchProgram):
        yield program
        return
    for program.parts in counts:
        yield program


def device_of(program: Program) -> torch.device:
    """The device of a program's parameters."""
    return program.device if isinstance(program, TorchProgram) else CPU.device


def logits_of(program: Program, parameters: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
    """Logits ``[k b c]`` of padded rows, without dropout, on the CPU."""
    return batch_logits(program, parameters, batch_of(ids, lengths))


def batch_logits(program: Program, parameters: Tensor, batch: Batch) -> Tensor:
    """Logits ``[k b c]`` of a batch, without dropout, on the CPU."""
    return program.logits(parameters.to(device_of(program)))(batch)


def losses_and_gradient(
    program: Program, parameters: Tensor, ids: Tensor, lengths: Tensor, labels: Tensor, step: int | None = None
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy ``[k]`` of padded rows, and the gradient ``[k n]`` of its sum, on the CPU."""
    return batch_losses(program, parameters, batch_of(ids, lengths, labels), step)


def batch_losses(program: Program, parameters: Tensor, batch: Batch, step: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy ``[k]`` of a batch, and the gradient ``[k n]`` of its sum, on the CPU."""
    losses, gradient = program.losses_and_gradient(parameters.to(device_of(program)), batch, TASK.row_losses, step)
    return losses.cpu(), gradient.cpu()
