"""The operation count of the benchmarks equals torch's own count of the same forward and backward passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flops import flops
from packs import CLASSES, PLAIN, make_batch, make_weights, random_parameters
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from loralet.adapters.adapter import Adapter
from loralet.adapters.base import Stack
from loralet.adapters.pack import Pack, PackShape
from loralet.models.forward import Linear, encode, frozen
from loralet.models.heads import classify, first_token, pool

LENGTHS = {3: 4, 7: 2}
"""Number of texts of each length; a batch holds one length, so that there is no padding."""


def pack_on(targets: tuple[str, ...], ranks: tuple[int, ...]) -> Pack:
    names = tuple(f"layers.{i}.{name}" for i in range(PLAIN.layers) for name in targets)
    return Pack(PackShape(PLAIN, CLASSES), [Adapter(rank, 1.0, 0.0, names, i) for i, rank in enumerate(ranks)])


def counted(pack: Pack, backward: bool) -> int:
    """Operations of LoRA as branches, counted by torch."""
    weights = make_weights(PLAIN)
    parameters = random_parameters(pack, weights).requires_grad_()
    with FlopCounterMode(display=False) as counter:
        for length, texts in LENGTHS.items():
            tensors = pack.split(parameters)
            stacks, plain = pack.stacks(tensors), frozen(weights)

            def linear(name: str, x: Tensor, stacks: dict[str, Stack] = stacks, plain: Linear = plain) -> Tensor:
                if name not in stacks:
                    return plain(name, x)
                dropped = x.expand(len(pack.adapters), *x.shape[1:])
                return pack.method.branch(x, dropped, weights[f"{name}.weight"], weights[f"{name}.bias"], stacks[name])

            batch = make_batch(torch.full((texts,), length)).padded()
            first = first_token(encode(weights, PLAIN, batch, linear, "first"))
            pooled = pool(first, {name: weights[name][None] for name in ("pooler.weight", "pooler.bias")})
            logits = classify(pooled, tensors["classifier.weight"], tensors["classifier.bias"])
            if backward:
                logits.sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("ranks", [(4,), (4, 4, 4)])
@pytest.mark.parametrize("targets", [("query", "value"), PLAIN.targets, ("attention-output",), ("output",)])
def test_operations_are_those_that_torch_counts(
    targets: tuple[str, ...], ranks: tuple[int, ...], backward: bool
) -> None:
    pack = pack_on(targets, ranks)
    lengths = np.repeat(list(LENGTHS), list(LENGTHS.values()))
    assert flops(pack, lengths, backward) == counted(pack, backward)
