"""Head and loss in one call into C against the twin in torch and its autograd."""

from __future__ import annotations

import shutil

import pytest
import torch
from packs import LENGTHS, PLAIN, SHAPES, TARGETS, TOLERANCE, apart, make_pack
from torch import Tensor

from loralet.adapters import pack as module
from loralet.adapters.pack import Pack, PackShape
from loralet.backends.native import build

pytestmark = pytest.mark.skipif(not any(map(shutil.which, build.COMPILERS)), reason="no C compiler on this machine")

IDS = torch.randint(0, 50, (len(LENGTHS), 80), generator=torch.Generator().manual_seed(2))
LABELS = torch.arange(len(LENGTHS)) % 4


def dropped(pack: Pack, seed: int = 5) -> Tensor:
    """Factors of the features: 0, or 1 / 0.7."""
    kept = (
        torch.rand(
            len(pack.adapters), len(LENGTHS), pack.shape.encoder.width, generator=torch.Generator().manual_seed(seed)
        )
        > 0.3
    )
    return kept / 0.7


def both_ways(
    pack: Pack, parameters: Tensor, head: Tensor | None, labels: Tensor = LABELS
) -> list[tuple[Tensor, Tensor]]:
    """Losses and gradient by the kernels, and by torch."""
    found = []
    fused = pack.fused
    assert fused is not None
    for pack.fused in (fused, None):
        found.append(pack.losses_and_gradient(parameters, IDS, LENGTHS, labels, head=head))
    pack.fused = fused
    return found


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=["fp32", "bf16"])
@pytest.mark.parametrize("head", ["pooler", "trained-pooler", "mean"])
@pytest.mark.parametrize("targets", ["query-value", "all-linear", "none"])
@pytest.mark.parametrize("kind", SHAPES)
def test_losses_and_gradients_are_the_twins(kind: str, targets: str, head: str, dtype: torch.dtype) -> None:
    pack, parameters = make_pack(SHAPES[kind], dtype, head, TARGETS[targets])
    (losses, gradient), (twin, twin_gradient) = both_ways(pack, parameters, dropped(pack))
    (_, other), _ = both_ways(pack, parameters, dropped(pack, 6))
    assert apart(losses, twin) <= TOLERANCE[dtype]
    assert apart(gradient, twin_gradient) <= TOLERANCE[dtype] < apart(other, gradient)
    for name, theirs in pack.split(twin_gradient).items():
        if name.startswith(("classifier", "pooler")):
            assert apart(pack.split(gradient)[name], theirs) <= TOLERANCE[dtype], name
    assert float(gradient.abs().sum(1).min()) > 0


@pytest.mark.parametrize("head", ["pooler", "trained-pooler", "mean"])
def test_without_dropout_and_with_many_classes(head: str) -> None:
    pack, _ = make_pack(PLAIN, torch.float32, head, TARGETS["query-value"])
    pack = Pack(pack.weights, PackShape(PLAIN, 37, head), pack.adapters)
    parameters = pack.start() + 0.05 * torch.randn(pack.start().shape, generator=torch.Generator().manual_seed(1))
    ours, twin = both_ways(pack, parameters, None, torch.arange(len(LENGTHS)) * 4 % 37)
    assert apart(ours[0], twin[0]) <= TOLERANCE[torch.float32]
    assert apart(ours[1], twin[1]) <= TOLERANCE[torch.float32]


def test_an_adapter_in_a_pack_has_the_loss_and_the_gradient_it_has_alone() -> None:
    pack, parameters = make_pack(PLAIN, torch.bfloat16, "trained-pooler", TARGETS["all-linear"])
    factors = dropped(pack)
    losses, gradient = pack.losses_and_gradient(parameters, IDS, LENGTHS, LABELS, head=factors)
    for i, adapter in enumerate(pack.adapters[:2]):
        alone = Pack(pack.weights, pack.shape, [adapter])
        loss, own = alone.losses_and_gradient(
            alone.fill([pack.extract(parameters, i)]), IDS, LENGTHS, LABELS, head=factors[i : i + 1]
        )
        assert loss[0] == losses[i]
        for name, tensor in alone.extract(own, 0).items():
            torch.testing.assert_close(pack.extract(gradient, i)[name], tensor, rtol=1e-5, atol=1e-6)


def test_the_result_does_not_depend_on_the_threads() -> None:
    pack, parameters = make_pack(PLAIN, torch.bfloat16, "pooler", TARGETS["all-linear"])
    losses, gradient = pack.losses_and_gradient(parameters, IDS, LENGTHS, LABELS)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            again = pack.losses_and_gradient(parameters, IDS, LENGTHS, LABELS)
            assert torch.equal(again[0], losses)
            assert torch.equal(again[1], gradient)
    finally:
        torch.set_num_threads(threads)


def test_large_features_and_logits_saturate_and_what_is_not_a_number_stays_so() -> None:
    pack, parameters = make_pack(PLAIN, torch.float32, "pooler", TARGETS["query-value"])
    tensors = pack.split(parameters)
    tensors["classifier.weight"][0] *= 1e4
    tensors["classifier.weight"][1] = torch.nan
    pack.pooler["pooler.weight"] *= 1e3
    pack.weights = pack.weights | pack.pooler
    (losses, gradient), (twin, twin_gradient) = both_ways(pack, parameters, None)
    assert losses[1].isnan()
    for i in (0, 2):
        assert losses[i].isfinite()
        assert float(losses[i]) == pytest.approx(float(twin[i]), rel=1e-5)
        # A feature within 1e-4 of 1 leaves 1 - f * f three or four digits, in either order of summation.
        assert apart(gradient[i], twin_gradient[i]) <= 1e-3
    assert float(losses[0]) > 100


def test_a_pooler_that_the_kernel_does_not_have_goes_torchs_way(monkeypatch: pytest.MonkeyPatch) -> None:
    pack, parameters = make_pack(PLAIN, torch.float32, "pooler", TARGETS["query-value"])
    tanh = pack.losses_and_gradient(parameters, IDS, LENGTHS, LABELS)
    relu = Pack(pack.weights, PackShape(PLAIN, 4, "pooler", activation="relu"), pack.adapters)
    monkeypatch.setattr(module, "head_pass", None)
    (losses, gradient), twin = both_ways(relu, parameters, None)
    assert apart(losses, twin[0]) <= TOLERANCE[torch.float32] < apart(losses, tanh[0])
    assert apart(gradient, twin[1]) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize("wrong", [-1, 4])
def test_a_label_that_is_no_class_is_refused(wrong: int) -> None:
    pack, parameters = make_pack(PLAIN, torch.float32, "pooler", TARGETS["query-value"])
    with pytest.raises(IndexError, match=f"labels run .*{wrong}.*there are 4 classes"):
        pack.losses_and_gradient(parameters, IDS, LENGTHS, torch.where(LABELS == 3, wrong, LABELS))
