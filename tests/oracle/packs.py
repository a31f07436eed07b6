"""Small random packs of all shapes, their results on a backend, and the distance of two results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from loralet.adapters.adapter import Adapter
from loralet.adapters.layout import PackShape
from loralet.adapters.pack import Pack
from loralet.backends.base import Backend
from loralet.backends.batch import Batch
from loralet.models.forward import Weights
from loralet.models.pooling import HeadKind, Pooling
from loralet.models.table import EncoderTable

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}
"""Relative to the norm. fp32: different summation order. bf16: a few different roundings of 2^-9 per layer."""

PLAIN = EncoderTable(layers=3, width=64, heads=2, feed_forward=96, vocabulary=50, positions=80)
TABLES = {
    "bert": PLAIN,
    "roberta": replace(PLAIN, token_types=1, first_position=2, positions=82),
    "distilbert": replace(PLAIN, token_types=0, heads=4),
    "electra": replace(PLAIN, embedding_width=48),
    "one-layer": replace(PLAIN, layers=1),
    "wide": replace(PLAIN, width=192, heads=6, feed_forward=272),
}
"""Attention heads of 32 values, or 16 for distilbert. In the wide encoder, a branch is cheaper than merged weights."""
TARGETS = {
    "query-value": tuple(f"layers.{i}.{name}" for i in range(3) for name in ("query", "value")),
    "all-linear": tuple(f"layers.{i}.{name}" for i in range(3) for name in PLAIN.targets),
    "last-key": ("layers.2.key",),
    "middle-output": ("layers.1.output",),
    "middle-and-last": ("layers.1.intermediate", "layers.2.attention-output"),
    "none": (),
}
LENGTHS = torch.tensor([5, 70, 33, 1, 17, 64, 80, 2, 48, 16])
CLASSES = 4
TANH = Pooling()
"""BERT's pooler."""


def make_weights(table: EncoderTable, pooling: Pooling = TANH) -> Weights:
    """Random frozen tensors in fp32, including a pooler."""
    generator = torch.Generator().manual_seed(0)
    weights = {name: 0.15 * torch.randn(size, generator=generator) for name, size in table.tensors().items()}
    weights |= {name: 1 + t for name, t in weights.items() if name.endswith("norm.weight")}
    pooler = pooling.tensors(table.width)
    return weights | {name: 0.1 * torch.randn(size, generator=generator) for name, size in pooler.items()}


def make_batch(lengths: Tensor = LENGTHS, classes: int = CLASSES, vocabulary: int = 50) -> Batch:
    """Random rows of these lengths."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, vocabulary, (int(lengths.sum()),), generator=generator)
    return Batch(ids, F.pad(lengths.cumsum(0), (1, 0)), targets=torch.arange(len(lengths)) * 5 % classes)


BATCH = make_batch()


def random_parameters(pack: Pack, weights: Weights, seed: int = 1) -> Tensor:
    """Trained parameters, all non-zero except for padding."""
    parameters = pack.start(weights)
    parameters += 0.05 * torch.randn(parameters.shape, generator=torch.Generator().manual_seed(seed))
    return pack.fill([pack.extract(parameters, i) for i in range(len(pack.adapters))])


def some_adapters(table: EncoderTable, targets: tuple[str, ...], dropout: float = 0.0) -> list[Adapter]:
    """Three adapters: on all targets, on the first target only, and head only."""
    names = tuple(name for name in targets if int(name.split(".")[1]) < table.layers)
    return [
        Adapter(4, 2.0, dropout, names, 0),
        Adapter(7, 1.0, dropout, names[:1], 1),
        Adapter(0, 0.0, 0.0, (), 2),
    ]


@dataclass(frozen=True)
class Case:
    """A pack with its frozen weights and parameters.

    Args:
        weights: frozen weights in fp32.
        pack: the layout.
        parameters: trained parameters.
        dtype: dtype of the computation.
    """

    weights: Weights
    pack: Pack
    parameters: Tensor
    dtype: torch.dtype = torch.float32

    def alone(self, i: int) -> Case:
        """Adapter i alone in a pack."""
        pack = Pack(self.pack.shape, self.pack.adapters[i : i + 1])
        return replace(self, pack=pack, parameters=pack.fill([self.pack.extract(self.parameters, i)]))


def make_case(
    table: EncoderTable = PLAIN,
    head: HeadKind = "pooler",
    targets: str = "query-value",
    dtype: torch.dtype = torch.float32,
    *,
    dropout: float = 0.0,
    head_dropout: float = 0.0,
    adapters: Sequence[Adapter] | None = None,
    classes: int = CLASSES,
    pooling: Pooling = TANH,
    full: bool = False,
) -> Case:
    """A pack of some adapters."""
    weights = make_weights(table, pooling)
    own = some_adapters(table, TARGETS[targets], dropout) if adapters is None else adapters
    pack = Pack(PackShape(table, classes, head, head_dropout, full, pooling), own)
    return Case(weights, pack, random_parameters(pack, weights), dtype)


@dataclass(frozen=True)
class Result:
    """Results of a backend for a case and a batch; the losses are computed from these logits."""

    logits: Tensor
    losses: Tensor
    gradient: Tensor


def compute(backend: Backend, case: Case, batch: Batch = BATCH, step: int | None = None) -> Result:
    """Logits, losses and gradient, with the dropout of a step or without dropout."""
    targets = batch.targets
    assert targets is not None
    seen: list[tuple[Tensor, Tensor]] = []

    def row_losses(logits: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((rows.cpu(), logits.clone()))
        return cross_entropy(logits, targets.to(rows.device)[rows])

    program = backend.load(case.weights, case.pack.shape.table, case.dtype).program(case.pack)
    # The targets are row numbers, because the torch backend splits the rows into parts that end in any order.
    numbered = replace(batch, targets=torch.arange(len(batch)))
    losses, gradient = program.losses_and_gradient(case.parameters, numbered, row_losses, step)
    logits = torch.empty(len(seen[0][1]), len(batch), seen[0][1].shape[2])
    for rows, part in seen:
        logits[:, rows] = part.cpu()
    return Result(logits, losses, gradient)


def evaluate(backend: Backend, case: Case, batch: Batch = BATCH) -> Tensor:
    """Logits of the forward pass without a backward pass."""
    program = backend.load(case.weights, case.pack.shape.table, case.dtype).program(case.pack)
    return program.logits(case.parameters)(batch)


def cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's loss and its gradient (:data:`loralet.backends.base.RowLosses`)."""
    logp = logits.log_softmax(-1)
    places = targets.expand(len(logits), -1)[..., None]
    return -logp.gather(-1, places)[..., 0], logp.exp() - torch.zeros_like(logp).scatter(-1, places, 1.0)


def apart(ours: Tensor, theirs: Tensor) -> float:
    """Relative distance of two tensors, by norm."""
    return float((ours - theirs).norm() / theirs.norm())
