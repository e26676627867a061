"""Ranges from histograms, against numpy and ONNX Runtime's own calibrators."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emadeploy.calibrate import histogram as histogram_module
from emadeploy.calibrate.histogram import BINS, Histogram
from emadeploy.calibrate.ranges import choose_range, symmetric, union
from emadeploy.calibrate.recipe import METHODS, load_recipe

BASE = load_recipe("onnxruntime-int8")


def recipe(method: str, activations: str = "asymmetric", percentile: float = 99.9):
    return replace(
        BASE, method=method, activations=activations, percentile=percentile if method == "percentile" else None
    )


def seen(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in np.array_split(values.astype(np.float32), 4):
        histogram.add(part)
    return histogram


def tailed(far: int = 20) -> np.ndarray:
    """Return 200 000 values of which nearly all lie within 4 of zero, and ``far`` of them between 25 and 50."""
    rng = np.random.default_rng(2)
    values = rng.normal(0, 1, 200_000).astype(np.float32)
    values[:far] = np.linspace(25, 50, far)
    return values


ARRAYS = hnp.arrays(np.float32, st.integers(1, 200), elements=st.floats(-1e4, 1e4, width=32))


@given(ARRAYS, st.sampled_from(METHODS), st.sampled_from(["symmetric", "asymmetric"]))
def test_ranges_hold_zero_and_end_where_values_end(values, method, activations):
    low, high = choose_range(seen(values), recipe(method, activations))
    assert low <= 0 <= high
    if activations == "symmetric":
        assert low == -high
        assert high <= np.abs(values).max()
    else:
        assert min(values.min(), 0) <= low
        assert high <= max(values.max(), 0)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_seen_or_zeros_alone_give_nothing_to_cover(method):
    assert choose_range(Histogram(), recipe(method)) == (0, 0)
    assert choose_range(seen(np.zeros(10)), recipe(method)) == (0, 0)


def test_minmax_is_all_that_was_seen():
    assert choose_range(seen(np.array([-1.5, 3.0])), recipe("minmax")) == (-1.5, 3.0)
    assert choose_range(seen(np.array([-1.5, 3.0])), recipe("minmax", "symmetric")) == (-3.0, 3.0)
    assert choose_range(seen(np.array([2.0, 3.0])), recipe("minmax")) == (0.0, 3.0)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9, 100.0])
def test_percentiles_are_numpys_to_two_bins(percentile):
    values = tailed()
    histogram = seen(values)
    width = 2 * histogram.limit / BINS
    _, magnitude = choose_range(histogram, recipe("percentile", "symmetric", percentile))
    assert magnitude == pytest.approx(np.quantile(np.abs(values), percentile / 100), abs=2 * width)
    low, high = choose_range(histogram, recipe("percentile", percentile=percentile))
    outside = (1 - percentile / 100) / 2
    assert low == pytest.approx(np.quantile(values, outside), abs=2 * width)
    assert high == pytest.approx(np.quantile(values, 1 - outside), abs=2 * width)


@pytest.mark.parametrize("activations", ["symmetric", "asymmetric"])
def test_percentiles_are_onnxruntimes(activations, capsys):
    from onnxruntime.quantization.calibrate import HistogramCollector

    values = tailed()
    theirs = HistogramCollector("percentile", activations == "symmetric", BINS, None, 99.0, "same")
    theirs.collect({"x": values})
    low, high = theirs.compute_collection_result()["x"][:2]
    histogram = seen(values)
    found = choose_range(histogram, recipe("percentile", activations, 99.0))
    assert found == pytest.approx((float(low), float(high)), abs=2.01 * 2 * histogram.limit / BINS)


def test_entropy_is_onnxruntimes_nearly():
    from onnxruntime.quantization.calibrate import HistogramCollector

    values = np.random.default_rng(4).laplace(0, 1, 50_000).astype(np.float32)
    theirs = HistogramCollector("entropy", True, 512, 128, None, "same")
    theirs.collect({"x": values})
    _, high = theirs.compute_collection_result()["x"][:2]
    _, found = choose_range(seen(values), recipe("entropy", "symmetric"))
    # Theirs has an eighth of our bins, and spreads counts by whole numbers.
    assert found == pytest.approx(float(high), rel=0.25)


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_far_values_are_clipped_and_minmax_is_the_control(method):
    values = tailed(far=2)
    assert choose_range(seen(values), recipe("minmax"))[1] == 50
    assert choose_range(seen(values), recipe(method, percentile=99.9))[1] < 40


def rounding_error(values: np.ndarray, low: float, high: float, levels: int) -> float:
    step = (high - low) / levels
    rounded = np.clip(np.rint(values / step), np.rint(low / step), np.rint(high / step)) * step
    return float(np.mean(np.square(rounded - values.astype(np.float64))))


@pytest.mark.parametrize("activations", ["symmetric", "asymmetric"])
def test_mse_has_the_least_error_of_all_methods(activations):
    values = np.concatenate([tailed(far=2), np.random.default_rng(5).exponential(1, 50_000)])
    levels = 254 if activations == "symmetric" else 255
    errors = {
        method: rounding_error(values, *choose_range(seen(values), recipe(method, activations)), levels)
        for method in METHODS
    }
    assert min(errors, key=errors.get) == "mse"
    assert errors["mse"] < 0.9 * errors["minmax"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("activations", ["symmetric", "asymmetric"])
def test_ranges_of_large_arrays_are_those_of_all_their_values(method, activations, monkeypatch):
    """Sixteen maps, of which a tenth is counted: the range and its rounding error are those of counting all."""
    rng = np.random.default_rng(6)
    maps = [np.maximum(rng.laplace(0, scale, (8, 120, 160)), -1) for scale in np.linspace(0.5, 1.5, 16)]

    def found(samples: int) -> tuple[float, float]:
        monkeypatch.setattr(histogram_module, "SAMPLES", samples)
        histogram = Histogram()
        for values in maps:
            histogram.add(values.astype(np.float32))
        # Beyond it lie as many of these values as beyond 99.99 of what real frames have.
        return choose_range(histogram, recipe(method, activations, 99.9))

    every, some = found(10**9), found(2**14)
    assert some == pytest.approx(every, rel=0.06)
    values = np.concatenate([values.ravel() for values in maps])
    errors = [rounding_error(values, *ends, 254) for ends in (every, some)]
    assert errors[1] <= 1.05 * errors[0]


def test_helpers():
    assert symmetric((-1, 3)) == (-3, 3)
    assert symmetric((2, 3)) == (-3, 3)
    assert union([(-1, 2), (0, 3)]) == (-1, 3)
