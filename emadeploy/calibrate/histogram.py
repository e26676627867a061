"""What values a tensor took: its ends exactly, and how many fell where, in memory that does not grow with frames."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

#: Bins from -limit to limit; between half and all of them are in use. Sixteen for each of 256 levels.
BINS = 4096
#: The most values of an array that are counted. Counting all takes as long as the network itself, and neighbours in a
#: map say nearly the same. Measured on emanet-rooms and 16 frames: half of the ranges stay just what they are, nineteen
#: of twenty within 2.2 %, and the square error of rounding rises by 0.06 % in the mean (method mse).
SAMPLES = 2**17
#: Where all is less than this, bins could not be told apart in float32.
_LEAST = 1e-30


@dataclass
class Histogram:
    """Values seen so far: ``low`` and ``high``, the least and the greatest, and ``counts`` (BINS) of -limit to limit.

    Where a value lies beyond ``limit``, the limit doubles and bins are merged in pairs: nothing is ever guessed.
    """

    low: float = np.inf
    high: float = -np.inf
    limit: float = 0.0
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """The ends of the bins (BINS + 1), ascending."""
        return np.linspace(-self.limit, self.limit, BINS + 1)

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """The middles of the bins (BINS), ascending."""
        edges = self.edges
        return (edges[:-1] + edges[1:]) / 2

    def add(self, values: npt.NDArray[Any]) -> None:
        """Count the values of an array of any shape; raises ValueError where one is not finite.

        Of more than SAMPLES values, evenly spread ones stand for all; ``low`` and ``high`` are always those of all.
        """
        self.extend(values)
        if not values.size:
            return
        counted = values.ravel()[:: _step(values.size)]
        if self.limit == 0:
            self.counts[BINS // 2] += counted.size
            return
        scaled = counted * np.float32(BINS / 2 / self.limit)
        scaled += np.float32(BINS / 2)
        indices = np.clip(scaled.astype(np.int32), 0, BINS - 1)
        self.counts += np.bincount(indices, minlength=BINS)

    def extend(self, values: npt.NDArray[Any]) -> None:
        """Take in the ends of the values alone; raises ValueError where one is not finite."""
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError("values are not finite")
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._reach(max(-low, high))

    def _reach(self, magnitude: float) -> None:
        if self.limit == 0 and magnitude > 0:
            # So far there were only zeros, and they stay in the bin that begins at 0.
            self.limit = max(magnitude, _LEAST)
        while self.limit < magnitude:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros(BINS, np.int64)
            self.counts[BINS // 4 : BINS // 4 + BINS // 2] = pairs
            self.limit *= 2


def _step(size: int) -> int:
    """Return the step at which no more than SAMPLES of ``size`` values are met: of every row, column and channel."""
    step = max(1, -(-size // SAMPLES))
    # A step that shares a factor with an extent of the array would meet some columns, and never the others.
    while math.gcd(step, size) > 1:
        step += 1
    return step
