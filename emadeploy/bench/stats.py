"""What a list of milliseconds says, and how surely: percentiles, their confidence intervals, and ratios in pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: Percentile -> calls without which it is not told. MLPerf's rules for a single stream ask for 64 and 662; a median of
#: eleven calls lies, with 95 % confidence, between the second and the tenth of them.
QUERIES = {50: 11, 90: 64, 99: 662}
CONFIDENCE = 0.95

Interval = tuple[float, float]


def spread(milliseconds: Sequence[float]) -> dict[str, Any]:
    """Return {'p50', 'p90', 'p99', 'n', 'p50_ci', 'p90_ci', 'p99_ci'} of at least one value.

    p90 and p99 are ``None`` where there are fewer calls than QUERIES asks for: they are not made up. ``*_ci`` is
    [low, high] at 95 % confidence; ``None`` where so few calls have none.
    """
    ordered = np.sort(np.asarray(milliseconds, np.float64))
    told: dict[str, Any] = {}
    for percentile, queries in QUERIES.items():
        enough = percentile == 50 or len(ordered) >= queries
        told[f"p{percentile}"] = float(np.percentile(ordered, percentile)) if enough else None
    told["n"] = len(ordered)
    for percentile in QUERIES:
        interval = None if told[f"p{percentile}"] is None else quantile_interval(ordered.tolist(), percentile / 100)
        told[f"p{percentile}_ci"] = None if interval is None else list(interval)
    return told


def quantile_interval(values: Sequence[float], share: float, confidence: float = CONFIDENCE) -> Interval | None:
    """Return two of ``values`` between which their distribution's quantile lies with at least ``confidence``.

    ``None`` where there are too few values for any two. Assumes nothing of the distribution, but that the values do
    not depend on each other: the number of them below the quantile is binomial.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    ranks = quantile_ranks(len(ordered), share, confidence)
    return None if ranks is None else (float(ordered[ranks[0] - 1]), float(ordered[ranks[1] - 1]))


def quantile_ranks(count: int, share: float, confidence: float = CONFIDENCE) -> tuple[int, int] | None:
    """Return the ranks, from 1, of the two order statistics of :func:`quantile_interval`; ``None`` where none hold.

    Each side may be wrong with half of what the confidence leaves.
    """
    if not 0 < share < 1:
        raise ValueError(f"share {share} is not between 0 and 1")
    tail = (1 - confidence) / 2
    below = np.cumsum(_binomial(count, share))  # below[k]: chance that at most k values are below the quantile
    # The quantile is under the value of rank r where fewer than r values are below it, and over it otherwise.
    low = int(np.searchsorted(below, tail, side="right"))
    high = int(np.searchsorted(below, 1 - tail)) + 1
    return (low, high) if low >= 1 and high <= count else None


def _binomial(count: int, share: float) -> Any:
    """Return the chances of 0 ... count successes."""
    # In logarithms: 662 calls of p99 underflow else.
    ways = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(count + 1)]
    k = np.arange(count + 1)
    return np.exp(np.asarray(ways) + k * math.log(share) + (count - k) * math.log1p(-share))


def medians(timings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each stage over the calls."""
    return {stage: float(np.median([call[stage] for call in timings])) for stage in timings[0]}


def paired_speedup(reference: Sequence[float], candidate: Sequence[float]) -> float:
    """Return the median over rounds of reference / candidate; both have a value for every round."""
    return float(np.median(_ratios(reference, candidate)))


def paired_interval(reference: Sequence[float], candidate: Sequence[float]) -> Interval | None:
    """Return the confidence interval of :func:`paired_speedup`; ``None`` where there are fewer than six rounds."""
    return quantile_interval(_ratios(reference, candidate).tolist(), 0.5)


def _ratios(reference: Sequence[float], candidate: Sequence[float]) -> Any:
    # Within a round the machine is the same for both; between rounds it heats up, or another program comes and goes.
    return np.asarray(reference, np.float64) / np.asarray(candidate, np.float64)
