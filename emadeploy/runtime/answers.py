"""What a stream tells: a frame with its maps or its error, and what became of all frames so far."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from emadeploy.contract.outputs import TaskOutputs
from emadeploy.runtime.capture import Timed

STAGES = ("capture", "preprocess", "inference", "decode")


@dataclass(eq=False)
class Answer:
    """A frame of a stream and its maps, or the error in their place.

    ``frame`` has the ``pixels``, ``stamp`` and ``name`` that the source gave; ``None`` where it could give none.
    """

    frame: Timed | None
    outputs: TaskOutputs | None = None
    error: BaseException | None = None

    def result(self) -> TaskOutputs:
        """Return the maps, or raise the frame's error."""
        if self.error is not None:
            raise self.error
        assert self.outputs is not None
        return self.outputs


@dataclass(frozen=True)
class StreamStats:
    """What became of the frames so far, and ``seconds`` of work by stage ('capture' with the wait for the camera).

    ``captured = answered + failed + dropped + waiting``, where ``waiting`` are those still on their way.
    ``reconnects``: attempts to open a lost source again.
    """

    captured: int = 0
    dropped: int = 0
    answered: int = 0
    failed: int = 0
    reconnects: int = 0
    seconds: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @property
    def waiting(self) -> int:
        """Frames that were captured and have not reached the loop; after an early end, those left behind."""
        return self.captured - self.dropped - self.answered - self.failed


class Tally:
    """Counts for :class:`StreamStats`, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stats = StreamStats()

    def count(self, name: str) -> None:
        """Add one to a counter."""
        with self._lock:
            changed: dict[str, Any] = {name: getattr(self._stats, name) + 1}
            self._stats = replace(self._stats, **changed)

    def work(self, stage: str, seconds: float) -> None:
        """Add to the seconds of a stage."""
        with self._lock:
            spent = self._stats.seconds
            self._stats = replace(self._stats, seconds={**spent, stage: spent[stage] + seconds})

    def stats(self) -> StreamStats:
        """Return all of it as it is now."""
        with self._lock:
            return self._stats
