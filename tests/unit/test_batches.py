"""Batches: each row once per epoch, determined by seed and epoch, little padding, on the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loralet.backends.batch import batch_of
from loralet.data.batches import BatchOrder, epoch_batches, gather
from loralet.data.order import sorted_batches
from loralet.data.tokens import Tokens

row_lengths = st.lists(st.integers(1, 60), min_size=1, max_size=300).map(np.array)


def flat(rows: Sequence[Sequence[int]]) -> Tokens:
    starts = np.cumsum([0, *map(len, rows)])
    return Tokens(np.array([token for row in rows for token in row], np.int32), starts.astype(np.int64))


def same(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return len(left) == len(right) and all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@given(row_lengths, st.integers(1, 40), st.integers(0, 99), st.integers(0, 9))
def test_every_row_occurs_once_per_epoch(lengths: np.ndarray, size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(lengths, size, seed, epoch)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)
    assert sorted(map(len, batches), reverse=True)[:-1] == [size] * (len(batches) - 1)


def test_batches_depend_only_on_seed_and_epoch() -> None:
    lengths = np.random.default_rng(0).integers(2, 60, 500)
    first = epoch_batches(lengths, 16, 1, 2)
    assert same(first, epoch_batches(lengths.copy(), 16, 1, 2))
    assert not same(first, epoch_batches(lengths, 16, 1, 3))
    assert not same(first, epoch_batches(lengths, 16, 2, 2))
    assert not same(epoch_batches(lengths, 16, 1, 2), epoch_batches(lengths, 16, 2, 1))


def test_short_and_long_batches_are_mixed() -> None:
    lengths = np.random.default_rng(0).permutation(np.arange(1, 1601))
    means = [float(lengths[batch].mean()) for batch in epoch_batches(lengths, 32, 0, 0)]
    assert means != sorted(means)
    assert means != sorted(means, reverse=True)
    assert max(means) - min(means) > 1500


def padding(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """Share of padding in padded batches."""
    cells = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    return 1 - int(lengths.sum()) / cells


@pytest.mark.parametrize("size", [16, 32, 64])
def test_padding_is_below_ten_per_cent(size: int) -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(3.6, 0.6, 8000), 3, 128).astype(np.int64)
    assert padding(lengths, epoch_batches(lengths, size, 0, 0)) < 0.1
    order = np.random.default_rng(0).permutation(len(lengths))
    assert padding(lengths, [order[i : i + size] for i in range(0, len(order), size)]) > 0.4


def test_batch_order_continues_over_epochs() -> None:
    lengths = np.random.default_rng(0).integers(2, 60, 50)
    order = BatchOrder(lengths, 16, 7)
    expected = [batch for epoch in range(3) for batch in epoch_batches(lengths, 16, 7, epoch)]
    assert len(expected) == 12
    assert same([order.at(step) for step in range(12)], expected)
    assert same([order.at(step) for step in (11, 0, 5, 3, 4)], [expected[step] for step in (11, 0, 5, 3, 4)])
    assert not np.array_equal(order.at(0), order.at(4))


@given(row_lengths, st.integers(1, 200))
def test_sorted_batches_cover_all_rows_within_the_budget(lengths: np.ndarray, tokens: int) -> None:
    batches = list(sorted_batches(lengths, tokens))
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= tokens
    assert (np.diff(lengths[np.concatenate(batches)]) <= 0).all()


def test_sorted_batches_are_as_large_as_the_budget_allows() -> None:
    lengths = np.array([5, 10, 5, 1, 10])
    assert [batch.tolist() for batch in sorted_batches(lengths, 20)] == [[1, 4], [0, 2, 3]]
    assert [batch.tolist() for batch in sorted_batches(lengths, 9)] == [[1], [4], [0], [2], [3]]
    assert [batch.tolist() for batch in sorted_batches(lengths, 1000)] == [[1, 4, 0, 2, 3]]
    assert list(sorted_batches(np.zeros(0, np.int64), 10)) == []


def test_padded_batches_are_padded_on_the_right_with_0() -> None:
    tokens = flat([[2, 7, 3], [2, 3], [2, 8, 9, 9, 3]])
    padded = gather(tokens, np.array([1, 2, 0])).padded(8, tokens.longest)
    assert padded.ids.tolist() == [[2, 3, 0, 0, 0], [2, 8, 9, 9, 3], [2, 7, 3, 0, 0]]
    assert padded.lengths.tolist() == [2, 5, 3]
    assert padded.types is None
    assert (padded.ids.dtype, padded.lengths.dtype) == (torch.int64, torch.int64)
    assert gather(tokens, np.array([1])).padded(8, tokens.longest).ids.tolist() == [
        [2, 3, 0, 0, 0]
    ]  # up to 8 tokens, at most the longest row
    longer = flat([[2, 3], list(range(1, 10)), list(range(1, 20))])
    columns = [gather(longer, np.array([i])).padded(8, longer.longest).ids.shape[1] for i in range(3)]
    assert columns == [8, 16, 19]
    assert gather(longer, np.array([0, 1])).padded().ids.shape == (2, 9)


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=20), min_size=1, max_size=30), st.data())
def test_gather_returns_each_row(rows: list[list[int]], data: st.DataObject) -> None:
    chosen = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=10)))
    tokens = flat(rows)
    batch = gather(tokens, chosen)
    assert batch.ids.tolist() == [token for i in chosen for token in rows[i]]
    assert batch.lengths.tolist() == [len(rows[i]) for i in chosen]
    assert batch.offsets.tolist() == np.cumsum([0, *(len(rows[i]) for i in chosen)]).tolist()
    padded = batch.padded(8, tokens.longest)
    longest = max(len(rows[i]) for i in chosen)
    assert padded.ids.shape == (len(chosen), min(-(-longest // 8) * 8, max(map(len, rows))))
    for row, length, i in zip(padded.ids.tolist(), padded.lengths.tolist(), chosen, strict=True):
        assert row[:length] == rows[i]
        assert not any(row[length:])
    back = batch_of(padded.ids, padded.lengths)
    assert torch.equal(back.ids, batch.ids)
    assert torch.equal(back.offsets, batch.offsets)


def test_gather_includes_targets_and_token_types() -> None:
    tokens = flat([[2, 7, 3], [2, 3], [2, 8, 9, 9, 3]])
    tokens = Tokens(tokens.ids, tokens.starts, np.array([0, 0, 1, 0, 1, 0, 0, 1, 1, 1], np.int8))
    batch = gather(tokens, np.array([2, 0]), torch.tensor([5, 6, 7]))
    assert batch.targets is not None
    assert batch.targets.tolist() == [7, 5]
    assert batch.types is not None
    assert batch.types.tolist() == [0, 0, 1, 1, 1, 0, 0, 1]
    padded = batch.padded()
    assert padded.types is not None
    assert padded.types.tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 0, 0]]
    assert gather(tokens, np.array([2, 0])).targets is None


def test_a_part_of_a_batch_keeps_the_numbering_of_the_whole_batch() -> None:
    """Dropout counts tokens and rows by these numbers, so that a part has the masks of the whole batch."""
    tokens = flat([[2, 7, 3], [2, 3], [2, 8, 9, 9, 3], [4]])
    whole = gather(tokens, np.array([2, 1, 0, 3]), torch.arange(4))
    numbers = whole.token_numbers(5)
    assert numbers[:, 0].tolist() == [0, 5, 7, 10]
    part = whole.take(torch.tensor([3, 1]))
    assert part.ids.tolist() == [4, 2, 3]
    assert part.offsets.tolist() == [0, 1, 3]
    assert part.targets is not None
    assert part.targets.tolist() == [3, 1]
    assert torch.equal(part.token_numbers(5), numbers[[3, 1]])
    assert part.numbers().tolist() == [3, 1]
    smaller = part.take(torch.tensor([0]))
    assert torch.equal(smaller.token_numbers(5), numbers[[3]])
    assert smaller.numbers().tolist() == [3]
    assert whole.numbers().tolist() == [0, 1, 2, 3]


def test_shares_of_rows_with_weights() -> None:
    batch = gather(flat([[2, 3], [2, 7, 3], [5]]), np.arange(3))
    assert batch.shares.tolist() == [pytest.approx([1 / 3] * 3)]
    weighted = replace(batch, row_weights=torch.tensor([[1.0, 0.0, 3.0], [0.0, 0.0, 0.0]]))
    assert weighted.shares.tolist() == [[0.25, 0.0, 0.75], [0.0, 0.0, 0.0]]
    assert weighted.take(torch.tensor([2, 0])).shares.tolist()[0] == [0.75, 0.25]
