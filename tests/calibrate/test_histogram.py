"""Streaming histograms: nothing is lost, whatever comes when."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emadeploy.calibrate.histogram import BINS, SAMPLES, Histogram

ARRAYS = st.lists(
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=6), elements=st.floats(-1e6, 1e6, width=32)),
    min_size=1,
    max_size=6,
)


def histogram_of(*arrays) -> Histogram:
    seen = Histogram()
    for array in arrays:
        seen.add(array)
    return seen


@given(ARRAYS)
def test_every_value_is_counted_and_the_ends_are_exact(arrays):
    seen = histogram_of(*arrays)
    values = np.concatenate([array.ravel() for array in arrays])
    assert seen.counts.sum() == values.size
    assert (seen.low, seen.high) == (float(values.min()), float(values.max()))
    assert seen.limit >= np.abs(values).max()


@given(ARRAYS)
def test_counts_are_where_the_values_are(arrays):
    seen = histogram_of(*arrays)
    values = np.concatenate([array.ravel() for array in arrays]).astype(np.float64)
    if seen.limit == 0:
        assert not values.any()
        return
    # Values on the border of two bins may go to either: what lies below an edge is known to one bin.
    width = 2 * seen.limit / BINS
    below = np.concatenate([[0], np.cumsum(seen.counts)])
    for index in range(0, BINS + 1, 256):
        edge = -seen.limit + index * width
        slack = width * 1e-2 + 1e-6 * seen.limit
        assert np.count_nonzero(values < edge - slack) <= below[index] <= np.count_nonzero(values <= edge + slack)


def test_growing_step_by_step_finds_what_numpy_finds_at_once():
    rng = np.random.default_rng(1)
    arrays = [rng.normal(0, 2.0**step, 5000).astype(np.float32) for step in range(6)]
    seen = histogram_of(*arrays)
    expected, edges = np.histogram(np.concatenate(arrays), BINS, range=(-seen.limit, seen.limit))
    np.testing.assert_allclose(seen.edges, edges)
    # In float32 a value may fall on the other side of an edge.
    assert np.abs(np.cumsum(seen.counts) - np.cumsum(expected)).max() <= 20


def test_zeros_stay_at_zero_when_values_come():
    seen = histogram_of(np.zeros(10, np.float32), np.array([-4.0, 4.0], np.float32))
    assert seen.limit == 4
    assert seen.counts[BINS // 2] == 10


def test_no_values_and_zeros_alone():
    assert histogram_of(np.zeros((0, 3), np.float32)).low == np.inf
    seen = histogram_of(np.zeros(5, np.float32))
    assert (seen.low, seen.high, seen.limit) == (0, 0, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    seen = histogram_of(np.ones(3, np.float32))
    with pytest.raises(ValueError, match="not finite"):
        seen.add(np.array([1, bad], np.float32))


@pytest.mark.parametrize("shape", [(1, 4, 288, 384), (1, 1, 521, 523), (3, SAMPLES + 1)])
def test_of_a_large_array_evenly_spread_values_are_counted(shape):
    """Each column holds one number: all columns must be met, and all about equally often."""
    columns = np.broadcast_to(np.linspace(-1, 1, shape[-1], dtype=np.float32), shape).copy()
    seen = histogram_of(columns)
    assert SAMPLES // 4 < seen.counts.sum() <= SAMPLES
    wanted = np.histogram(columns, 64, range=(-1, 1))[0] / columns.size
    found = seen.counts.reshape(64, -1).sum(axis=1) / seen.counts.sum()
    np.testing.assert_allclose(found, wanted, rtol=0.05)


def test_the_ends_of_a_large_array_are_exact_and_what_is_not_finite_is_found_anywhere():
    values = np.random.default_rng(3).normal(0, 1, 5 * SAMPLES).astype(np.float32)
    for index in range(1, 12):  # among neighbours, of which few are counted
        values[index] = 100 + index
    seen = histogram_of(values)
    assert (seen.low, seen.high) == (float(values.min()), 111)
    values[7] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        seen.add(values)


def test_zeros_alone_in_a_large_array_are_counted_like_any_other():
    seen = histogram_of(np.zeros(2 * SAMPLES, np.float32), np.ones(2 * SAMPLES, np.float32))
    zeros = seen.counts[BINS // 2]
    assert 0 < zeros <= SAMPLES
    assert seen.counts.sum() == 2 * zeros
