"""The encoder in one call into C against its twin in torch: logits and gradients, for every shape, head and set of targets."""

from __future__ import annotations

import ctypes
import shutil
from dataclasses import replace

import pytest
import torch
from packs import LENGTHS, PLAIN, SHAPES, TARGETS, TOLERANCE, apart, make_pack, make_weights

from loralet.adapters.lora import Adapter, DropoutMasks
from loralet.adapters.pack import Pack, PackShape
from loralet.backends.native import build
from loralet.backends.native import encoder as fused
from loralet.backends.native.dropout import Draw, Draws, DropoutStruct, dropout_struct
from loralet.backends.native.encoder import MAPS, fits
from loralet.backends.native.head import HeadStruct
from loralet.training import optimizer as optim

pytestmark = pytest.mark.skipif(not any(map(shutil.which, build.COMPILERS)), reason="no C compiler on this machine")


def logits_and_gradient(
    pack: Pack, parameters: torch.Tensor, ids: torch.Tensor, masks: DropoutMasks | Draws | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = parameters.clone().requires_grad_()
    logits = pack.logits(leaf, masks)(ids, LENGTHS)
    labels = torch.arange(len(ids)) % 4
    losses = -logits.log_softmax(-1)[:, torch.arange(len(ids)), labels]
    return logits.detach(), torch.autograd.grad(losses.sum(), leaf)[0]


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["fp32", "bf16"])
@pytest.mark.parametrize("head", ["pooler", "trained-pooler", "mean"])
@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("kind", SHAPES)
def test_logits_and_gradients_are_the_twins(kind: str, targets: str, head: str, dtype: torch.dtype) -> None:
    pack, parameters = make_pack(SHAPES[kind], dtype, head, TARGETS[targets])
    ids = torch.randint(0, 50, (len(LENGTHS), 80), generator=torch.Generator().manual_seed(2))
    ours, our_gradient = logits_and_gradient(pack, parameters, ids)
    with torch.no_grad():
        assert torch.equal(pack.logits(parameters)(ids, LENGTHS), ours), "evaluation computes what training does"
    assert pack.fused is not None
    pack.fused = None
    twin, gradient = logits_and_gradient(pack, parameters, ids)
    moved = parameters + 0.1 * torch.randn(parameters.shape, generator=torch.Generator().manual_seed(3))
    other, other_gradient = logits_and_gradient(pack, moved, ids)
    assert apart(ours, twin) <= TOLERANCE[dtype] < apart(other, twin)
    assert apart(our_gradient, gradient) <= TOLERANCE[dtype] < apart(other_gradient, gradient)


def test_a_row_does_not_depend_on_its_batch_mates_nor_on_the_threads() -> None:
    pack, parameters = make_pack(PLAIN, torch.bfloat16, "pooler", TARGETS["all-linear"])
    ids = torch.randint(0, 50, (len(LENGTHS), 80), generator=torch.Generator().manual_seed(2))
    together, gradient = logits_and_gradient(pack, parameters, ids)
    with torch.no_grad():
        for i, length in enumerate(LENGTHS.tolist()):
            alone = pack.logits(parameters)(ids[i : i + 1, :length], LENGTHS[i : i + 1])
            assert apart(alone[:, 0], together[:, i]) < 1e-6, "the head, in torch, may sum in another order"
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert torch.equal(logits_and_gradient(pack, parameters, ids)[1], gradient)
    finally:
        torch.set_num_threads(threads)


def test_an_adapter_in_a_pack_has_the_gradient_it_has_alone() -> None:
    pack, parameters = make_pack(PLAIN, torch.float32, "pooler", TARGETS["query-value"])
    ids = torch.randint(0, 50, (len(LENGTHS), 80), generator=torch.Generator().manual_seed(2))
    _, together = logits_and_gradient(pack, parameters, ids)
    for i in range(3):
        alone = Pack(pack.weights, pack.shape, pack.adapters[i : i + 1])
        _, gradient = logits_and_gradient(alone, alone.fill([pack.extract(parameters, i)]), ids)
        own, expected = pack.extract(together, i), alone.extract(gradient, 0)
        for name in expected:
            assert apart(own[name], expected[name]) <= TOLERANCE[torch.float32], name


class SameMasks(DropoutMasks):
    """Torch's way with the masks that the kernels draw."""

    def __init__(self, pack: Pack, draws: Draws) -> None:
        self.adapters, self.draws = pack.adapters, draws

    def apply(self, name: str, x: torch.Tensor) -> torch.Tensor:
        factors = torch.ones(len(self.draws), *x.shape[1:])
        inside = torch.arange(80) < LENGTHS[:, None]
        for own, adapter, drawn in zip(factors, self.adapters, self.draws, strict=True):
            if drawn is not None and name in adapter.linears:
                whole = torch.ones(len(LENGTHS), 80, x.shape[-1])
                whole[inside] = kernel_factors(drawn, name, int(LENGTHS.sum()), x.shape[-1])
                own.copy_(whole[:, : x.shape[2]])
        return x * factors.to(x.dtype)


def kernel_factors(drawn: Draw, name: str, tokens: int, width: int) -> torch.Tensor:
    _, layer, target = name.split(".")
    factors, found = torch.empty(tokens, width), build.library()
    assert found is not None
    found["fp32"]["mask_factors"](
        ctypes.byref(dropout_struct(drawn)),
        int(layer) * len(MAPS) + MAPS.index(target),
        tokens,
        width,
        factors.data_ptr(),
    )
    return factors


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["fp32", "bf16"])
@pytest.mark.parametrize("head", ["pooler", "mean"])
@pytest.mark.parametrize("targets", [name for name in TARGETS if name != "none"])
@pytest.mark.parametrize("kind", ["bert", "distilbert", "one-layer"])
def test_dropout_on_the_adapters_is_the_twins(kind: str, targets: str, head: str, dtype: torch.dtype) -> None:
    shape = SHAPES[kind]
    names = tuple(name for name in TARGETS[targets] if int(name.split(".")[1]) < shape.layers) or (
        "layers.0.query",
        "layers.0.key",
    )
    adapters = [
        Adapter(4, 2.0, 0.3, names, 0),
        Adapter(8, 1.0, 0.0, names, 1),
        Adapter(20, 1.0, 0.1, names[-1:], 2),
        Adapter(0, 0.0, 0.0, (), 3),
    ]
    pack = Pack(make_weights(shape, dtype), PackShape(shape, 4, head), adapters)
    parameters = pack.start()
    parameters += 0.05 * torch.randn(parameters.shape, generator=torch.Generator().manual_seed(1))
    parameters = pack.fill([pack.extract(parameters, i) for i in range(4)])
    ids = torch.randint(0, 50, (len(LENGTHS), 80), generator=torch.Generator().manual_seed(2))
    draws, others = (pack.masks([torch.Generator().manual_seed(seed + i) for i in range(4)]) for seed in (0, 9))
    assert isinstance(draws, tuple)
    assert [drawn is not None for drawn in draws] == [True, False, True, False]
    ours, our_gradient = logits_and_gradient(pack, parameters, ids, draws)
    other, _ = logits_and_gradient(pack, parameters, ids, others)
    pack.fused = None
    twin, gradient = logits_and_gradient(pack, parameters, ids, SameMasks(pack, draws))
    tolerance = TOLERANCE[dtype] / (1 - 0.3)  # what is kept is larger by this, and so are its roundings
    for i in range(4):
        assert apart(ours[i], twin[i]) <= tolerance, i
        assert apart(our_gradient[i], gradient[i]) <= tolerance, i
        assert (not torch.equal(other[i], ours[i])) == (adapters[i].dropout > 0), i


def test_masks_are_independent_and_of_the_probability_asked_for() -> None:
    def factors(p: float, keys: tuple[int, int], name: str = "layers.0.query") -> torch.Tensor:
        return kernel_factors(Draw(p, keys), name, 500, 128)

    first = factors(0.5, (1, 2))
    assert torch.equal(first, factors(0.5, (1, 2)))
    for other in (
        factors(0.5, (3, 2)),
        factors(0.5, (1, 3)),
        factors(0.5, (1, 2), "layers.0.value"),
        first.roll(1, 0),
        first.roll(1, 1),
    ):
        assert ((first == 0) & (other == 0)).float().mean().item() == pytest.approx(0.25, abs=0.01)
    for p in (0.1, 0.3, 0.9):
        drawn = factors(p, (7, 8))
        assert (drawn == 0).float().mean().item() == pytest.approx(p, abs=0.01)
        assert set(drawn.unique().tolist()) == {0.0, torch.tensor(1 / (1 - p)).item()}


def test_what_the_kernels_cannot_do_goes_the_other_way() -> None:
    weights = make_weights(PLAIN, torch.float32)
    assert fits(weights, PLAIN)
    for shape in (
        replace(PLAIN, activation="relu"),
        replace(PLAIN, width=48),
        replace(PLAIN, heads=8),
        replace(PLAIN, feed_forward=100),
    ):
        assert not fits(weights, shape)
    assert not fits({name: t.double() for name, t in weights.items()}, PLAIN)


def test_what_would_read_beyond_a_table_is_refused() -> None:
    pack, parameters = make_pack(PLAIN, torch.float32, "pooler", TARGETS["query-value"])
    logits, ids = pack.logits(parameters), torch.full((2, 80), 7)
    lengths = torch.tensor([80, 3])
    assert logits(ids, lengths).isfinite().all()
    for wrong, rows in ((50, lengths), (-1, lengths), (7, torch.tensor([80, 0])), (7, torch.tensor([81, 3]))):
        with pytest.raises(IndexError, match=r"vocabulary|tokens"):
            logits(ids.index_fill(1, torch.tensor([0]), wrong), rows)


def test_a_forward_pass_is_gone_through_backwards_only_once() -> None:
    pack, parameters = make_pack(PLAIN, torch.float32, "pooler", TARGETS["query-value"])
    leaf = parameters.requires_grad_()
    loss = pack.logits(leaf)(torch.full((2, 80), 7), torch.tensor([80, 3])).sum()
    torch.autograd.grad(loss, leaf, retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        torch.autograd.grad(loss, leaf)


def test_adapters_on_different_maps_and_the_longest_rows() -> None:
    shape = replace(PLAIN, positions=512)
    adapters = [
        Adapter(4, 2.0, 0.0, ("layers.0.key", "layers.2.value"), 0),
        Adapter(8, 1.0, 0.0, ("layers.1.output",), 1),
        Adapter(3, 1.0, 0.0, ("layers.0.intermediate", "layers.2.query"), 2),
    ]
    pack = Pack(make_weights(shape, torch.float32), PackShape(shape, 4, "pooler"), adapters)
    parameters = pack.start() + 0.05 * torch.randn(pack.start().shape, generator=torch.Generator().manual_seed(1))
    ids, lengths = (
        torch.randint(0, 50, (3, 512), generator=torch.Generator().manual_seed(2)),
        torch.tensor([512, 1, 300]),
    )
    results = []
    for way in (pack.fused, None):
        pack.fused = way
        leaf = parameters.clone().requires_grad_()
        logits = pack.logits(leaf)(ids, lengths)
        results.append((logits.detach(), torch.autograd.grad(logits.square().sum(), leaf)[0]))
    for ours, twin in zip(*results, strict=True):
        assert apart(ours, twin) <= TOLERANCE[torch.float32]


def test_dropout_does_not_depend_on_the_threads_and_is_for_one_batch() -> None:
    pack, parameters = make_pack(PLAIN, torch.bfloat16, "pooler", TARGETS["all-linear"])
    pack.adapters = tuple(replace(adapter, dropout=0.2) for adapter in pack.adapters)
    ids = torch.randint(0, 50, (len(LENGTHS), 80), generator=torch.Generator().manual_seed(2))
    draws = pack.masks([torch.Generator().manual_seed(i) for i in range(3)])
    gradients, threads = [], torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            gradients.append(logits_and_gradient(pack, parameters, ids, draws)[1])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*gradients)
    logits = pack.logits(parameters, draws)
    logits(ids, LENGTHS)
    with pytest.raises(RuntimeError, match="draw anew"):
        logits(ids, LENGTHS)


def test_a_forward_pass_outlives_the_training_after_it() -> None:
    """Its weights are its own, though training makes the backbone's anew, for the backward pass."""
    pack, parameters = make_pack(PLAIN, torch.float32, "pooler", TARGETS["query-value"])
    ids = torch.randint(0, 50, (len(LENGTHS), 80), generator=torch.Generator().manual_seed(2))
    before = pack.logits(parameters)
    expected = before(ids, LENGTHS)
    logits_and_gradient(pack, parameters, ids)
    torch.full((4096, 4096), 1e30)  # what is freed is soon written over
    assert torch.equal(before(ids, LENGTHS), expected)
    assert torch.equal(before(ids.int(), LENGTHS.int()), expected)


def test_structures_have_the_sizes_that_c_gives_them() -> None:
    sizes, found = (ctypes.c_int64 * 6)(), build.library()
    assert found is not None
    found["fp32"]["structure_sizes"](ctypes.addressof(sizes))
    ours = (fused._Layer, fused._Encoder, fused._LowRank, DropoutStruct, optim._Course, HeadStruct)
    assert list(sizes) == [ctypes.sizeof(structure) for structure in ours]
