"""The validation split (stratified, seeded, of the right size) and its sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loralet.data.splits import LARGEST_VALIDATION, carve, sample


def counted(counts: list[int], seed: int = 0) -> np.ndarray:
    """Shuffled labels in which label i occurs ``counts[i]`` times."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))


class_counts = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(lambda counts: max(counts) >= 2)


@given(class_counts, st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_carve_is_disjoint_complete_sorted_and_leaves_every_class_in_both_parts(
    counts: list[int], fraction: float, seed: int
) -> None:
    labels = counted(counts)
    train, validation = carve(labels, fraction, seed)
    assert sorted([*train, *validation]) == list(range(len(labels)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()
    kept, drawn = (
        np.bincount(labels[train], minlength=len(counts)),
        np.bincount(labels[validation], minlength=len(counts)),
    )
    for count, in_train, in_validation in zip(counts, kept, drawn, strict=True):
        assert (in_train, in_validation) == (count, 0) if count < 2 else min(in_train, in_validation) >= 1


def test_carve_takes_a_tenth_of_every_class() -> None:
    labels = counted([600, 300, 100])
    train, validation = carve(labels, 0.1, 0)
    assert np.bincount(labels[validation]).tolist() == [60, 30, 10]
    assert np.bincount(labels[train]).tolist() == [540, 270, 90]
    assert np.bincount(labels[carve(labels, 0.2, 0)[1]]).tolist() == [120, 60, 20]


def test_carve_takes_at_most_5000_rows() -> None:
    labels = counted([40_000, 20_000])
    assert LARGEST_VALIDATION == 5000
    assert np.bincount(labels[carve(labels, 0.1, 0)[1]]).tolist() == [3333, 1667]
    assert len(carve(labels, 0.08, 0)[1]) == 4800


def test_carve_draws_a_rare_class_and_leaves_singletons_in_training() -> None:
    labels = counted([500, 500, 2, 1])
    train, validation = carve(labels, 0.1, 0)
    assert np.bincount(labels[validation], minlength=4)[2:].tolist() == [1, 0]
    assert np.bincount(labels[train], minlength=4)[2:].tolist() == [1, 1]
    assert len(validation) == 100


def test_carve_leaves_every_class_in_training() -> None:
    labels = counted([2, 9])
    assert np.bincount(labels[carve(labels, 0.99, 0)[0]]).tolist() == [1, 1]
    assert np.bincount(labels[carve(labels, 0.01, 0)[0]]).tolist() == [1, 8]


def test_carve_depends_only_on_the_seed() -> None:
    labels = counted([100, 100])
    first, again, other = carve(labels, 0.1, 3), carve(labels, 0.1, 3), carve(labels, 0.1, 4)
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])
    assert len(first[1]) == len(other[1])


def test_carve_draws_rows_uniformly() -> None:
    labels = counted([20, 20])
    times = np.bincount(np.concatenate([carve(labels, 0.5, seed)[1] for seed in range(400)]), minlength=40)
    assert times.sum() == 400 * 20
    assert times.min() > 150  # of 400 draws; four standard deviations below 200 is 160
    assert times.max() < 250


def test_carve_reports_if_no_class_has_two_rows() -> None:
    with pytest.raises(ValueError, match="3 rows are too few for a validation split"):
        carve(np.arange(3), 0.1, 0)
    assert len(carve(np.array([0, 1, 1]), 0.1, 0)[1]) == 1


def test_sample_is_stratified_sorted_and_seeded() -> None:
    labels = counted([600, 200])
    drawn = sample(labels, 80, 0)
    assert np.bincount(labels[drawn]).tolist() == [60, 20]
    assert (np.diff(drawn) > 0).all()
    assert np.array_equal(drawn, sample(labels, 80, 0))
    assert not np.array_equal(drawn, sample(labels, 80, 1))


def test_sample_takes_all_rows_if_there_are_too_few() -> None:
    labels = counted([5, 5])
    assert sample(labels, 10, 0).tolist() == list(range(10))
    assert sample(labels, 11, 0).tolist() == list(range(10))
    assert len(sample(labels, 9, 0)) < 10


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40).filter(sum), st.integers(1, 60), st.integers(0, 2**32))
def test_sample_has_the_requested_size_and_every_class_if_possible(counts: list[int], size: int, seed: int) -> None:
    labels = counted(counts)
    rows = sample(labels, size, seed)
    assert len(rows) == len(set(rows.tolist())) == min(size, len(labels))
    classes = sum(count > 0 for count in counts)
    if classes <= size:
        assert len(np.unique(labels[rows])) == classes


def test_sample_of_many_rare_classes_is_not_too_small() -> None:
    assert len(sample(counted([2, *[1] * 599]), 512, 0)) == 512
    assert len(np.unique(counted([2] * 450)[sample(counted([2] * 450), 512, 0)])) == 450
