"""When an engine is warm, and whether its times held still while it was measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

#: The medians of two windows of calls may differ by so much and count as the same.
STEADY = 0.05
#: A window of the warm-up: calls, and seconds, at least.
_WINDOW_CALLS, _WINDOW_S = 3, 0.2
#: The warm-up ends here, steady or not.
_MOST_WINDOWS, _MOST_S = 12, 20.0
#: Windows that a measurement is cut into, and how far their medians may be apart.
_PARTS, _DRIFT = 5, 0.10

#: Runs an engine so many times and returns the milliseconds of each call; ``None`` where it has failed.
Run = Callable[[int], Sequence[float] | None]


@dataclass(frozen=True)
class WarmUp:
    """What a warm-up was: ``calls``, ``seconds``, whether it ended ``steady``, the median ``ms`` of its last calls.

    ``steady`` is ``None`` where a number of calls was asked for.
    """

    calls: int
    seconds: float
    steady: bool | None
    ms: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for json."""
        return asdict(self)


def warm_up(run: Run, calls: int | None = None) -> WarmUp | None:
    """Run an engine until the medians of two successive windows agree, or ``calls`` times; ``None`` where it fails."""
    started = time.perf_counter()
    if calls is not None:
        times = run(calls) if calls else []
        if times is None:
            return None
        return WarmUp(calls, time.perf_counter() - started, None, float(np.median(times)) if times else None)
    first = run(_WINDOW_CALLS)
    if first is None:
        return None
    before = float(np.median(first))
    # Of an engine that takes a tenth of a millisecond three calls would say nothing of clocks that are still rising.
    window = max(_WINDOW_CALLS, int(np.ceil(1e3 * _WINDOW_S / max(before, 1e-3))))
    done = _WINDOW_CALLS
    for index in range(_MOST_WINDOWS):
        times = run(window)
        if times is None:
            return None
        done += window
        now = float(np.median(times))
        # The first window is shorter than the others, and the coldest: it is not compared where it differs in length.
        steady = abs(now - before) <= STEADY * min(now, before) and (index > 0 or window == _WINDOW_CALLS)
        before = now
        if steady or time.perf_counter() - started > _MOST_S:
            break
    return WarmUp(done, time.perf_counter() - started, steady, before)


def drift(milliseconds: Sequence[float]) -> float | None:
    """Return how far the medians of successive fifths of the calls are apart, as a share of the median of all.

    ``None`` for fewer than ten calls: halves of a fifth tell nothing.
    """
    if len(milliseconds) < 2 * _PARTS:
        return None
    medians = [float(np.median(part)) for part in np.array_split(np.asarray(milliseconds, np.float64), _PARTS)]
    return (max(medians) - min(medians)) / float(np.median(milliseconds))


def unstable(milliseconds: Sequence[float], warmed: WarmUp | None, trouble: Sequence[str] = ()) -> str | None:
    """Return why times are not to be trusted, in words; ``None`` where nothing speaks against them.

    ``trouble``: what befell the machine meanwhile (`conditions.trouble`).
    """
    reasons = []
    if warmed is not None and warmed.steady is False:
        reasons.append(f"not steady after {warmed.calls} calls of warm-up")
    spread = drift(milliseconds)
    if spread is not None and spread > _DRIFT:
        reasons.append(f"the medians of successive fifths of its calls are {100 * spread:.0f} % apart")
    return "; ".join([*reasons, *trouble]) or None
