"""Each allocation of the kernels fails once: MemoryError, no leak, and the next call works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from backends import each_native
from packs import PLAIN, compute, cross_entropy, make_batch, make_case

from loralet.adapters.adapter import Adapter
from loralet.backends.native.backend import NativeBackend
from loralet.backends.native.program import memory_errors
from loralet.models.pooling import HeadKind


@pytest.fixture
def _two_threads() -> Iterator[None]:
    """Allocations inside parallel regions fail on one thread only."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def failures(backend: NativeBackend, work: Callable[[], object]) -> int:
    """Make each allocation of a call fail once. Returns their number."""
    for count in range(10_000):
        backend.kernels.fail_allocation_after(count)
        try:
            work()
        except MemoryError:
            continue
        else:
            return count
        finally:
            backend.kernels.fail_allocation_after(-1)
            assert backend.kernels.live_allocations() == 0
    raise AssertionError("it never succeeds")


@each_native
@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize(
    ("head", "dtype"), [("trained-pooler", torch.float32), ("mean", torch.bfloat16)], ids=["pooler-fp32", "mean-bf16"]
)
def test_training_and_evaluation(head: HeadKind, dtype: torch.dtype, backend: NativeBackend) -> None:
    """Weights, encoder forward and backward, gradients of A and B, head forward and backward."""
    table, batch = replace(PLAIN, layers=1), make_batch(torch.tensor([5, 12, 3]))
    adapters = [Adapter(4, 2.0, dropout, ("layers.0.query", "layers.0.output"), 0) for dropout in (0.0, 0.2)]
    case = make_case(table, head, adapters=adapters, dtype=dtype, head_dropout=0.1)
    expected = compute(backend, case, batch, step=1)
    program = backend.load(case.weights, table, dtype).program(case.pack)
    found = []

    def train() -> None:
        found[:] = program.losses_and_gradient(case.parameters, batch, cross_entropy, 1)

    assert failures(backend, train) > 10
    assert torch.equal(found[0], expected.losses)
    assert torch.equal(found[1], expected.gradient)
    assert failures(backend, lambda: program.logits(case.parameters)(batch)) > 5


@each_native
def test_evaluation_allocates_no_blocks_per_chunk(backend: NativeBackend) -> None:
    """Aligned blocks that are released after every batch leave gaps, with which the heap of a process grows."""
    case, before = make_case(), torch.get_num_threads()
    forward = backend.load(case.weights, PLAIN, case.dtype).program(case.pack).logits(case.parameters)
    torch.set_num_threads(1)
    try:
        counts = [
            failures(backend, lambda: forward(make_batch(torch.tensor(lengths))))  # noqa: B023
            for lengths in ([40] * 2, [1] * 40 + [10] * 40 + [80] * 40)
        ]
    finally:
        torch.set_num_threads(before)
    assert counts[0] == counts[1]


@each_native
@pytest.mark.usefixtures("_two_threads")
def test_attention(backend: NativeBackend) -> None:
    q, k, v = (torch.randn(2, 4, 20, 32, requires_grad=True) for _ in range(3))
    lengths = torch.tensor([20, 4, 1, 7])

    found = []

    def work() -> None:
        found[:] = torch.autograd.grad(backend.attention(q, k, v, lengths, 2).square().sum(), (q, k, v))

    work()
    expected = list(found)
    assert failures(backend, work) >= 2
    assert all(map(torch.equal, found, expected))


def test_a_failed_allocation_of_torch_is_a_memory_error() -> None:
    with pytest.raises(MemoryError), memory_errors():
        torch.empty(2**55)
    with pytest.raises(RuntimeError, match="size"), memory_errors():
        torch.ones(2) + torch.ones(3)
