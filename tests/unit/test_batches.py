"""Batches: every row once an epoch, a function of seed and epoch, little padding; padding on the right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loralet.data.batches import BatchOrder, collate, epoch_batches, sorted_batches
from loralet.data.tokens import Tokens

row_lengths = st.lists(st.integers(1, 60), min_size=1, max_size=300).map(np.array)


def flat(rows: Sequence[Sequence[int]]) -> Tokens:
    starts = np.cumsum([0, *map(len, rows)])
    return Tokens(np.array([token for row in rows for token in row], np.int32), starts.astype(np.int64))


def same(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return len(left) == len(right) and all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@given(row_lengths, st.integers(1, 40), st.integers(0, 99), st.integers(0, 9))
def test_every_row_once_an_epoch(lengths: np.ndarray, size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(lengths, size, seed, epoch)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)
    assert sorted(map(len, batches), reverse=True)[:-1] == [size] * (len(batches) - 1)


def test_batches_are_a_function_of_seed_and_epoch() -> None:
    lengths = np.random.default_rng(0).integers(2, 60, 500)
    first = epoch_batches(lengths, 16, 1, 2)
    assert same(first, epoch_batches(lengths.copy(), 16, 1, 2))
    assert not same(first, epoch_batches(lengths, 16, 1, 3))
    assert not same(first, epoch_batches(lengths, 16, 2, 2))
    assert not same(epoch_batches(lengths, 16, 1, 2), epoch_batches(lengths, 16, 2, 1))


def test_short_and_long_batches_come_mixed() -> None:
    lengths = np.random.default_rng(0).permutation(np.arange(1, 1601))
    means = [float(lengths[batch].mean()) for batch in epoch_batches(lengths, 32, 0, 0)]
    assert means != sorted(means)
    assert means != sorted(means, reverse=True)
    assert max(means) - min(means) > 1500


def padding(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """Share of the cells of padded batches that hold no token."""
    cells = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    return 1 - int(lengths.sum()) / cells


@pytest.mark.parametrize("size", [16, 32, 64])
def test_less_than_a_tenth_of_the_cells_is_padding(size: int) -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(3.6, 0.6, 8000), 3, 128).astype(np.int64)
    assert padding(lengths, epoch_batches(lengths, size, 0, 0)) < 0.1
    order = np.random.default_rng(0).permutation(len(lengths))
    assert padding(lengths, [order[i : i + size] for i in range(0, len(order), size)]) > 0.4


def test_batch_order_goes_over_epochs() -> None:
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


def test_collate_pads_on_the_right_with_0() -> None:
    tokens = flat([[2, 7, 3], [2, 3], [2, 8, 9, 9, 3]])
    ids, lengths = collate(tokens, np.array([1, 2, 0]))
    assert ids.tolist() == [[2, 3, 0, 0, 0], [2, 8, 9, 9, 3], [2, 7, 3, 0, 0]]
    assert lengths.tolist() == [2, 5, 3]
    assert (ids.dtype, lengths.dtype) == (torch.int64, torch.int64)
    assert collate(tokens, np.array([1]))[0].tolist() == [
        [2, 3, 0, 0, 0]
    ]  # up to 8 tokens, but never past the longest of all rows
    longer = flat([[2, 3], list(range(1, 10)), list(range(1, 20))])
    assert [collate(longer, np.array([i]))[0].shape[1] for i in range(3)] == [8, 16, 19]


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=20), min_size=1, max_size=30), st.data())
def test_collate_gives_each_row_back(rows: list[list[int]], data: st.DataObject) -> None:
    chosen = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=10)))
    ids, lengths = collate(flat(rows), chosen)
    longest = max(len(rows[i]) for i in chosen)
    assert ids.shape == (len(chosen), min(-(-longest // 8) * 8, max(map(len, rows))))
    for row, length, i in zip(ids.tolist(), lengths.tolist(), chosen, strict=True):
        assert row[:length] == rows[i]
        assert not any(row[length:])
