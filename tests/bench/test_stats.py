"""Percentiles, their intervals and paired ratios, against distributions whose quantiles are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emadeploy.bench.stats import (
    QUERIES,
    medians,
    paired_interval,
    paired_speedup,
    quantile_interval,
    quantile_ranks,
    spread,
)


def test_percentiles_are_told_where_there_are_calls_for_them() -> None:
    assert spread([1.0, 2.0, 3.0]) == {
        "p50": 2.0,
        "p90": None,
        "p99": None,
        "n": 3,
        "p50_ci": None,
        "p90_ci": None,
        "p99_ci": None,
    }
    told = spread(list(range(1, 65)))
    assert (told["p50"], told["p90"], told["p99"], told["n"]) == (32.5, pytest.approx(57.7), None, 64)
    assert told["p90_ci"] == [53.0, 63.0]
    told = spread(list(range(662)))
    assert told["p99"] == pytest.approx(654.39)
    assert told["p99_ci"] == [649.0, 660.0]
    assert spread(list(range(661)))["p99"] is None


def test_ranks_are_those_of_the_tables() -> None:
    # Distribution-free confidence limits of the median: Conover, Practical Nonparametric Statistics, table A3 (n = 11,
    # p = 0.5: at most 1 below with 0.0059, at most 2 with 0.0327).
    assert quantile_ranks(11, 0.5) == (2, 10)
    assert quantile_ranks(6, 0.5) == (1, 6)
    assert quantile_ranks(5, 0.5) is None
    assert quantile_ranks(0, 0.5) is None
    with pytest.raises(ValueError, match="not between"):
        quantile_ranks(5, 1.0)


@pytest.mark.parametrize(("percentile", "count"), QUERIES.items())
def test_intervals_hold_the_true_quantile_as_often_as_they_say(percentile: int, count: int) -> None:
    rng, share, runs = np.random.default_rng(5), percentile / 100, 2000
    low, high = quantile_ranks(count, share)
    values = np.sort(rng.exponential(size=(runs, count)), axis=1)
    true = -np.log1p(-share)
    held = np.mean((values[:, low - 1] <= true) & (true <= values[:, high - 1]))
    # At least 95 %, less what 2000 runs leave to chance; and not so wide that it would hold anything.
    assert 0.95 - 0.015 <= held <= 0.999


@given(st.lists(st.floats(0.1, 1e4), min_size=1, max_size=80), st.sampled_from([0.5, 0.9, 0.99]))
def test_an_interval_is_of_the_values_around_the_quantile(values: list[float], share: float) -> None:
    interval = quantile_interval(values, share)
    if interval is not None:
        low, high = interval
        assert low in values
        assert high in values
        assert low <= float(np.quantile(values, share)) <= high


@given(st.integers(6, 400))
def test_more_calls_never_know_less(count: int) -> None:
    low, high = quantile_ranks(count, 0.5)
    more_low, more_high = quantile_ranks(4 * count, 0.5)
    assert (more_high - more_low) / (4 * count) <= (high - low) / count
    assert low + high == count + 1  # of a median, both sides are alike


def test_ratios_in_pairs_cancel_what_befalls_both() -> None:
    # A machine that slows down tenfold in the second round: the ratio stays.
    assert paired_speedup([4.0, 40.0, 4.0], [1.0, 10.0, 1.0]) == 4
    assert paired_interval([4.0, 40.0, 4.0], [1.0, 10.0, 1.0]) is None
    rng = np.random.default_rng(3)
    machine = 1 + rng.exponential(size=40)  # busy, more or less
    one, two = 10 * machine * rng.normal(1, 0.02, 40), 2 * machine * rng.normal(1, 0.02, 40)
    low, high = paired_interval(list(one), list(two))
    assert low < 5 < high
    assert high - low < 0.2
    assert paired_speedup(list(one), list(two)) == pytest.approx(5, rel=0.02)


def test_medians_by_stage() -> None:
    assert medians([{"a": 1.0}, {"a": 5.0}, {"a": 2.0}]) == {"a": 2.0}
