"""The head in C, compared with the torch backend: poolers, mean, dropout, many classes, extreme values."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import pytest
import torch
from backends import ORACLE, each_native, each_native_and_type
from packs import BATCH, LENGTHS, PLAIN, TOLERANCE, apart, compute, cross_entropy, evaluate, make_batch, make_case
from torch import Tensor

from loralet.backends.native.backend import NativeBackend
from loralet.backends.native.head import POOLING, kernel_has
from loralet.models.pooling import HeadKind, Pooling

HEADS = pytest.mark.parametrize("head", ["pooler", "trained-pooler", "mean"])


@each_native_and_type
@HEADS
@pytest.mark.parametrize("targets", ["query-value", "none"])
def test_head_dropout_matches_torch(dtype: torch.dtype, targets: str, head: HeadKind, backend: NativeBackend) -> None:
    case = make_case(head=head, targets=targets, dtype=dtype, head_dropout=0.3)
    ours, theirs, other = compute(backend, case, step=5), compute(ORACLE, case, step=5), compute(backend, case, step=6)
    tolerance = TOLERANCE[dtype] / (1 - 0.3)
    assert apart(ours.losses, theirs.losses) <= tolerance
    assert apart(ours.logits, theirs.logits) <= tolerance < apart(other.logits, ours.logits)
    for name, own in case.pack.split(theirs.gradient).items():
        if name.startswith(("classifier", "pooler")):
            assert apart(case.pack.split(ours.gradient)[name], own) <= tolerance, name
    assert apart(compute(backend, case).logits, ours.logits) > tolerance, "without a step there is no dropout"


@each_native
@HEADS
def test_many_classes(head: HeadKind, backend: NativeBackend) -> None:
    case, batch = make_case(head=head, classes=37), make_batch(classes=37)
    ours, theirs = compute(backend, case, batch), compute(ORACLE, case, batch)
    assert ours.logits.shape == (3, len(batch), 37)
    assert apart(ours.losses, theirs.losses) <= TOLERANCE[torch.float32]
    assert apart(ours.gradient, theirs.gradient) <= TOLERANCE[torch.float32]


@each_native
def test_large_values_saturate_and_nan_propagates(backend: NativeBackend) -> None:
    case = make_case()
    tensors = case.pack.split(case.parameters)
    tensors["classifier.weight"][0] *= 1e4
    tensors["classifier.weight"][1] = torch.nan
    case.weights["pooler.weight"] *= 1e3
    ours, theirs = compute(backend, case), compute(ORACLE, case)
    assert ours.losses[1].isnan()
    for i in (0, 2):
        assert float(ours.losses[i]) == pytest.approx(float(theirs.losses[i]), rel=1e-5)
        # A saturated tanh has gradients near the rounding error of 1.
        assert apart(ours.gradient[i], theirs.gradient[i]) <= 1e-3
    assert float(ours.losses[0]) > 100


@each_native
@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize(
    "pooling",
    [Pooling("relu"), Pooling("gelu"), Pooling(bias=False), Pooling("gelu", bias=False, norm=True)],
    ids=["relu", "gelu", "no-bias", "norm"],
)
def test_an_unsupported_pooler_is_computed_in_torch(pooling: Pooling, trained: bool, backend: NativeBackend) -> None:
    head: HeadKind = "trained-pooler" if trained else "pooler"
    case = make_case(head=head, pooling=pooling, head_dropout=0.2, dropout=0.1)
    ours, theirs = compute(backend, case, step=1), compute(ORACLE, case, step=1)
    assert apart(ours.losses, theirs.losses) <= TOLERANCE[torch.float32]
    assert apart(ours.logits, theirs.logits) <= TOLERANCE[torch.float32] < apart(evaluate(backend, case), ours.logits)
    for name, own in case.pack.split(theirs.gradient).items():
        assert apart(case.pack.split(ours.gradient)[name], own) <= 1e-5, name
    assert apart(evaluate(backend, case), evaluate(ORACLE, case)) <= TOLERANCE[torch.float32]


@dataclass(frozen=True)
class LaterPooling(Pooling):
    """A pooler with a field unknown to the kernels."""

    scale: float = 1.0


def test_an_unknown_field_of_the_pooler_is_rejected() -> None:
    assert set(POOLING) == {field.name for field in fields(Pooling)}
    heads: tuple[HeadKind, ...] = ("pooler", "trained-pooler")
    for head in heads:
        assert kernel_has(head, Pooling())
        assert kernel_has(head, Pooling(epsilon=1e-12))
        assert not kernel_has(head, LaterPooling())
        assert not kernel_has(head, Pooling("relu"))
    assert kernel_has("mean", LaterPooling()), "the mean has no pooler"


@each_native
def test_a_custom_loss_is_called(backend: NativeBackend) -> None:
    """Targets of any form are passed unchanged, and its gradient is used."""

    def squares(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        difference = logits - targets
        return difference.square().sum(-1), 2 * difference

    case = make_case(head="mean")
    batch = replace(BATCH, targets=torch.randn(len(LENGTHS), 4, generator=torch.Generator().manual_seed(7)))
    results = []
    for one in (backend, ORACLE):
        program = one.load(case.weights, PLAIN, torch.float32).program(case.pack)
        results.append(program.losses_and_gradient(case.parameters, batch, squares))
        entropy = program.losses_and_gradient(case.parameters, BATCH, cross_entropy)
        assert apart(entropy[1], results[-1][1]) > 0.1
    (losses, gradient), (theirs, expected) = results
    assert apart(losses, theirs) <= TOLERANCE[torch.float32]
    assert apart(gradient, expected) <= TOLERANCE[torch.float32]
