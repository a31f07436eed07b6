"""Evaluation of packs on a wide encoder: a run in a pack has the logits of the run alone, and shares the weights."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence

import pytest
import torch
from backends import ORACLE, each_native, each_native_and_type
from packs import BATCH, TABLES, TARGETS, TOLERANCE, Case, apart, evaluate, make_case
from torch import Tensor

from loralet.adapters.adapter import Adapter
from loralet.backends.native.backend import NativeBackend
from loralet.backends.native.inference import NativeInference
from loralet.backends.native.torch_arrays import rows_of
from loralet.backends.torch import DTYPES
from loralet.models.pooling import HeadKind

WIDE = TABLES["wide"]


RANKS = (4, 20, 16)
"""Rank 20 is padded to 32, so some of its adapters are merged next to branches."""


def wide_case(
    head: HeadKind = "pooler", dtype: torch.dtype = torch.float32, ranks: Sequence[int] = RANKS, dropout: float = 0.1
) -> Case:
    """Adapters of these ranks on all linear layers, or all but one, and a head alone."""
    adapters = [Adapter(rank, 1.0, dropout, TARGETS["all-linear"][i % 2 :], i) for i, rank in enumerate(ranks)]
    return make_case(WIDE, head, adapters=[*adapters, Adapter(0, 0.0, 0.0, (), len(ranks))], dtype=dtype)


@each_native_and_type
@pytest.mark.parametrize("head", ["pooler", "mean"])
def test_a_run_in_a_pack_has_the_logits_of_the_run_alone(
    head: HeadKind, dtype: torch.dtype, backend: NativeBackend
) -> None:
    case = wide_case(head, dtype)
    together = evaluate(backend, case)
    for i in range(len(case.pack.adapters)):
        assert torch.equal(evaluate(backend, case.alone(i))[0], together[i]), i
    assert not torch.equal(together[0], together[1])


@each_native
def test_logits_do_not_depend_on_the_threads(backend: NativeBackend) -> None:
    case, before, found = wide_case(dtype=torch.bfloat16), torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(evaluate(backend, case))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def allocated(backend: NativeBackend, case: Case) -> int:
    """Bytes of numpy arrays that a forward pass with fixed parameters keeps."""
    encoder = backend.load(case.weights, WIDE, case.dtype)
    encoder.program(case.pack).logits(case.parameters)(BATCH)  # packs the frozen weights
    tracemalloc.start()
    try:
        kept = encoder.program(case.pack).logits(case.parameters)
        del kept
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@each_native
def test_a_run_takes_no_memory_of_the_size_of_the_weights(backend: NativeBackend) -> None:
    """Head: the mean, as the head of the first token merges key and value of the last layer."""
    few, many = wide_case("mean", ranks=[8] * 3), wide_case("mean", ranks=[8] * 8)
    per_run = (allocated(backend, many) - allocated(backend, few)) / 5
    weights = sum(4 * WIDE.linear(name).d_in * WIDE.linear(name).d_out for name in TARGETS["all-linear"])
    factors = sum(4 * 2 * 16 * (WIDE.linear(n).d_in + WIDE.linear(n).d_out) for n in TARGETS["all-linear"])
    assert factors / 2 < per_run < 1.5 * factors < weights


@pytest.fixture
def predicted(backend: NativeBackend, monkeypatch: pytest.MonkeyPatch) -> Callable[[Case], Tensor]:
    """Computes logits as prediction does, without torch, with the kernels of a backend."""
    monkeypatch.setattr("loralet.backends.native.inference.load_kernels", lambda: backend.kernels)

    def logits(case: Case) -> Tensor:
        arrays = {name: weight.numpy() for name, weight in case.weights.items()}
        inference = NativeInference(arrays, case.pack, case.parameters.numpy(), DTYPES[case.dtype])
        return torch.from_numpy(inference.logits(rows_of(BATCH)))

    return logits


@each_native_and_type
def test_prediction_merges_a_single_adapter(
    dtype: torch.dtype, backend: NativeBackend, predicted: Callable[[Case], Tensor]
) -> None:
    case = wide_case(dtype=dtype)
    assert torch.equal(predicted(case), evaluate(backend, case))
    alone = case.alone(1)
    merged = predicted(alone)
    assert 0 < apart(merged, evaluate(backend, alone)) <= 2 * TOLERANCE[dtype]
    assert apart(merged, evaluate(ORACLE, alone)) <= 2 * TOLERANCE[dtype]
