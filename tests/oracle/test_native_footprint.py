"""The estimate of the native backend's memory, compared with the blocks that it allocates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from backends import NATIVE
from packs import TABLES, TARGETS, TOLERANCE, Case, make_batch, make_case

from loralet.adapters.adapter import Adapter
from loralet.backends.memory import Footprint
from loralet.backends.native.adapted import AdaptedEncoder, EncoderPass, low_rank_of
from loralet.backends.native.encoder import PackedEncoder
from loralet.backends.native.torch_arrays import array_of, rows_of
from loralet.models.pooling import HeadKind

ROWS, TOKENS = 6, 80
native = pytest.mark.skipif(not NATIVE, reason="no C compiler")
shapes = pytest.mark.parametrize("kind", ["bert", "one-layer", "wide"])
heads = pytest.mark.parametrize("head", ["pooler", "mean"])
targets = pytest.mark.parametrize("targets", TARGETS)
dropouts = pytest.mark.parametrize("dropout", [0.0, 0.2])


def adapted(case: Case) -> AdaptedEncoder:
    """The training form of a pack."""
    kernels = NATIVE[0].kernels
    arrays = {name: kernels.convert(array_of(t), array_of(t.to(case.dtype)).dtype) for name, t in case.weights.items()}
    encoder = PackedEncoder(kernels, arrays, case.pack.shape.table)
    parameters = {name: array_of(t) for name, t in case.pack.split(case.parameters).items()}
    matrices = low_rank_of(case.pack, parameters)
    return AdaptedEncoder(encoder, case.pack.adapters, matrices, case.pack.shape.read, dropout=True, backward=True)


@native
@shapes
@heads
@targets
@dropouts
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_activations_and_weights_have_the_estimated_size(
    kind: str, head: HeadKind, targets: str, dropout: float, dtype: torch.dtype
) -> None:
    case = make_case(TABLES[kind], head, targets, dtype, dropout=dropout)
    ours, rows = adapted(case), rows_of(make_batch(torch.full((ROWS,), TOKENS)))
    if not ours.backward:
        return  # nothing is adapted: there is no backward pass
    footprint = Footprint(case.pack, ROWS, TOKENS, dtype.itemsize)
    allocated = ours.encoder.kernels.encoder_bytes(EncoderPass(ours, rows).structure)
    assert footprint._activations(ROWS, 3, backward=True, dropout=True) == pytest.approx(allocated, rel=0.02)
    packed = (ours._packed, ours._packed_branches, ours._grad, ours._branch_grad)
    assert footprint._adapters(dropout=True, backward=True) == sum(array.nbytes for array in packed)
    frozen = sum(part.nbytes for pair in ours.encoder._packed.values() for part in pair if part is not None)
    assert footprint._frozen(backward=True) == frozen


def footprint(kind: str = "wide", runs: int = 3, rank: int = 8, item: int = 4, rows: int = ROWS) -> Footprint:
    """The footprint of a pack on query and value."""
    adapters = [Adapter(rank, 1.0, 0.0, TARGETS["query-value"], i) for i in range(runs)]
    table = replace(TABLES[kind], layers=3)
    return Footprint(make_case(table, "mean", adapters=adapters).pack, rows, TOKENS, item)


def test_the_estimate_grows_with_what_it_covers() -> None:
    least = footprint().training(4096)
    assert footprint(runs=6).training(4096) > 1.3 * least
    assert footprint(rank=32).training(4096) > least
    assert footprint(rows=4 * ROWS).training(4096) > 2 * least
    assert footprint(item=2).training(4096) < 0.8 * least
    assert footprint().evaluation(4096) < least / 2


def test_a_run_in_an_evaluation_takes_less_than_its_weights() -> None:
    per_run = (footprint(runs=8).evaluation(8192) - footprint(runs=2).evaluation(8192)) / 6
    table = TABLES["wide"]
    assert per_run < 6 * 4 * table.width**2
