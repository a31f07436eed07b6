"""Packs over the small random models, computed by the torch backend."""

from __future__ import annotations

import torch
from models import CLASSES, Pair
from torch import Tensor

from loralet.adapters.pack import Pack
from loralet.adapters.spec import AdapterSpec
from loralet.backends.batch import batch_of
from loralet.backends.torch import TorchBackend, TorchProgram
from loralet.models.pooling import HeadKind
from loralet.runs.run import Run
from loralet.tasks.single_label import SingleLabel
from loralet.training.packs import adapter_run, build_pack, resolved

CPU = TorchBackend(torch.device("cpu"))
TASK = SingleLabel(tuple(f"class {i}" for i in range(CLASSES)))


def run_of(lr: float = 1e-3, seed: int = 0, **spec: object) -> Run:
    """A run on the model ``m``: an adapter, or a linear probe if the rank is 0."""
    return adapter_run("m", AdapterSpec(**spec), lr, seed)  # type: ignore[arg-type]


def pack_for(pair: Pair, runs: list[Run], head: HeadKind = "pooler", head_dropout: float = 0.0) -> Pack:
    """The pack of these runs on the pair's model."""
    table = pair.ours.table
    return build_pack([resolved(run, table) for run in runs], table, CLASSES, head, head_dropout)


def program_of(pair: Pair, pack: Pack) -> TorchProgram:
    """A pack over the pair's model in fp32."""
    return CPU.load(pair.ours.weights, pair.ours.table, torch.float32).program(pack)


def logits_of(program: TorchProgram, parameters: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
    """Logits ``[k b c]`` of padded rows, without dropout."""
    return program.logits(parameters)(batch_of(ids, lengths))


def losses_and_gradient(
    program: TorchProgram, parameters: Tensor, ids: Tensor, lengths: Tensor, labels: Tensor, step: int | None = None
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy ``[k]`` of padded rows, and the gradient ``[k n]`` of its sum."""
    return program.losses_and_gradient(parameters, batch_of(ids, lengths, labels), TASK.row_losses, step)
