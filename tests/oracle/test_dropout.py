"""Dropout masks: bitwise equal in torch and the kernels, with the required statistics."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from backends import each_native
from torch import Tensor

from loralet.adapters.adapter import Adapter
from loralet.adapters.counters import dropout_keys, head_index, linear_index
from loralet.adapters.dropout import Dropout, keep_factors
from loralet.backends.native.arrays import BF16, FP32
from loralet.backends.native.backend import NativeBackend
from loralet.backends.native.bindings import Structure
from loralet.backends.native.branches import mask_fields
from loralet.backends.native.torch_arrays import array_of, tensor_of
from loralet.models.table import EncoderTable

TABLE = EncoderTable(layers=3, width=64, heads=2, feed_forward=96, vocabulary=50, positions=80)


@each_native
@pytest.mark.parametrize("probability", [1e-6, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(("seed", "step"), [(0, 0), (17, 3), (2**40 + 1, 10**6)])
@pytest.mark.parametrize("first", [0, 2**25 + 3, 2**40 + 9])
def test_the_kernels_draw_the_same_masks_as_torch(
    first: int, seed: int, step: int, probability: float, backend: NativeBackend
) -> None:
    """Bitwise equal; token numbers beyond 32 bits wrap around."""
    keys, mask = dropout_keys(seed, step), Structure("Mask")
    mask.set(**mask_fields(probability, keys))
    ours, index = torch.empty(40, 96), linear_index(TABLE, "layers.2.output")
    out = array_of(ours)
    backend.kernels.dropout_factors(mask, index, first, out)
    assert torch.equal(ours, keep_factors(probability, keys, index, first + torch.arange(40), 96))
    backend.kernels.dropout_factors(mask, index - 1, first, out)
    other = keep_factors(probability, keys, index, first + torch.arange(40), 96)
    assert torch.equal(ours, other) == (probability == 1e-6)


def factors(probability: float, seed: int = 1, step: int = 2, name: str = "layers.0.query") -> Tensor:
    keys = dropout_keys(seed, step)
    return keep_factors(probability, keys, linear_index(TABLE, name), torch.arange(500), 128)


def test_masks_are_independent() -> None:
    first = factors(0.5)
    assert torch.equal(first, factors(0.5))
    others = [factors(0.5, seed=2), factors(0.5, step=3), factors(0.5, name="layers.0.value")]
    for other in (*others, first.roll(1, 0), first.roll(1, 1)):
        assert ((first == 0) & (other == 0)).float().mean().item() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("probability", [0.1, 0.3, 0.9])
def test_the_dropped_share_matches_the_probability(probability: float) -> None:
    drawn = factors(probability)
    assert (drawn == 0).float().mean().item() == pytest.approx(probability, abs=0.01)
    assert set(drawn.unique().tolist()) == {0.0, torch.tensor(1 / (1 - probability)).item()}


def test_every_place_has_a_unique_number() -> None:
    names = [f"layers.{i}.{name}" for i in range(TABLE.layers) for name in TABLE.targets]
    numbers = [linear_index(TABLE, name) for name in names]
    assert [*numbers, head_index(TABLE)] == list(range(len(names) + 1))


def test_an_adapter_has_the_same_masks_in_a_pack_and_alone() -> None:
    adapters = [Adapter(4, 1.0, 0.5, ("layers.0.query",), seed) for seed in (0, 1)]
    adapters.append(replace(adapters[0], dropout=0.0))
    pack, alone = Dropout(TABLE, adapters, 7, 0.2), Dropout(TABLE, adapters[1:2], 7, 0.2)
    tokens = torch.arange(24).view(4, 6)
    together = pack.factors("layers.0.query", tokens, 64)
    assert torch.equal(together[1:2], alone.factors("layers.0.query", tokens, 64))
    assert not torch.equal(together[0], together[1])
    assert (together[2] == 1).all()
    heads, own = pack.head_factors(torch.arange(4), 64), alone.head_factors(torch.arange(4), 64)
    assert heads is not None
    assert own is not None
    assert torch.equal(heads[1:2], own)
    assert Dropout(TABLE, adapters, 7).head_factors(torch.arange(4), 64) is None
    assert pack.applies("layers.0.query")
    assert not pack.applies("layers.0.key")


@each_native
def test_values_are_rounded_to_bf16_as_in_torch(backend: NativeBackend) -> None:
    """Ties to even; infinities and NaN stay what they are."""
    bits = torch.tensor([0x7FFFFFFF, 0x7F800001, 0x7F800000, 0x3F808000, 0x3F818000, 0x3F80FFFF, 0x7F7FFFFF, 1, 0])
    values = torch.cat([bits.to(torch.int32).view(torch.float32), torch.randn(100)])
    values = torch.cat([values, -values])
    found = tensor_of(backend.kernels.convert(values.numpy(), BF16)).float()
    assert torch.equal(found.nan_to_num(7.0), values.bfloat16().float().nan_to_num(7.0))
    assert torch.equal(
        tensor_of(backend.kernels.convert(array_of(values.bfloat16()), FP32)).nan_to_num(7.0), found.nan_to_num(7.0)
    )
