"""A stream at full rate, for as long as one likes: memory stays, answers grow no older, and counters add up."""

import math
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from emadeploy import Runtime, load
from emadeploy.runtime.answers import StreamStats
from emadeploy.runtime.capture import Shot

pytest.importorskip("onnxruntime")

#: Frames after which caches, arenas and threads are there.
WARM = 300
#: Ages that are kept of the first answers and of the last: a soak that kept all would find its own growth.
KEPT = 2000
#: Seconds between frames: a camera has its own rate, a file none.
_PAUSE = {"none": 0.0, "oldest": 0.001}


class Camera:
    """Gives frames every ``pause`` seconds, until ``over`` says so of their number; every seventh is no frame."""

    live = False  # it has an end; frames are dropped all the same where the stream is told so

    def __init__(self, over: Callable[[int], bool], pause: float) -> None:
        self._over, self._pause = over, pause
        self._frames = np.random.default_rng(7).integers(0, 256, (8, 48, 64, 3), np.uint8)
        self.given = 0

    def frames(self, on_bad: Any = None) -> Iterator[Shot]:
        for index in count():
            if self._over(index):
                return
            self.given += 1
            time.sleep(self._pause)
            pixels = np.zeros(3, np.uint8) if index % 7 == 6 else self._frames[index % len(self._frames)]
            yield Shot(f"{index}", pixels, time.perf_counter())


class Soaked(NamedTuple):
    """What became of a stream: its counts, the ages in seconds of its first and its last answers, and the memory."""

    stats: StreamStats
    first: list[float]
    last: list[float]
    megabytes: list[float]


def resident_mb() -> float:
    """Return the memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def soak(perception: Runtime, drop: str, over: Callable[[int], bool], look_every: float = math.inf) -> Soaked:
    """Stream until ``over``, and check that nothing was lost without being counted.

    The memory is looked at ``look_every`` so many seconds while frames flow: where a stream ends and another begins,
    malloc gives back and takes whole arenas, up or down.
    """
    camera = Camera(over, _PAUSE[drop])
    stream = perception.stream(camera, drop=drop, on_error="skip")
    first: list[float] = []
    last: deque[float] = deque(maxlen=KEPT)
    megabytes: list[float] = []
    failed = answered = 0
    look_at = time.monotonic() + look_every
    for answer in stream.answers():
        if time.monotonic() >= look_at:
            megabytes.append(resident_mb())
            look_at += look_every
        if answer.error is not None:
            failed += 1
            continue
        age = time.perf_counter() - answer.result().stamp
        answered += 1
        last.append(age)
        if len(first) < KEPT:
            first.append(age)
    stats = stream.stats
    assert stats.captured == camera.given
    assert stats.captured == stats.answered + stats.failed + stats.dropped
    assert (stats.answered, stats.failed, stats.waiting) == (answered, failed, 0)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("emadeploy")]
    # Of a short stream the two must not share an answer.
    kept = min(KEPT, answered // 2)
    return Soaked(stats, first[:kept], list(last)[-kept:], megabytes)


@pytest.mark.parametrize("drop", ["none", "oldest"])
def test_counters_of_a_stream_add_up(drop: str, make_artifact: Callable[..., Path]) -> None:
    with load(make_artifact(), threads=1) as perception:
        found = soak(perception, drop, lambda index: index == 704)
    assert found.first
    if drop == "none":
        assert (found.stats.answered, found.stats.failed, found.stats.dropped) == (604, 100, 0)


@pytest.mark.slow
@pytest.mark.parametrize("drop", ["none", "oldest"])
def test_a_stream_neither_grows_nor_falls_behind(drop: str, make_artifact: Callable[..., Path]) -> None:
    """As long as EMADEPLOY_SOAK_SECONDS says, half for each: 600 for the release, less for a look.

    EMADEPLOY_SOAK_ARTIFACT names the artifact, by default a tiny one.
    """
    seconds = float(os.environ.get("EMADEPLOY_SOAK_SECONDS", "60")) / 2
    artifact = os.environ.get("EMADEPLOY_SOAK_ARTIFACT") or make_artifact()
    with load(artifact, threads=1) as perception:
        soak(perception, drop, lambda index: index >= WARM)
        end = time.monotonic() + seconds
        found = soak(perception, drop, lambda index: time.monotonic() > end, look_every=seconds / 10)
    print(f"{found.stats}; MB {[round(mb, 1) for mb in found.megabytes]}")
    assert len(found.megabytes) >= 9, "too short to tell"
    assert found.megabytes[-1] < 1.02 * found.megabytes[0]
    assert len(found.first) > 10, "too short to tell"
    # A queue that grew would make it many times older; other programs may make it a little.
    assert statistics.median(found.last) < 1.5 * statistics.median(found.first)
