"""When to pick the next frame of a live source: as late as its preprocessing allows, for what waits grows old."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from emadeploy.runtime.line import Ended

#: The weight of the newest time in the running means.
_WEIGHT = 0.2
#: A frame is picked earlier by this share of an inference: an engine that waits costs more than a frame that does.
_SLACK = 0.1


class Pace:
    """One frame is in the engine, and at most one more is on its way there.

    A frame picked while another is in the engine waits for it, and so would be older by that when it is answered:
    up to two inference times, which is the bound. Running means of the stages' times say when the engine, and the
    decoding behind it, will be free; the next frame is picked just before, so that the usual age is one inference
    time. Where the estimate is wrong, the bound still holds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._on_the_way = 0
        self._stopped = False
        self._entered = self._collected = -math.inf
        self._seconds = {"preprocess": 0.0, "inference": 0.0, "decode": 0.0}

    def wait_to_pick(self) -> None:
        """Return when the next frame shall be picked, which is then on its way. Raises Ended after :meth:`stop`."""
        with self._changed:
            while not self._stopped:
                left = self.due() - self._clock()
                if self._on_the_way < 2 and left <= 0:
                    self._on_the_way += 1
                    return
                self._changed.wait(left if self._on_the_way < 2 else None)
            raise Ended

    def enter(self) -> None:
        """Note that the frame that was picked last has gone to the engine."""
        with self._changed:
            self._entered = self._clock()

    def collect(self) -> None:
        """Note that a frame has left the engine, or never came there, and is being decoded."""
        with self._changed:
            self._on_the_way -= 1
            self._collected = self._clock()
            self._changed.notify_all()

    def learn(self, stage: str, seconds: float) -> None:
        """Take a measured time of 'preprocess', 'inference' or 'decode' into its running mean."""
        with self._changed:
            mean = self._seconds[stage]
            self._seconds[stage] = mean + _WEIGHT * (seconds - mean) if mean else seconds

    def stop(self) -> None:
        """Let go of who waits, with Ended."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def due(self) -> float:
        """Return the time on the clock at which the next frame shall be picked."""
        before, inference, decoding = (self._seconds[name] for name in ("preprocess", "inference", "decode"))
        engine_free, decoder_free = self._collected, self._collected + decoding
        if self._on_the_way:
            engine_free = max(self._entered, self._collected) + inference
            decoder_free = max(engine_free, decoder_free) + decoding
        return max(engine_free, decoder_free - inference) - before - _SLACK * inference


class Eager(Pace):
    """No pace: every frame is picked as soon as there is room for it."""

    def wait_to_pick(self) -> None:
        """Return at once. Raises Ended after :meth:`stop`."""
        with self._changed:
            if self._stopped:
                raise Ended
