"""Small packs of random numbers for the kernels, in every shape, and how far two results lie apart."""

from __future__ import annotations

from dataclasses import replace

import torch

from loralet.adapters.lora import Adapter
from loralet.adapters.pack import Pack, PackShape
from loralet.backends.native.encoder import MAPS
from loralet.models.encoder import EncoderShape, Weights

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}
"""Of the norm. fp32: another order of summation. bf16: a few roundings of 2^-9 a layer, in other places."""

PLAIN = EncoderShape(layers=3, width=64, heads=2, feed_forward=96, vocabulary=50, positions=80)
SHAPES = {
    "bert": PLAIN,
    "roberta": replace(PLAIN, token_types=1, first_position=2, positions=82),
    "distilbert": replace(PLAIN, token_types=0, heads=4),
    "electra": replace(PLAIN, embedding_width=48),
    "one-layer": replace(PLAIN, layers=1),
}
"""Heads of 32 numbers, and of 16 for distilbert."""
TARGETS = {
    "query-value": tuple(f"layers.{i}.{name}" for i in range(3) for name in ("query", "value")),
    "all-linear": tuple(f"layers.{i}.{name}" for i in range(3) for name in MAPS),
    "last-key": ("layers.2.key",),
    "middle-output": ("layers.1.output",),
    "middle-and-last": ("layers.1.intermediate", "layers.2.attention-output"),
    "none": (),
}
LENGTHS = torch.tensor([5, 70, 33, 1, 17, 64, 80, 2, 48, 16])


def make_weights(shape: EncoderShape, dtype: torch.dtype) -> Weights:
    generator = torch.Generator().manual_seed(0)
    weights = {name: 0.15 * torch.randn(size, generator=generator) for name, size in shape.tensors().items()}
    weights |= {name: 1 + t for name, t in weights.items() if name.endswith("norm.weight")}
    weights |= {
        "pooler.weight": 0.1 * torch.randn(shape.width, shape.width, generator=generator),
        "pooler.bias": torch.zeros(shape.width),
    }
    return {name: t.to(dtype) for name, t in weights.items()}


def make_pack(
    shape: EncoderShape, dtype: torch.dtype, head: str, targets: tuple[str, ...]
) -> tuple[Pack, torch.Tensor]:
    """Three adapters: on all targets, on the first alone, a head alone; trained numbers that are not zero."""
    targets = tuple(name for name in targets if int(name.split(".")[1]) < shape.layers)
    adapters = [Adapter(4, 2.0, 0.0, targets, 0), Adapter(7, 1.0, 0.0, targets[:1], 1), Adapter(0, 0.0, 0.0, (), 2)]
    pack = Pack(make_weights(shape, dtype), PackShape(shape, 4, head), adapters)
    parameters = pack.start()
    parameters += 0.05 * torch.randn(parameters.shape, generator=torch.Generator().manual_seed(1))
    return pack, pack.fill([pack.extract(parameters, i) for i in range(3)])


def apart(ours: torch.Tensor, twin: torch.Tensor) -> float:
    return float((ours - twin).norm() / twin.norm())
