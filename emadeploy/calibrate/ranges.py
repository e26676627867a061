"""From the values that a tensor took to the range that its integers cover. Beyond it values are clipped.

minmax      all that was seen
percentile  all but the share of values farthest out
entropy     that whose integers keep most of the information: the least Kullback-Leibler divergence, as in NVIDIA's and
            ONNX Runtime's calibrators (Migacz, 8-bit inference with TensorRT, GTC 2017)
mse         that with the least mean square error, of rounding and clipping together
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from emadeploy.calibrate.histogram import BINS, Histogram
from emadeploy.calibrate.recipe import Recipe

Range = tuple[float, float]
Float64 = npt.NDArray[np.float64]

#: Entropy looks at ranges of 128 bins (a signed byte's levels on one side), 132, 136, ... up to all of 2048.
_LEVELS, _STEP = 128, 4
#: Shares of the full range that MSE tries.
_SHARES = np.linspace(0.1, 1.0, 91)
#: Stands for no probability at all, under a logarithm.
_NEARLY_NONE = 1e-4


def choose_range(seen: Histogram, recipe: Recipe) -> Range:
    """Return (low, high) with low <= 0 <= high: a float 0, as padding is, must be an integer exactly.

    Symmetric recipes get (-high, high). A tensor without any value, or of zeros alone, gets (0, 0).
    """
    if seen.low > seen.high or seen.limit == 0:
        return 0.0, 0.0
    low, high = _METHODS[recipe.method](seen, recipe)
    # A method works on bins, whose ends may lie beyond the values.
    low, high = max(low, seen.low), min(high, seen.high)
    return symmetric((low, high)) if recipe.symmetric else (min(low, 0.0), max(high, 0.0))


def symmetric(values: Range) -> Range:
    """Return the least range around zero that covers ``values``."""
    magnitude = max(-values[0], values[1], 0.0)
    return -magnitude, magnitude


def union(ranges: list[Range]) -> Range:
    """Return the range that covers all of ``ranges``, of which there is at least one."""
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _minmax(seen: Histogram, recipe: Recipe) -> Range:
    return seen.low, seen.high


def _percentile(seen: Histogram, recipe: Recipe) -> Range:
    assert recipe.percentile is not None
    outside = 1 - recipe.percentile / 100
    if recipe.symmetric:
        magnitude = (_first_bin(_folded(seen), 1 - outside) + 1) * seen.limit * 2 / BINS
        return -magnitude, magnitude
    edges = seen.edges
    last = BINS - 1 - _first_bin(seen.counts[::-1], outside / 2)
    return float(edges[_first_bin(seen.counts, outside / 2)]), float(edges[last + 1])


def _entropy(seen: Histogram, recipe: Recipe) -> Range:
    counts = _folded(seen).astype(np.float64)
    # Beyond the last value nothing can be gained.
    used = int(np.flatnonzero(counts)[-1]) + 1
    candidates = range(min(_LEVELS, used), used + 1, _STEP)
    divergences = [_divergence(counts, bins) for bins in candidates]
    magnitude = candidates[int(np.argmin(divergences))] * seen.limit * 2 / BINS
    return -magnitude, magnitude


def _divergence(counts: Float64, bins: int) -> float:
    """Return the divergence of ``counts`` from what is left when they are clipped to ``bins`` and made _LEVELS."""
    inside = counts[:bins]
    clipped = inside.copy()
    clipped[-1] += counts[bins:].sum()
    starts = np.arange(min(_LEVELS, bins)) * bins // min(_LEVELS, bins)
    widths = np.diff(np.append(starts, bins))
    # A level spreads its count over those of its bins that had any.
    sums, occupied = np.add.reduceat(inside, starts), np.add.reduceat((clipped > 0).astype(np.float64), starts)
    level = np.divide(sums, occupied, out=np.zeros_like(sums), where=occupied > 0)
    quantised = np.where(clipped > 0, np.repeat(level, widths), 0.0)
    if not quantised.any():
        return float("inf")
    p = np.maximum(clipped / clipped.sum(), _NEARLY_NONE / bins)
    q = np.maximum(quantised / quantised.sum(), _NEARLY_NONE / bins)
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum(p * np.log(p / q)))


def _mse(seen: Histogram, recipe: Recipe) -> Range:
    used = np.flatnonzero(seen.counts)
    counts, centres = seen.counts[used].astype(np.float64), seen.centres[used]
    low, high = symmetric((seen.low, seen.high)) if recipe.symmetric else (min(seen.low, 0.0), max(seen.high, 0.0))
    levels = 254 if recipe.symmetric else 255

    def error(share: float) -> float:
        step = (high - low) * share / levels
        least, most = np.rint(low * share / step), np.rint(high * share / step)
        rounded = np.clip(np.rint(centres / step), least, most) * step
        return float(counts @ np.square(rounded - centres))

    best = float(_SHARES[int(np.argmin([error(share) for share in _SHARES]))])
    return low * best, high * best


def _folded(seen: Histogram) -> npt.NDArray[np.int64]:
    """Return the counts of magnitudes (BINS / 2), from 0 up."""
    return seen.counts[BINS // 2 :] + seen.counts[BINS // 2 - 1 :: -1]


def _first_bin(counts: npt.NDArray[np.int64], share: float) -> int:
    """Return the first bin at which the share of the counts up to and with it is more than ``share``, or all."""
    cumulated = np.cumsum(counts)
    # Rounding must not push the whole past the end.
    return int(min(np.searchsorted(cumulated, share * cumulated[-1], side="right"), np.flatnonzero(counts)[-1]))


_METHODS: dict[str, Callable[[Histogram, Recipe], Range]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
}
