"""The record of a measurement: one row per artifact, as `bench --json` and `demo --json` write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from emadeploy.contract.plain import to_plain

#: Seconds in milliseconds of one call, by stage, and 'total': the whole call as its caller sees it.
Timings = Mapping[str, float]

MEASURED = "ok"


@dataclass(frozen=True)
class Row:
    """What was measured of one artifact. Milliseconds, MB of 10^6 bytes; ``None`` where it could not be measured.

    - ``status``: 'ok', or what happened in place of a measurement.
    - ``latency_ms``: the engine alone, ``end_to_end_ms``: ``perception(frame)``; each {'p50', 'p90', 'p99', 'n'}.
    - ``stages_ms``: median per stage of the call. ``fps``: calls per second, from the median end to end.
    - ``peak_memory_mb``: of a process that did nothing else; ``baseline_memory_mb``: of that process before it loaded
      the artifact, with numpy and the engine's library imported.
    - ``cold_start_s``: from the start of the process to its first answer.
    - ``speedup``, ``speedup_end_to_end``: how many times faster than the first row, the median over rounds in which
      both ran one after the other.
    - ``estimate``: always false here: nothing is measured on one machine and told of another.
    - ``tasks``: metrics by task, as `eval --json` has them.
    """

    name: str
    target: str
    status: str
    size_mb: float
    threads: int
    latency_ms: Mapping[str, float] | None = None
    end_to_end_ms: Mapping[str, float] | None = None
    stages_ms: Mapping[str, float] | None = None
    fps: float | None = None
    peak_memory_mb: float | None = None
    baseline_memory_mb: float | None = None
    cold_start_s: float | None = None
    speedup: float | None = None
    speedup_end_to_end: float | None = None
    estimate: bool = False
    engine: Mapping[str, Any] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether there are numbers in it."""
        return self.status == MEASURED

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for json."""
        return to_plain(self)


def spread(milliseconds: Sequence[float]) -> dict[str, float]:
    """Return {'p50', 'p90', 'p99', 'n'} of at least one value."""
    p50, p90, p99 = np.percentile(milliseconds, (50, 90, 99))
    return {"p50": float(p50), "p90": float(p90), "p99": float(p99), "n": len(milliseconds)}


def medians(timings: Sequence[Timings]) -> dict[str, float]:
    """Return the median of each stage over the calls."""
    return {stage: float(np.median([call[stage] for call in timings])) for stage in timings[0]}


def paired_speedup(reference: Sequence[float], candidate: Sequence[float]) -> float:
    """Return the median over rounds of reference / candidate; both have a value for every round."""
    # Within a round the machine is the same for both; between rounds it heats up, or another program comes and goes.
    return float(np.median(np.asarray(reference) / np.asarray(candidate)))
