"""How long things took, in steps that Prometheus can add up over servers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

#: Upper bounds of the histograms, in seconds.
BOUNDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass
class Histogram:
    """How many seconds things took."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def samples(self, labels: Mapping[str, str]) -> Iterator[tuple[str, Mapping[str, str], float]]:
        """Yield suffix, labels and value of every line."""
        running = list(accumulate(self.counts))
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), running, strict=True):
            yield "_bucket", {**labels, "le": bound}, count
        yield "_sum", labels, self.total
        yield "_count", labels, running[-1]
