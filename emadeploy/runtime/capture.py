"""Frames out of a source, one after the other, whatever becomes of it: bad ones named, a lost camera opened again."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from emadeploy.contract.errors import DataError, FrameError, SpecError, one_line
from emadeploy.contract.guarded import Guarded
from emadeploy.contract.plain import one_of
from emadeploy.contract.preprocess import ORDERS

log = logging.getLogger(__name__)

#: Attempts to open a lost camera again, without a frame in between, before it is given up; half a minute altogether.
ATTEMPTS = 10
#: Seconds before the first attempt; twice as many before each one that follows, up to the most.
FIRST_DELAY, LONGEST_DELAY = 0.25, 5.0
#: Bad frames in a row after which a source is given up: an iterator that fails for ever must not look busy for ever.
BAD_IN_A_ROW = 100

#: What opens a source that is named by a text; the floor above this one has it.
_OPEN = Guarded("emadeploy.robotics.sources:open_source", "cv2", "robotics")


class Timed(Protocol):
    """A frame with its capture time, such as :class:`emadeploy.robotics.sources.Frame`."""

    @property
    def pixels(self) -> Any:
        """uint8 (H, W, 3)."""

    @property
    def stamp(self) -> float:
        """The capture time in seconds."""


@runtime_checkable
class FrameSource(Protocol):
    """What gives frames anew whenever it is asked, such as :class:`emadeploy.robotics.sources.Source`."""

    @property
    def live(self) -> bool:
        """Whether frames come when they happen, not when they are asked for: a camera, not a file."""

    def frames(self, on_bad: Callable[[DataError], None] | None = None) -> Iterator[Timed]:
        """Yield the frames; what cannot be read is handed to ``on_bad``. Raises DataError where the source fails."""


@dataclass(frozen=True, eq=False)
class Shot:
    """A frame of a plain iterable: ``pixels`` as given, ``name`` its number, ``stamp`` in seconds, by default now."""

    name: str
    pixels: Any
    stamp: float


#: A frame, or why there is none in its place.
Captured = Timed | Exception


def as_source(source: object, order: str = "rgb") -> FrameSource:
    """Return ``source``, what its text names, or a source around an iterable of frames or of (stamp, frame).

    Raises SpecError for anything else, for an ``order`` other than 'rgb' where the source gives RGB by itself, and
    whatever opening the named source raises.
    """
    one_of("order", order, ORDERS)
    if order != "rgb" and isinstance(source, (str, os.PathLike, FrameSource)):
        raise SpecError(f"order {order!r}: source {source} gives RGB by itself; leave the order out")
    if isinstance(source, (str, os.PathLike)):
        opened: FrameSource = _OPEN.load(f"source {os.fspath(source)!r}")(source)
        return opened
    if isinstance(source, FrameSource):
        return source
    # An array (N, H, W, 3) is N frames, and one of (H, W, 3) is a frame, not a source.
    if isinstance(source, Iterable) and getattr(source, "ndim", 4) == 4:
        return _Plain(source)
    raise SpecError(
        f"a stream's source is {type(source).__name__}; expected an iterable of frames or of (stamp, frame), a source "
        "of emadeploy.robotics, or its text: a file, a folder, 'camera:0', 'rtsp://...'"
    )


class Capture:
    """Reads a source until it ends, for good.

    ``pause(seconds)`` waits, and returns whether the stream was stopped meanwhile; ``on_reconnect`` is called whenever
    a lost source is opened again.
    """

    def __init__(
        self, source: FrameSource, pause: Callable[[float], bool], on_reconnect: Callable[[], object] = lambda: None
    ) -> None:
        self._source = source
        self._pause = pause
        self._on_reconnect = on_reconnect

    def frames(self) -> Generator[Captured, None, None]:
        """Yield every frame, or the error in its place. A live source that ends or fails is opened again.

        Raises what ended the source for good: a live one after :data:`ATTEMPTS`, or before its first frame, any other
        at its error.
        """
        failed, seen = 0, False
        while True:
            error: Exception | None = None
            try:
                for captured in self._once():
                    if not isinstance(captured, Exception):
                        failed, seen = 0, True
                    yield captured
            except Exception as raised:
                error = raised
            if not self._source.live or not seen:
                if error is not None:
                    raise error
                return
            error = error or DataError(f"{self._source} gives no more frames")
            if failed == ATTEMPTS:
                raise DataError(f"{one_line(error)}; {ATTEMPTS} attempts to open it again failed") from error
            delay = min(FIRST_DELAY * 2**failed, LONGEST_DELAY)
            failed += 1
            log.warning("%s; attempt %d of %d to open it again in %.2g s", one_line(error), failed, ATTEMPTS, delay)
            if self._pause(delay):
                return
            self._on_reconnect()

    def _once(self) -> Iterator[Captured]:
        """Yield what the source gives, opened once; raises the error that ended it."""
        bad: list[Exception] = []
        raised: Exception | None = None
        in_a_row = 0
        frames = self._source.frames(bad.append)
        while True:
            try:
                frame = next(frames, None)
            except Exception as error:
                # The end of a generator; other iterators may go on. The next turn tells.
                in_a_row += 1
                if in_a_row == BAD_IN_A_ROW:
                    raise
                if raised is not None:
                    yield raised
                raised = error
                continue
            if raised is not None:
                if frame is None:
                    raise raised
                yield raised
                raised = None
            yield from bad
            bad.clear()
            if frame is None:
                return
            in_a_row = 0
            yield frame


class _Plain:
    """An iterable as a source."""

    live = False

    def __init__(self, frames: Iterable[Any]) -> None:
        self._frames = frames

    def frames(self, on_bad: Callable[[DataError], None] | None = None) -> Iterator[Timed]:
        """Return an iterator that goes on after an error where that of the iterable does."""
        # Not kept: a generator with a camera in it lets go of that when nobody reads it any more.
        frames, self._frames = self._frames, ()
        return map(_timed, itertools.count(), frames)


def _timed(index: int, item: Any) -> Timed:
    if isinstance(item, tuple):
        if len(item) != 2 or not isinstance(item[0], (int, float)):
            kinds = ", ".join(type(part).__name__ for part in item)
            raise FrameError(f"frame {index} of the stream is a tuple of {kinds}; expected (stamp in seconds, frame)")
        return Shot(f"{index:06d}", item[1], float(item[0]))
    if hasattr(item, "pixels") and hasattr(item, "stamp"):
        frame: Timed = item
        return frame
    return Shot(f"{index:06d}", item, time.time())
